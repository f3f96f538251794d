"""What the clusters have, from the newest word of each, and what that means for the pools."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from cairn_api.core.pools import (
    ConfigFields,
    PlatformMinimal,
    PoolMinimal,
    PoolStatus,
    PoolUsage,
    ResourceAnswer,
    ResourceUsage,
)
from cairn_common.events import ClusterHeartbeat, ClusterResources, NodeInfo
from cairn_common.spec.capacity import NodeCapacity
from cairn_common.spec.features import Feature

DEFAULT_PLATFORM = "default"
_MISSED_BEATS = 3.5
_RESOURCES_GRACE = timedelta(seconds=60)


@dataclass(slots=True)
class Cluster:
    """The newest word of one cluster."""

    resources: ClusterResources | None = None
    alive_until: datetime | None = None


class Inventory:
    """The clusters, as far as they have been heard.

    Args:
        pools: which cluster serves which pool.
    """

    def __init__(self, pools: Mapping[str, str]) -> None:
        self.pools = dict(pools)
        self._clusters: dict[str, Cluster] = {}

    def take_resources(self, event: ClusterResources) -> None:
        """Take note of an inventory; an older one than the newest known changes nothing."""
        cluster = self._clusters.setdefault(event.cluster, Cluster())
        if cluster.resources is None or cluster.resources.at <= event.at:
            cluster.resources = event
        self._alive(cluster, event.at + _RESOURCES_GRACE)

    def take_heartbeat(self, event: ClusterHeartbeat) -> None:
        """Take note of a sign of life."""
        cluster = self._clusters.setdefault(event.cluster, Cluster())
        self._alive(cluster, event.at + timedelta(seconds=_MISSED_BEATS * event.interval_seconds))

    @staticmethod
    def _alive(cluster: Cluster, until: datetime) -> None:
        if cluster.alive_until is None or cluster.alive_until < until:
            cluster.alive_until = until

    def nodes(self, pool: str) -> Sequence[NodeInfo] | None:
        """The nodes of a pool; None if its cluster has not said yet what it has."""
        cluster = self._clusters.get(self.pools.get(pool, pool))
        return None if cluster is None or cluster.resources is None else cluster.resources.nodes

    def status(self, pool: str, now: datetime) -> PoolStatus:
        """Whether the pool's cluster was heard of lately."""
        cluster = self._clusters.get(self.pools.get(pool, pool))
        online = cluster and cluster.alive_until and cluster.alive_until >= now
        return PoolStatus.ONLINE if online else PoolStatus.OFFLINE


def capacities(nodes: Sequence[NodeInfo]) -> list[NodeCapacity]:
    """The nodes as the capacity check wants them."""
    return [
        NodeCapacity(
            node.name, node.cpu, node.gpu, node.memory, node.storage, frozenset(node.platforms)
        )
        for node in nodes
    ]


def features_of(nodes: Sequence[NodeInfo]) -> frozenset[str]:
    """What workflows may use because the nodes have it.

    Excluding nodes is trivial where there is one: either it is not excluded, or the capacity
    check refuses the workflow because no node is left.
    """
    features: set[str] = set()
    if any(node.gpu for node in nodes):
        features.add(Feature.GPU)
    if any(node.platforms for node in nodes):
        features.add(Feature.PLATFORM)
    if len(nodes) == 1:
        features.add(Feature.NODES_EXCLUDED)
    return frozenset(features)


def platforms_of(node: NodeInfo) -> list[str]:
    """The platforms of a node as clients see them: every node has one."""
    return list(node.platforms) or [DEFAULT_PLATFORM]


def pool_minimal(inventory: Inventory, pool: str, now: datetime) -> PoolMinimal:
    """What users see of a pool."""
    nodes = inventory.nodes(pool) or ()
    platforms = sorted({platform for node in nodes for platform in platforms_of(node)})
    return PoolMinimal(
        name=pool,
        description=f"served by cluster {inventory.pools[pool]}",
        status=inventory.status(pool, now),
        backend=inventory.pools[pool],
        default_platform=platforms[0] if len(platforms) == 1 else None,
        platforms={platform: PlatformMinimal() for platform in platforms},
    )


def pool_usage(inventory: Inventory, pool: str, now: datetime) -> PoolUsage:
    """A pool with the use of its GPUs, which is what the reference counts."""
    nodes = inventory.nodes(pool) or ()
    minimal = pool_minimal(inventory, pool, now)
    return PoolUsage(**dict(minimal), resource_usage=usage_of(nodes))


def usage_of(nodes: Sequence[NodeInfo]) -> ResourceUsage:
    """The GPUs of nodes: in use, free, in all. There are no quotas yet: a pool is its limit."""
    total = sum(node.gpu for node in nodes)
    used = sum(node.used_gpu for node in nodes)
    return ResourceUsage(
        quota_used=str(used),
        quota_free=str(total - used),
        quota_limit=str(total),
        total_usage=str(used),
        total_capacity=str(total),
        total_free=str(total - used),
    )


def resources_of(
    inventory: Inventory, pools: Sequence[str], platforms: Collection[str] | None = None
) -> list[ResourceAnswer]:
    """The nodes of pools, each once with all pools and platforms that it belongs to."""
    places: dict[tuple[str, str], tuple[NodeInfo, dict[str, list[str]]]] = {}
    for pool in pools:
        for node in inventory.nodes(pool) or ():
            offered = [p for p in platforms_of(node) if not platforms or p in platforms]
            if offered:
                key = inventory.pools.get(pool, pool), node.name
                places.setdefault(key, (node, {}))[1][pool] = offered
    return [
        _resource(cluster, node, where) for (cluster, _), (node, where) in sorted(places.items())
    ]


def _resource(cluster: str, node: NodeInfo, where: dict[str, list[str]]) -> ResourceAnswer:
    allocatable = _amounts(node.cpu, node.gpu, node.memory, node.storage)
    used = _amounts(node.used_cpu, node.used_gpu, node.used_memory, 0)
    free = _amounts(
        node.cpu - node.used_cpu,
        node.gpu - node.used_gpu,
        node.memory - node.used_memory,
        node.storage,
    )

    def by_place(value: Any) -> dict[str, dict[str, Any]]:
        return {pool: dict.fromkeys(platforms, value) for pool, platforms in where.items()}

    return ResourceAnswer(
        hostname=node.name,
        exposed_fields={
            "node": node.name,
            "pool/platform": [f"{pool}/{p}" for pool, ps in where.items() for p in ps],
            **allocatable,
        },
        usage_fields=used,
        non_workflow_usage_fields=_amounts(0, 0, 0, 0),
        allocatable_fields=allocatable,
        platform_allocatable_fields=by_place(allocatable),
        platform_available_fields=by_place(free),
        platform_workflow_allocatable_fields=by_place(allocatable),
        config_fields=by_place(ConfigFields().model_dump()),
        backend=cluster,
        label_fields=dict(node.labels),
        pool_platform_labels=where,
        conditions=["Ready"],
    )


def _amounts(cpu: int, gpu: int, memory: int, storage: int) -> dict[str, str]:
    """As Kubernetes writes them, which is what the reference's client converts."""
    return {
        "cpu": str(cpu),
        "gpu": str(gpu),
        "memory": f"{memory >> 10}Ki",
        "storage": f"{storage >> 10}Ki",
    }
