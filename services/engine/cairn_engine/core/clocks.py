"""The clocks of groups, in memory: which rings next, in logarithmic time and bounded space.

PostgreSQL has every clock in its group's row; who takes a partition reads them once. From then on
each commit says what has changed. A clock that was moved leaves its old entry behind in the heap,
to be skipped when it comes up; the heap is made anew before those could be the majority.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from datetime import datetime

Key = tuple[str, int]


class Clocks:
    """When something is due about which group."""

    def __init__(self) -> None:
        self._due: dict[Key, datetime] = {}
        self._heap: list[tuple[datetime, Key]] = []

    def __len__(self) -> int:
        return len(self._due)

    def set(self, key: Key, due: datetime | None) -> None:
        """The next clock of a group rings then, or there is none."""
        if due is None:
            self._due.pop(key, None)
        elif self._due.get(key) != due:
            self._due[key] = due
            heapq.heappush(self._heap, (due, key))
        if len(self._heap) > 64 + 2 * len(self._due):
            self._heap = [(at, name) for name, at in self._due.items()]
            heapq.heapify(self._heap)

    def ring(self, now: datetime, limit: int) -> list[Key]:
        """At most so many groups with a clock that has rung, longest overdue first.

        Each is told once; if something is still due after it was decided, `set` says so again.
        """
        rung: list[Key] = []
        while len(rung) < limit:
            due = self.next()
            if due is None or due > now:
                break
            _, key = heapq.heappop(self._heap)
            del self._due[key]
            rung.append(key)
        return rung

    def next(self) -> datetime | None:
        """When the next clock rings."""
        while self._heap:
            due, key = self._heap[0]
            if self._due.get(key) == due:
                return due
            heapq.heappop(self._heap)
        return None

    def keep(self, keys: Iterable[Key]) -> None:
        """Forget all groups but these."""
        kept = {key: self._due[key] for key in keys if key in self._due}
        self._due = kept
        self._heap = [(at, key) for key, at in kept.items()]
        heapq.heapify(self._heap)

    def keys(self) -> list[Key]:
        """The groups that have a clock."""
        return list(self._due)
