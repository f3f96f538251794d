"""An engine and its cluster for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from bridge_harness import Engine, RecordingDriver, engine_of_a_cluster

from servers import Servers


@pytest.fixture
async def engine(servers: Servers) -> AsyncIterator[Engine]:
    async with engine_of_a_cluster(servers) as made:
        yield made


@pytest.fixture
async def driver(engine: Engine) -> RecordingDriver:
    return RecordingDriver(engine.cluster)
