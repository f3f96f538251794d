"""What the driver knows of its attempts, kept small: there may be ten thousand of them."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

from cairn_bridge.cluster import AttemptKey, Identity, Outcome, Phase, identity
from cairn_bridge.drivers.kubernetes.core.gang import Member
from cairn_bridge.drivers.kubernetes.core.names import placement_size
from cairn_bridge.drivers.kubernetes.core.observe import Sight, Verdict
from cairn_bridge.drivers.kubernetes.core.outcome import Ending
from cairn_bridge.drivers.kubernetes.logs import LogFollower

ORDER = {phase: place for place, phase in enumerate(Phase)}
_REMEMBERED = 20_000


@dataclass(slots=True)
class Attempt:
    """One attempt: the last look at its pod, and what of it has been told."""

    sight: Sight
    gang: Gang
    phase: Phase
    verdict: Verdict | None = None  # as it was ordered; its pod may not show it yet
    told: Phase | None = None
    ending: Ending | None = None
    outcome: Outcome | None = None  # as it was told
    teller: asyncio.Task[None] | None = None
    log: LogFollower | None = None
    patience: asyncio.TimerHandle | None = None
    start_clock: asyncio.TimerHandle | None = None
    quiet: asyncio.TimerHandle | None = None
    told_words: str | None = None  # what keeps it from starting
    pod_gone: bool = False
    let_through: bool = False  # its barrier is being opened

    @property
    def key(self) -> AttemptKey:
        """Whose this is."""
        return self.sight.key

    @property
    def live(self) -> bool:
        """Whether it has not ended."""
        return self.phase is not Phase.FINISHED

    def stop_clocks(self) -> None:
        """No timer is needed any more."""
        for timer in (self.patience, self.start_clock, self.quiet):
            if timer is not None:
                timer.cancel()
        self.patience = self.start_clock = self.quiet = None


@dataclass(slots=True)
class Gate:
    """The barrier of one placement, and who waits at it."""

    open: bool = False
    failed: bool = False
    waiting: dict[Identity, Attempt] = field(default_factory=dict)


@dataclass(slots=True)
class Gang:
    """A group in the cluster. Whoever makes or removes its objects holds the lock."""

    uuid: str
    attempts: dict[Identity, Attempt] = field(default_factory=dict)
    placed: set[str] = field(default_factory=set)  # digests of whole placements
    minima: dict[str | None, int] = field(default_factory=dict)  # of the PodGroup as it is
    pod_group: str | None = None  # its uid
    gates: dict[str, Gate] = field(default_factory=dict)  # of placements that start together
    waits_for: str | None = None
    told_waits_for: str | None = None
    words_from: float = 0.0  # when that may be told again, by the loop's clock
    words: asyncio.TimerHandle | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    adjusting: bool = False
    sweep: asyncio.TimerHandle | None = None

    def whole(self, placement: str) -> bool:
        """Whether all pods of an attempt's placement, `<digest>.<size>`, have been made."""
        return placement_size(placement) == 1 or placement.partition(".")[0] in self.placed

    def members(self) -> list[Member]:
        """Its pods that have not ended."""
        return [
            Member(each.sight.leaf, each.sight.node is not None)
            for each in self.attempts.values()
            if each.live
        ]


class Register:
    """All gangs and attempts, and which attempts are no more."""

    def __init__(self) -> None:
        self.gangs: dict[str, Gang] = {}
        self._by_identity: dict[Identity, Attempt] = {}
        self._by_pod: dict[str, Attempt] = {}
        self._settled: OrderedDict[Identity, None] = OrderedDict()
        self._barred: OrderedDict[Identity, str] = OrderedDict()

    def gang(self, uuid: str) -> Gang:
        """The group with that id, known or new."""
        if uuid not in self.gangs:
            self.gangs[uuid] = Gang(uuid)
        return self.gangs[uuid]

    def get(self, key: AttemptKey) -> Attempt | None:
        """An attempt, if there is a pod of it."""
        return self._by_identity.get(identity(key))

    def of_pod(self, name: str) -> Attempt | None:
        """The attempt of a pod."""
        return self._by_pod.get(name)

    def note(self, sight: Sight) -> Attempt:
        """Takes a look at a pod down; phases only advance."""
        attempt = self._by_identity.get(identity(sight.key))
        if attempt is None:
            gang = self.gang(sight.group)
            attempt = Attempt(sight, gang, sight.phase)
            gang.attempts[identity(sight.key)] = attempt
            self._by_identity[identity(sight.key)] = attempt
            self._by_pod[sight.pod] = attempt
            return attempt
        attempt.sight = sight
        if ORDER[sight.phase] > ORDER[attempt.phase]:
            attempt.phase = sight.phase
        return attempt

    def settle(self, attempt: Attempt) -> None:
        """Forgets an attempt, and remembers for a while that it was."""
        key = identity(attempt.key)
        self.drop(attempt)
        self._settled[key] = None
        if len(self._settled) > _REMEMBERED:
            self._settled.popitem(last=False)

    def drop(self, attempt: Attempt) -> None:
        """Forgets an attempt."""
        attempt.stop_clocks()
        key = identity(attempt.key)
        self._by_identity.pop(key, None)
        self._by_pod.pop(attempt.sight.pod, None)
        attempt.gang.attempts.pop(key, None)

    def was_settled(self, key: AttemptKey) -> bool:
        """Whether this attempt has run and been forgotten."""
        return identity(key) in self._settled

    def bar(self, key: AttemptKey, cause: str) -> None:
        """An attempt without a pod is not to get one: it was stopped before."""
        self._barred[identity(key)] = cause
        if len(self._barred) > _REMEMBERED:
            self._barred.popitem(last=False)

    def barred(self, key: AttemptKey) -> str | None:
        """Why this attempt is not to run."""
        return self._barred.get(identity(key))

    def all(self) -> list[Attempt]:
        """Every attempt."""
        return list(self._by_identity.values())

    def on_node(self, node: str) -> Iterator[Attempt]:
        """Those on a node that have not ended."""
        return (each for each in self.all() if each.live and each.sight.node == node)
