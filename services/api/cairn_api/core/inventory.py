"""What the clusters have, from the newest word of each: which pools they serve, and with what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cairn_api.core.pools import PoolStatus
from cairn_common.events import ClusterChanged, ClusterHeartbeat, ClusterResources, NodeInfo
from cairn_common.pools import Pool
from cairn_common.spec.features import Feature

_MISSED_BEATS = 3.5
_RESOURCES_GRACE = timedelta(seconds=60)


@dataclass(slots=True)
class Cluster:
    """The newest word of one cluster, and of the engine about it."""

    resources: ClusterResources | None = None
    alive_until: datetime | None = None
    changed: ClusterChanged | None = None

    def online(self, now: datetime) -> bool:
        """Whether it was heard of lately."""
        return self.alive_until is not None and self.alive_until >= now

    @property
    def draining(self) -> bool:
        """Whether it takes no new work."""
        return self.changed is not None and self.changed.state == "DRAINING"

    @property
    def removed(self) -> bool:
        """Whether somebody removed it after it was last heard of."""
        return (
            self.changed is not None
            and self.changed.state == "REMOVED"
            and (self.resources is None or self.resources.at <= self.changed.at)
        )


@dataclass(frozen=True, slots=True)
class Site:
    """What one cluster offers to one pool: nodes, terms (None: not announced), and features."""

    cluster: str
    nodes: Sequence[NodeInfo]
    terms: Pool | None
    features: frozenset[str]


class Inventory:
    """The clusters, as far as they have been heard.

    Args:
        pins: pools that are served by one cluster only, and by which.
        usual: the pool that there is even before any cluster has said that it serves it.
    """

    def __init__(self, pins: Mapping[str, str], usual: str = "default") -> None:
        self._pins = dict(pins)
        self._usual = usual
        self._clusters: dict[str, Cluster] = {}

    # --- what is heard -----------------------------------------------------------------------

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

    def take_change(self, event: ClusterChanged) -> None:
        """Take note of what the engine says about a cluster."""
        cluster = self._clusters.setdefault(event.cluster, Cluster())
        if cluster.changed is None or cluster.changed.at <= event.at:
            cluster.changed = event

    @staticmethod
    def _alive(cluster: Cluster, until: datetime) -> None:
        if cluster.alive_until is None or cluster.alive_until < until:
            cluster.alive_until = until

    # --- clusters ----------------------------------------------------------------------------

    @property
    def clusters(self) -> dict[str, Cluster]:
        """Those that have said what they have, by name."""
        return {
            name: cluster
            for name, cluster in sorted(self._clusters.items())
            if cluster.resources is not None and not cluster.removed
        }

    # --- pools -------------------------------------------------------------------------------

    @property
    def pools(self) -> list[str]:
        """All pools by name."""
        known = (each.resources for each in self.clusters.values())
        announced = {pool for resources in known if resources for pool in resources.pools}
        return sorted({self._usual, *self._pins, *announced})

    def clusters_of(self, pool: str) -> list[str]:
        """The clusters that serve a pool."""
        if pool in self._pins:
            return [self._pins[pool]]
        return [
            name
            for name, cluster in self.clusters.items()
            if cluster.resources and pool in cluster.resources.pools
        ]

    def sites(self, pool: str) -> list[Site]:
        """What the clusters of a pool offer to it; empty if none has said so yet."""
        known = self.clusters
        found: list[Site] = []
        for name in self.clusters_of(pool):
            resources = known[name].resources if name in known else None
            if resources is not None:
                nodes = [n for n in resources.nodes if not n.pools or pool in n.pools]
                features = (
                    features_of(nodes)
                    if resources.features is None
                    else frozenset(resources.features)
                )
                found.append(Site(name, nodes, resources.definitions.get(pool), features))
        return found

    def status(self, pool: str, now: datetime) -> PoolStatus:
        """Whether any of the pool's clusters takes work and was heard of lately."""
        online = [
            cluster
            for name in self.clusters_of(pool)
            if (cluster := self._clusters.get(name)) and cluster.online(now)
        ]
        if online and all(cluster.draining for cluster in online):
            return PoolStatus.MAINTENANCE
        return PoolStatus.ONLINE if online else PoolStatus.OFFLINE


def features_of(nodes: Sequence[NodeInfo]) -> frozenset[str]:
    """What workflows may use because the nodes have it, where a bridge does not say it itself.

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
