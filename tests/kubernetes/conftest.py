"""Clusters for the tests of this folder: two simulated ones, or the user's own by KUBECONFIG."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest
from testcluster import nodes
from testcluster.build import ensure_parts
from testcluster.cluster import Cluster
from testcluster.reached import Reached, real_clusters

_reached: list[Reached] = []
"""The clusters of this run, for the report of a failed test."""
_left_out: list[str] = []


@pytest.fixture(scope="session")
def clusters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sequence[Reached]]:
    """Two independent clusters, `north` and `south`; of the user's own as many as are named."""
    real = real_clusters()
    if real:
        _reached.extend(real)
        yield real
        return
    parts = ensure_parts()
    folder = tmp_path_factory.mktemp("kubernetes")
    north, south = (Cluster(name, parts, folder / name) for name in ("north", "south"))
    try:
        asyncio.run(_start(north, south))
        _reached.extend((north, south))
        yield (north, south)
    finally:
        north.stop()
        south.stop()


async def _start(north: Cluster, south: Cluster) -> None:
    await asyncio.gather(north.start(), south.start())
    await north.add(nodes.GPU, 4, racks=2, zone="north-1")
    await north.add(nodes.CPU, 2, zone="north-1")
    await south.add(nodes.GPU, 2, racks=1, zone="south-1")
    await south.add(nodes.EDGE, 2, zone="south-1")


@pytest.fixture
def north(clusters: Sequence[Reached]) -> Reached:
    """The first cluster; simulated, it has 4 GPU nodes in 2 racks and 2 CPU nodes."""
    return clusters[0]


@pytest.fixture
def south(clusters: Sequence[Reached]) -> Reached:
    """The second cluster; simulated, it has 2 GPU nodes and 2 edge nodes."""
    if len(clusters) < 2:
        pytest.skip("two clusters are compared, and you gave one: name two in CAIRN_TEST_CONTEXTS")
    return clusters[1]


@pytest.fixture
def simulated(north: Reached) -> Cluster:
    """The first cluster, for tests marked `simulator`: its nodes can be lost."""
    assert isinstance(north, Cluster)
    return north


@pytest.fixture
async def namespace(north: Reached) -> AsyncIterator[str]:
    """A namespace of its own on `north`; its pods are gone when the next test begins."""
    async with north.namespace() as name:
        yield name


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give cluster tests time to start the clusters; leave out what a real cluster cannot do."""
    here = [item for item in items if Path(__file__).parent in item.path.parents]
    for item in here:
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(300))
    if real_clusters():
        left_out = [item for item in here if item.get_closest_marker("simulator")]
        config.hook.pytest_deselected(items=left_out)
        _left_out.extend(item.nodeid for item in left_out)
        items[:] = [item for item in items if item not in left_out]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was left out, and why."""
    if _left_out:
        terminalreporter.section("left out: they need simulated nodes, and KUBECONFIG is set")
        for name in _left_out:
            terminalreporter.write_line(name)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """With a failed test, write down what each cluster looked like."""
    report: pytest.TestReport = yield  # type: ignore[assignment]
    if report.failed and call.when == "call":
        folder = Path(tempfile.mkdtemp(prefix="cairn-failed-test-"))
        for cluster in _reached:
            file = folder / f"{cluster.name}.yaml"
            file.write_text(asyncio.run(cluster.dump()))
            report.sections.append((f"cluster {cluster.name}", f"its state is in {file}"))
    return report  # type: ignore[return-value]
