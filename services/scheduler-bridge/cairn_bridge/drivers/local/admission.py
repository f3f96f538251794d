"""Who may start now: gangs wait in line for slots, and get all that they ask for or nothing.

First come, first served within a priority. While the gang at the head waits for more than is
free, smaller ones behind it may use what it cannot, but only for `PATIENCE` seconds: then the line
stands until the head has its slots, so that big gangs do not starve.

Pure: no clock, no I/O.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass, field

PATIENCE = 10.0
_LOOK_AT = 1000  # gangs behind a head that does not fit yet
_RANKS = {"HIGH": 0, "NORMAL": 1, "LOW": 2}


@dataclass(frozen=True, slots=True)
class Slots:
    """Room on the machine: cores, bytes of memory, GPUs."""

    cpus: int = 0
    memory: int = 0
    gpus: int = 0

    def __add__(self, other: Slots) -> Slots:
        return Slots(self.cpus + other.cpus, self.memory + other.memory, self.gpus + other.gpus)

    def __sub__(self, other: Slots) -> Slots:
        return Slots(self.cpus - other.cpus, self.memory - other.memory, self.gpus - other.gpus)

    def within(self, other: Slots) -> bool:
        """Whether `other` has room for this."""
        return self.cpus <= other.cpus and self.memory <= other.memory and self.gpus <= other.gpus


@dataclass(order=True, slots=True)
class _Waiting:
    rank: int
    number: int
    gang: int = field(compare=False)
    need: Slots = field(compare=False)


class Admission:
    """The line, and what is taken."""

    def __init__(self, capacity: Slots) -> None:
        self.capacity = capacity
        self.taken = Slots()
        self._line: list[_Waiting] = []
        self._places: dict[int, _Waiting] = {}
        self._count = 0
        self._head: tuple[int, float] | None = None  # who stands first, and since when

    def refusal(self, need: Slots, names: list[str]) -> str | None:
        """Why these tasks can never run together here, and what to do; None when they can."""
        has = self.capacity
        who = f"task {names[0]} asks" if len(names) == 1 else f"the group's {len(names)} tasks ask"
        if need.gpus > has.gpus:
            return (
                f"{who} for {need.gpus} GPUs and the local cluster has {has.gpus or 'none'}: ask "
                "for `gpu: 0`, or tell the bridge how many GPUs this machine has"
            )
        if need.cpus > has.cpus:
            return (
                f"{who} for {need.cpus} CPU slots and the local cluster has {has.cpus}: ask for "
                "less `cpu`, make the group smaller, or give the bridge more slots"
            )
        if need.memory > has.memory:
            return (
                f"{who} for {need.memory >> 20} MiB of memory and the local cluster has "
                f"{has.memory >> 20} MiB: ask for less `memory`"
            )
        return None

    def join(self, gang: int, need: Slots, priority: str) -> None:
        """Puts a gang at the end of its priority's line."""
        self._count += 1
        waiting = _Waiting(_RANKS[priority], self._count, gang, need)
        self._places[gang] = waiting
        insort(self._line, waiting)

    def shrink(self, gang: int, need: Slots) -> None:
        """A waiting gang has lost members; one that needs nothing any more leaves."""
        waiting = self._places.get(gang)
        if waiting is None:
            return
        waiting.need = need
        if need == Slots():
            del self._places[gang]
            del self._line[bisect_left(self._line, waiting)]

    def take(self, need: Slots) -> None:
        """Counts what runs already: found again after a restart."""
        self.taken += need

    def release(self, need: Slots) -> None:
        """Gives back what one member held."""
        self.taken -= need

    def admit(self, now: float) -> list[int]:
        """The gangs that start now; what they need is taken. `now` in seconds of any clock."""
        admitted: list[int] = []
        staying: list[_Waiting] = []
        seen = 0
        for waiting in self._line:
            seen += 1
            if waiting.need.within(self.capacity - self.taken):
                self.taken += waiting.need
                admitted.append(waiting.gang)
                del self._places[waiting.gang]
                continue
            staying.append(waiting)
            full = self.taken.cpus >= self.capacity.cpus
            if full or len(staying) >= _LOOK_AT or self._patience_is_over(staying[0].gang, now):
                break
        if admitted:
            self._line[:seen] = staying
        return admitted

    def _patience_is_over(self, head: int, now: float) -> bool:
        if self._head is None or self._head[0] != head:
            self._head = head, now
        return now - self._head[1] >= PATIENCE
