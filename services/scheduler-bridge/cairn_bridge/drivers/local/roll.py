"""Which attempts there are: those that were taken and are not forgotten, and their gangs."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from cairn_bridge.cluster import AttemptKey, Identity, identity
from cairn_bridge.drivers.local.admission import Slots
from cairn_bridge.drivers.local.attempt import Attempt
from cairn_bridge.drivers.local.gang import Gang, Terms
from cairn_bridge.drivers.local.record import SETTLED_KEPT, Remembered, Taken
from cairn_common.events import GroupPlacement, TaskPlacement
from cairn_runtime.room import Ending, Room


class Roll:
    """Attempts and gangs in memory; what survives a crash is in `Record`."""

    def __init__(self) -> None:
        self.gangs: dict[int, Gang] = {}
        self._attempts: dict[Identity, Attempt] = {}
        self._settled: dict[Identity, None] = {}

    def __contains__(self, key: AttemptKey) -> bool:
        return identity(key) in self._attempts

    def all(self) -> list[Attempt]:
        """Every attempt."""
        return list(self._attempts.values())

    def get(self, key: AttemptKey) -> Attempt | None:
        """The attempt, if it is known."""
        return self._attempts.get(identity(key))

    def was_settled(self, key: AttemptKey) -> bool:
        """Whether it was known, not long ago."""
        return identity(key) in self._settled

    def note(
        self, key: AttemptKey, room: Room, task: TaskPlacement | None, number: int | None
    ) -> Attempt:
        """Takes an attempt into what is known, and into its gang."""
        attempt = Attempt(key, room, task, number or 0, need(task) if task else Slots())
        self._attempts[identity(key)] = attempt
        if gang := self.gangs.get(attempt.gang):
            gang.join(attempt)
        return attempt

    def restore(
        self,
        placements: Iterable[Taken],
        remembered: Iterable[Remembered],
        settled: Iterable[Identity],
        room: Callable[[AttemptKey], Room],
    ) -> list[Attempt]:
        """What an earlier bridge has recorded; returns the attempts, in the record's order."""
        self.settled(settled)
        tasks: dict[Identity, TaskPlacement] = {}
        for taken in placements:
            placement = GroupPlacement.model_validate_json(taken.body)
            self.gangs[taken.number] = Gang(taken.number, Terms.of(placement), taken.traceparent)
            for task in placement.tasks:
                tasks[placement.workflow, task.index, task.attempt] = task
        attempts: list[Attempt] = []
        for item in remembered:
            known = tasks.get(identity(item.key))
            attempt = self.note(item.key, room(item.key), known, item.placement)
            attempt.reported = item.reported
            if item.ending is not None:
                attempt.ending = Ending.decode(item.ending)
            attempts.append(attempt)
        return attempts

    def settled(self, identities: Iterable[Identity]) -> None:
        """Remembers that these were settled."""
        self._settled.update(dict.fromkeys(identities))
        while len(self._settled) > SETTLED_KEPT:
            del self._settled[next(iter(self._settled))]

    def forget(self, attempts: Iterable[Attempt]) -> None:
        """These have been settled; with its last member a gang goes, too."""
        for attempt in attempts:
            if self._attempts.pop(identity(attempt.key), None) is None:
                continue  # settled twice at once
            if gang := self.gangs.get(attempt.gang):
                gang.members.pop(attempt.key, None)
                if not gang.members:
                    gang.stop_clock()
                    del self.gangs[gang.number]
            self.settled([identity(attempt.key)])


def need(task: TaskPlacement) -> Slots:
    """What a task takes of the machine."""
    asked = task.resources
    return Slots(asked.cpu or 1, asked.memory or 0, asked.gpu)
