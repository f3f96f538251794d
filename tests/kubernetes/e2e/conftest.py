"""One whole system beside the two simulated clusters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from testcluster.reached import Reached
from whole_system import Cairn, running_cairn


@pytest.fixture(scope="module")
def cairn(clusters: Sequence[Reached], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cairn]:
    """All services, with a bridge for each cluster."""
    with running_cairn(clusters, tmp_path_factory.mktemp("cairn")) as cairn:
        yield cairn
