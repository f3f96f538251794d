"""A namespace of its own for every test, and drivers in it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from driver_harness import World
from testcluster.reached import Reached

from cairn_bridge.drivers.kubernetes import Api
from cairn_common.pools import ClusterPools


@pytest.fixture
def pools() -> ClusterPools:
    """The pools of the cluster; tests parametrize it."""
    return ClusterPools()


@pytest.fixture
async def world(north: Reached, namespace: str, pools: ClusterPools) -> AsyncIterator[World]:
    api = await Api.connect(north.kubeconfig, north.context)
    world = World(north, namespace, pools, api)
    try:
        yield world
        await world.free_pods()
    finally:
        await api.close()
