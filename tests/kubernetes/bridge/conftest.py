"""A namespace of its own for every test."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from driver_harness import World

from cairn_bridge.drivers.kubernetes import Api
from cairn_bridge.drivers.kubernetes.api import Kind
from cairn_common.pools import ClusterPools


@pytest.fixture
def kubeconfig() -> Path:
    return Path(os.environ["KUBECONFIG"])


@pytest.fixture
def pools() -> ClusterPools:
    """Override it by parametrizing."""
    return ClusterPools()


@pytest.fixture
async def world(kubeconfig: Path, pools: ClusterPools) -> AsyncIterator[World]:
    namespace = f"t-{uuid.uuid4().hex[:8]}"
    api = await Api.connect(kubeconfig, None)
    document = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
    await api.create(document)
    async with asyncio.timeout(20):
        accounts = Kind("v1", "serviceaccounts", namespace)
        while await api.get(accounts, "default") is None:
            await asyncio.sleep(0.05)
    try:
        world = World(kubeconfig, namespace, pools, api)
        yield world
        for pod in await world.all(world.pods):
            name = pod["metadata"]["name"]
            await api.patch(world.pods, name, {"metadata": {"finalizers": None}})
    finally:
        await api.delete(Kind("v1", "namespaces"), namespace)
        await api.close()
