"""A real node beside the simulated ones of `north`, and drivers whose pods run on it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace

import pytest
from driver_harness import World
from real_harness import LABELS, Real, pool_on
from testcluster.cluster import Cluster
from testcluster.node.able import why_no_node
from testcluster.node.images import RUNTIME
from testcluster.reached import Reached

from cairn_bridge.drivers.kubernetes import Api
from cairn_common.pools import ClusterPools

_numbers = itertools.count()


@pytest.fixture(scope="module")
def real(clusters: Sequence[Reached]) -> Iterator[Real]:
    """The node and its cluster; where none can be had, the test is skipped and says why."""
    if reason := why_no_node():
        pytest.skip(f"a real node cannot be had here: {reason}")
    north = clusters[0]
    assert isinstance(north, Cluster)
    machine = asyncio.run(north.add_real_node(f"real-{next(_numbers)}", LABELS))
    store = machine.folder / "store"
    store.mkdir()
    store.chmod(0o777)
    try:
        yield Real(north, machine, store)
    finally:
        asyncio.run(north.remove_real_node(machine))


@pytest.fixture
async def world(real: Real, namespace: str) -> AsyncIterator[World]:
    """A namespace whose only pool is the real node."""
    pools = ClusterPools.model_validate({"pools": {"default": pool_on(real.store)}})
    api = await Api.connect(real.cluster.kubeconfig, real.cluster.context)
    world = World(real.cluster, namespace, pools, api)
    world.site = replace(world.site, runtime_image=RUNTIME)
    try:
        yield world
        await world.free_pods()
    finally:
        await api.close()
