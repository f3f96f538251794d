"""The clusters as they are known at one moment, and which of them takes a gang.

A value in the context of every decision: what clusters announce, whether they are heard of, and
whether somebody drains or has removed them. It changes between decisions, and by decisions only
in what was offered to a cluster since it last said what is free.

For a pool with one cluster the answer is a look into a dictionary.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from cairn_common.events import NodeInfo
from cairn_common.pools import Pool
from cairn_common.spec.capacity import Amounts
from cairn_engine.core.gangs import Kinds, Need, Room, room_for

_MOST_ROOMS = 1000  # remembered for a cluster


class State(StrEnum):
    """What somebody wants of a cluster."""

    ACTIVE = "ACTIVE"
    DRAINING = "DRAINING"
    REMOVED = "REMOVED"


@dataclass(slots=True)
class Cluster:
    """One cluster: its pools with their terms where it has said them, nodes and features."""

    name: str
    state: State = State.ACTIVE
    silent: bool = False
    lost: bool = False
    pools: Mapping[str, Pool | None] = field(default_factory=dict)
    nodes: Sequence[NodeInfo] = ()
    features: frozenset[str] | None = None
    offered: Amounts = field(default_factory=Amounts)
    rooms: dict[tuple[str, Kinds], Room] = field(default_factory=dict)

    @property
    def takes_work(self) -> bool:
        """Whether something new may be placed there."""
        return self.state is State.ACTIVE and not self.silent

    def room(self, pool: str, kinds: Kinds) -> Room:
        """What it has for a gang; remembered until it announces itself again."""
        key = (pool, kinds)
        room = self.rooms.get(key)
        if room is None:
            if len(self.rooms) >= _MOST_ROOMS:
                self.rooms.clear()
            room = room_for(kinds, pool, self.pools.get(pool), self.nodes, self.features)
            self.rooms[key] = room
        return room


class Clusters:
    """All clusters that have registered.

    `version` grows whenever another cluster takes work or is lost than before: then what lies in
    clusters must be looked at.

    Args:
        pins: pools that one cluster only serves, and which.
    """

    def __init__(self, pins: Mapping[str, str] | None = None) -> None:
        self.version = 0
        self._pins = dict(pins or {})
        self._all: dict[str, Cluster] = {}
        self._serving: dict[str, tuple[Cluster, ...]] = {}  # by pool, by name
        self._takers: dict[str, tuple[Cluster, ...]] = {}  # those of them that take work
        self._only: dict[str, str] = {}  # the one that does
        self.choosing = False
        """Whether any pool has more than one cluster that takes work."""
        self.gone: frozenset[str] = frozenset()
        """The clusters whose running tasks are lost."""

    # --- what is known -----------------------------------------------------------------------

    def register(self, states: Mapping[str, tuple[State, Sequence[str]]]) -> None:
        """The clusters that there are: state and pools of each by name."""
        for name in self._all.keys() - states.keys():
            del self._all[name]
        for name, (state, pools) in states.items():
            cluster = self._all.setdefault(name, Cluster(name))
            cluster.state = state
            cluster.pools = {pool: cluster.pools.get(pool) for pool in pools}
        self._refresh()

    def announce(
        self,
        name: str,
        nodes: Sequence[NodeInfo],
        terms: Mapping[str, Pool],
        features: Collection[str] | None,
    ) -> None:
        """What a registered cluster has now; what was offered before shows in that."""
        cluster = self._all.get(name)
        if cluster is not None:
            cluster.pools = {pool: terms.get(pool) for pool in cluster.pools}
            cluster.nodes = nodes
            cluster.features = None if features is None else frozenset(features)
            cluster.offered = Amounts()
            cluster.rooms.clear()

    def hear(self, silent: Collection[str], lost: Collection[str]) -> None:
        """Which clusters have said nothing for a while, and for so long that they count as lost."""
        for cluster in self._all.values():
            cluster.silent = cluster.name in silent
            cluster.lost = cluster.name in lost
        self._refresh()

    def _refresh(self) -> None:
        before = _names(self._takers), self.gone
        every = [cluster for _, cluster in sorted(self._all.items())]
        present = [each for each in every if each.state is not State.REMOVED]
        self._serving = {
            pool: tuple(each for each in present if pool in each.pools)
            for pool in {pool for each in present for pool in each.pools} - self._pins.keys()
        }
        for pool, name in self._pins.items():
            self._serving[pool] = tuple(each for each in present if each.name == name)
        self._takers = {
            pool: tuple(each for each in serving if each.takes_work)
            for pool, serving in self._serving.items()
        }
        self._only = {
            pool: takers[0].name for pool, takers in self._takers.items() if len(takers) == 1
        }
        self.choosing = any(len(takers) > 1 for takers in self._takers.values())
        self.gone = frozenset(each.name for each in every if self.is_lost(each.name))
        if before != (_names(self._takers), self.gone):
            self.version += 1

    # --- what follows ------------------------------------------------------------------------

    @property
    def names(self) -> frozenset[str]:
        """Those that are registered and not removed."""
        return frozenset(
            each.name for each in self._all.values() if each.state is not State.REMOVED
        )

    @property
    def takers(self) -> frozenset[str]:
        """Those that take work."""
        return frozenset(each.name for each in self._all.values() if each.takes_work)

    @property
    def served(self) -> list[str]:
        """The pools of which some cluster takes work."""
        return sorted(pool for pool, takers in self._takers.items() if takers)

    def is_lost(self, name: str | None) -> bool:
        """Whether what runs in a cluster counts as lost: it is silent for too long, or removed."""
        cluster = self._all.get(name or "")
        return cluster is not None and (cluster.lost or cluster.state is State.REMOVED)

    def only(self, pool: str) -> str | None:
        """The cluster that takes the pool's work, if there is exactly one."""
        return self._only.get(pool)

    def spans(self, pool: str) -> bool:
        """Whether there is a choice."""
        return self.choosing and len(self._takers.get(pool, ())) > 1

    def may_stay(self, pool: str, name: str | None) -> bool:
        """Whether what is queued in a cluster stays there, be it for want of another one.

        Args:
            pool: the pool's name.
            name: the cluster; None for what no cluster was found for.
        """
        takers = self._takers.get(pool, ())
        if name is None:
            return False
        if any(each.name == name for each in takers):
            return True
        cluster = self._all.get(name)
        return not takers and (cluster is None or cluster.state is not State.REMOVED)

    def choose(self, pool: str, home: str, need: Need) -> str | None:
        """The cluster for a gang; None if none takes it for the time being.

        Where no cluster has registered for the pool, its home is believed to come. Where all are
        silent one of them gets the gang, for it may be silent for a moment only.

        Args:
            pool: the pool's name.
            home: where the gang would go by configuration or was before.
            need: what it needs.
        """
        serving = self._serving.get(pool, ())
        takers = self._takers.get(pool, ())
        if not serving:
            return None if home in self._all and home not in self.names else home
        if not takers:
            active = [each.name for each in serving if each.state is State.ACTIVE]
            return home if home in active else next(iter(active), None)
        if len(takers) == 1:
            return takers[0].name
        best = _best(takers, pool, need)
        best.offered = best.offered.plus(best.room(pool, need.kinds).total)
        return best.name


def _best(takers: Sequence[Cluster], pool: str, need: Need) -> Cluster:
    """Where the gang fits at all; there, where it fits now; there, where its inputs are; there,
    where most is left. If it fits nowhere now, where the least is wanting."""
    near = dict(need.near)

    def rank(cluster: Cluster) -> tuple[bool, bool, int, float]:
        room = cluster.room(pool, need.kinds)
        headroom = room.headroom(cluster.offered)
        now = headroom >= 0
        return room.fits, now, near.get(cluster.name, 0) if now else 0, headroom

    return max(takers, key=rank)


def _names(takers: Mapping[str, Iterable[Cluster]]) -> dict[str, list[str]]:
    return {pool: [each.name for each in some] for pool, some in takers.items() if some}
