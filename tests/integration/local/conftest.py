"""A started local cluster for each test that asks for one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from local_cluster import Cluster


@pytest.fixture(params=["namespaces", "none"])
def isolation(request: pytest.FixtureRequest) -> str:
    """Both levels; tests that need one of them override the parameter."""
    level: str = request.param
    return level


@pytest.fixture
async def cluster(tmp_path: Path, isolation: str) -> AsyncIterator[Cluster]:
    """A started local cluster, emptied at the end."""
    made = Cluster(tmp_path, isolation=isolation)
    await made.driver.start(made.recorder)
    yield made
    if made.driver.known():
        await made.driver.report_all()  # a driver that was started again tells of ended ones
        await made.empty()
    await made.driver.close()
