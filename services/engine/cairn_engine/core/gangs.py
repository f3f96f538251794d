"""What a gang needs of a cluster, and how much of that a cluster has for it.

Only pools with several clusters ask this: where there is no choice, nothing is weighed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, TypeAlias

from cairn_common.events import NodeInfo
from cairn_common.pools import Pool, keys_wanted, needed, refusals, unknown_credentials
from cairn_common.spec.capacity import Amounts
from cairn_common.spec.features import Feature
from cairn_common.spec.models import ResourceSpec


@dataclass(frozen=True, slots=True)
class Kind:
    """What one of several equal tasks asks for; amounts as in the catalogue's `Resources`."""

    cpu: int | None = None
    gpu: int = 0
    memory: int | None = None
    storage: int | None = None
    platform: str | None = None
    privileged: bool = False
    host_network: bool = False
    mounts: tuple[str, ...] = ()
    topology: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    checkpoints: bool = False
    credentials: tuple[tuple[str, tuple[str, ...]], ...] = ()  # names and the keys wanted

    @property
    def features(self) -> frozenset[Feature]:
        """What a cluster must be able to do for it."""
        wanted = {
            Feature.GPU: self.gpu,
            Feature.PLATFORM: self.platform,
            Feature.PRIVILEGED: self.privileged,
            Feature.HOST_NETWORK: self.host_network,
            Feature.VOLUME_MOUNTS: self.mounts,
            Feature.TOPOLOGY: self.topology,
            Feature.NODES_EXCLUDED: self.excluded,
            Feature.CHECKPOINT: self.checkpoints,
            Feature.CREDENTIALS: self.credentials,
        }
        return frozenset(feature for feature, value in wanted.items() if value)


Kinds: TypeAlias = tuple[tuple[Kind, int], ...]


@dataclass(frozen=True, slots=True)
class Need:
    """A gang's tasks by kind, and how many of its inputs lie in which cluster."""

    kinds: Kinds = ()
    near: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Room:
    """What a cluster has for a gang.

    `fits` says whether empty nodes could hold it; `total` is what it needs, `capacity` and `free`
    are what the nodes that it may use have in all and had free when they were last announced.
    """

    fits: bool
    total: Amounts
    capacity: Amounts
    free: Amounts

    def headroom(self, offered: Amounts) -> float:
        """The share of the capacity that would be left, of what is scarcest; below 0: none.

        Args:
            offered: what was offered to the cluster since it announced what is free.
        """
        shares = [
            (getattr(self.free, name) - getattr(offered, name) - need) / has
            for name in ("cpu", "gpu", "memory")
            if (need := getattr(self.total, name)) and (has := getattr(self.capacity, name))
        ]
        return min(shares, default=0.0)


def need_of(body: Mapping[str, Any], inputs: Sequence[str] = ()) -> Need:
    """The need of a group, from the stored body of its placement.

    Args:
        body: as `make_plan` made it.
        inputs: the cluster of each of its inputs.
    """
    kinds: dict[Kind, int] = {}
    for task in body["tasks"]:
        asked = task["resources"]
        kind = Kind(
            asked["cpu"],
            asked["gpu"],
            asked["memory"],
            asked["storage"],
            asked["platform"],
            task.get("privileged", False),
            task.get("host_network", False),
            tuple(task.get("volume_mounts", ())),
            tuple(each["key"] for each in task.get("topology", ())),
            tuple(task.get("nodes_excluded", ())),
            "checkpoints" in task,
            tuple(
                (name, tuple(keys))
                for name, keys in keys_wanted(task.get("credentials", {})).items()
            ),
        )
        kinds[kind] = kinds.get(kind, 0) + 1
    near = {cluster: inputs.count(cluster) for cluster in sorted(set(inputs))}
    return Need(tuple(kinds.items()), tuple(near.items()))


def room_for(
    kinds: Kinds,
    pool: str,
    terms: Pool | None,
    nodes: Sequence[NodeInfo],
    features: frozenset[str] | None,
) -> Room:
    """What a cluster has for tasks of these kinds.

    Args:
        kinds: the gang.
        pool: the pool's name.
        terms: what the pool allows there; None if the cluster has not said so.
        nodes: the cluster's nodes.
        features: what the cluster can do; None if it has not said so.
    """
    fits = True
    total = Amounts()
    usable: dict[str, NodeInfo] = {}
    for kind, count in kinds:
        need = needed(
            ResourceSpec(
                cpu=kind.cpu,
                gpu=kind.gpu,
                memory=kind.memory,
                storage=kind.storage,
                platform=kind.platform,
            ),
            terms or Pool(),
        )
        total = total.plus(need.times(count))
        eligible = [node for node in nodes if _eligible(node, kind, pool, terms)]
        usable |= {node.name: node for node in eligible}
        fits = (
            fits
            and (features is None or kind.features <= features)
            and (terms is None or not _refused(kind, pool, terms))
            and any(not need.exceeding(_has(node)) for node in eligible)
        )
    capacity = _sum(_has(node) for node in usable.values())
    free = _sum(_free(node) for node in usable.values() if node.ready)
    return Room(fits and not total.exceeding(capacity), total, capacity, free)


def _eligible(node: NodeInfo, kind: Kind, pool: str, terms: Pool | None) -> bool:
    platform = kind.platform or (terms.usual_platform if terms else None)
    return (
        (not node.pools or pool in node.pools)
        and (platform is None or platform in node.platforms)
        and node.name not in kind.excluded
    )


def _refused(kind: Kind, pool: str, terms: Pool) -> bool:
    return bool(
        refusals(
            terms,
            pool,
            "",
            platform=kind.platform,
            privileged=kind.privileged,
            host_network=kind.host_network,
            mounts=kind.mounts,
            topology_keys=kind.topology,
        )
        or unknown_credentials(terms, pool, dict(kind.credentials))
    )


def _has(node: NodeInfo) -> Amounts:
    return Amounts(node.cpu, node.gpu, node.memory, node.storage)


def _free(node: NodeInfo) -> Amounts:
    return Amounts(
        node.cpu - node.used_cpu,
        node.gpu - node.used_gpu,
        node.memory - node.used_memory,
        node.storage - node.used_storage,
    )


def _sum(amounts: Iterable[Amounts]) -> Amounts:
    return reduce(Amounts.plus, amounts, Amounts())
