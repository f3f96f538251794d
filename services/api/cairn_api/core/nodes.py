"""Pools, nodes and clusters as the API's answers show them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from cairn_api.core.inventory import Inventory, Site
from cairn_api.core.pools import (
    ConfigFields,
    NodeSet,
    PlatformMinimal,
    PoolMinimal,
    PoolUsage,
    ResourceAnswer,
    ResourceUsage,
)
from cairn_common.events import NodeInfo
from cairn_common.pools import Platform
from cairn_common.pools.model import UNLIMITED

DEFAULT_PLATFORM = "default"
Key = tuple[str, str]
"""A node: its cluster and its name."""


def pool_minimal(inventory: Inventory, pool: str, now: datetime) -> PoolMinimal:
    """What users see of a pool. Of what its clusters say differently, the first one counts."""
    sites = inventory.sites(pool)
    clusters = ", ".join(inventory.clusters_of(pool))
    terms = [site.terms for site in sites if site.terms is not None]
    platforms: dict[str, Platform] = {}
    for site in reversed(sites):
        platforms |= {name: Platform() for node in site.nodes for name in _platforms_of(node, site)}
        platforms |= site.terms.platforms if site.terms else {}
    usual = terms[0].usual_platform if terms else None
    if usual is None and len(platforms) == 1:
        usual = next(iter(platforms))
    return PoolMinimal(
        name=pool,
        description=next((each.description for each in terms if each.description), "")
        or (f"served by {clusters}" if clusters else "no cluster has announced it"),
        status=inventory.status(pool, now),
        backend=clusters,
        default_platform=usual,
        topology_keys=[each.model_dump() for each in (terms[0].topology_keys if terms else ())],
        platforms={
            name: PlatformMinimal(
                description=platform.description,
                host_network_allowed=platform.host_network_allowed,
                privileged_allowed=platform.privileged_allowed,
                allowed_mounts=platform.allowed_mounts,
                default_mounts=platform.default_mounts,
            )
            for name, platform in sorted(platforms.items())
        },
    )


def node_sets(inventory: Inventory, pools: Sequence[str], now: datetime) -> list[NodeSet]:
    """The pools with their use; those that share a node are one set."""
    sets: list[tuple[set[Key], list[str]]] = []
    for pool in pools:
        keys = set(_nodes(inventory, [pool]))
        names = [pool]
        apart = []
        for others, members in sets:
            if keys & others:
                keys |= others
                names = members + names
            else:
                apart.append((others, members))
        sets = [*apart, (keys, names)]
    return [
        NodeSet(pools=[pool_usage(inventory, pool, now) for pool in members])
        for _, members in sorted(sets, key=lambda each: each[1])
    ]


def pool_usage(inventory: Inventory, pool: str, now: datetime) -> PoolUsage:
    """A pool with the use of its GPUs, which is what the reference counts."""
    minimal = pool_minimal(inventory, pool, now)
    quotas = [
        site.terms.queue.gpu.guarantee
        if site.terms is not None and site.terms.queue.gpu.guarantee != UNLIMITED
        else sum(node.gpu for node in site.nodes)
        for site in inventory.sites(pool)
    ]
    usage = usage_of(_nodes(inventory, [pool]).values(), int(sum(quotas)))
    return PoolUsage(**dict(minimal), resource_usage=usage)


def sum_of(inventory: Inventory, pools: Sequence[str]) -> ResourceUsage:
    """The use of all nodes of the pools, each counted once."""
    return usage_of(_nodes(inventory, pools).values())


def usage_of(nodes: Iterable[NodeInfo], quota: int | None = None) -> ResourceUsage:
    """The GPUs of nodes: in use, free, in all. Without a quota all of them are the limit.

    What is in use is known for nodes, not for pools: where pools share nodes it is that of all.
    """
    nodes = list(nodes)
    total = sum(node.gpu for node in nodes)
    used = sum(node.used_gpu for node in nodes)
    limit = total if quota is None else quota
    return ResourceUsage(
        quota_used=str(min(used, limit)),
        quota_free=str(max(0, limit - used)),
        quota_limit=str(limit),
        total_usage=str(used),
        total_capacity=str(total),
        total_free=str(total - used),
    )


def resources_of(
    inventory: Inventory, pools: Sequence[str], platforms: Collection[str] | None = None
) -> list[ResourceAnswer]:
    """The nodes of pools, each once with all pools and platforms that it belongs to."""
    places: dict[Key, tuple[NodeInfo, dict[str, dict[str, Platform]]]] = {}
    for pool in pools:
        for site in inventory.sites(pool):
            known = site.terms.platforms if site.terms else {}
            for node in site.nodes:
                offered = {
                    name: known.get(name, Platform())
                    for name in _platforms_of(node, site)
                    if not platforms or name in platforms
                }
                if offered:
                    places.setdefault((site.cluster, node.name), (node, {}))[1][pool] = offered
    return [
        _resource(cluster, node, where)
        for (cluster, _), (node, where) in sorted(places.items(), key=lambda item: item[0])
    ]


def _nodes(inventory: Inventory, pools: Sequence[str]) -> dict[Key, NodeInfo]:
    return {
        (site.cluster, node.name): node
        for pool in pools
        for site in inventory.sites(pool)
        for node in site.nodes
    }


def _platforms_of(node: NodeInfo, site: Site) -> list[str]:
    """The platforms of a node in a pool as clients see them: every node has one."""
    known = site.terms.platforms if site.terms else None
    return [p for p in node.platforms if not known or p in known] or [DEFAULT_PLATFORM]


def _config(platform: Platform) -> ConfigFields:
    return ConfigFields(
        host_network=platform.host_network_allowed,
        privileged=platform.privileged_allowed,
        default_mounts=list(platform.default_mounts),
        allowed_mounts=list(platform.allowed_mounts),
    )


def _resource(
    cluster: str, node: NodeInfo, where: Mapping[str, Mapping[str, Platform]]
) -> ResourceAnswer:
    allocatable = _amounts(node.cpu, node.gpu, node.memory, node.storage)
    used = _amounts(node.used_cpu, node.used_gpu, node.used_memory, node.used_storage)
    free = _amounts(
        node.cpu - node.used_cpu,
        node.gpu - node.used_gpu,
        node.memory - node.used_memory,
        node.storage - node.used_storage,
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
        taints=[_taint(each) for each in node.taints],
        usage_fields=used,
        non_workflow_usage_fields=_amounts(0, 0, 0, 0),
        allocatable_fields=allocatable,
        platform_allocatable_fields=by_place(allocatable),
        platform_available_fields=by_place(free),
        platform_workflow_allocatable_fields=by_place(allocatable),
        config_fields={
            pool: {name: _config(platform).model_dump() for name, platform in platforms.items()}
            for pool, platforms in where.items()
        },
        backend=cluster,
        label_fields=dict(node.labels),
        pool_platform_labels={pool: list(platforms) for pool, platforms in where.items()},
        conditions=["Ready" if node.ready else "NotReady"],
    )


def _taint(text: str) -> dict[str, str]:
    """`key=value:effect` in Kubernetes' fields."""
    name, _, effect = text.rpartition(":")
    key, _, value = name.partition("=")
    return {"key": key, "effect": effect, **({"value": value} if value else {})}


def _amounts(cpu: int, gpu: int, memory: int, storage: int) -> dict[str, str]:
    """As Kubernetes writes them, which is what the reference's client converts."""
    return {
        "cpu": str(cpu),
        "gpu": str(gpu),
        "memory": f"{memory >> 10}Ki",
        "storage": f"{storage >> 10}Ki",
    }
