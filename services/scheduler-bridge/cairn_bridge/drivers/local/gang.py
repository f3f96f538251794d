"""What the members of one placement have in common: the barrier, the lead, the time to start."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from cairn_bridge.cluster import BARRIER_FAILED, AttemptKey, Phase
from cairn_bridge.drivers.local.admission import Slots
from cairn_bridge.drivers.local.attempt import Attempt
from cairn_common.events import FinishReason, GroupPlacement
from cairn_runtime.room import Stop

LEAD_SECONDS = 0.2
"""How much earlier the lead of a gang starts: by custom it is the server that others connect to."""

START_TIMEOUT = 3005  # exit code of the user guide


class Terms(NamedTuple):
    """What a placement says of all its tasks. `start_timeout` in seconds; `leads` are indices."""

    workflow: str
    priority: str
    barrier: bool
    start_timeout: float | None
    leads: frozenset[int]

    @classmethod
    def of(cls, placement: GroupPlacement) -> Terms:
        """The terms of a placement."""
        return cls(
            placement.workflow,
            placement.priority,
            placement.barrier and len(placement.tasks) > 1,
            placement.start_timeout,
            frozenset(task.index for task in placement.tasks if task.lead),
        )


class Gang:
    """The members of one placement that have not been forgotten."""

    def __init__(self, number: int, terms: Terms, traceparent: str | None) -> None:
        self.number = number
        self.terms = terms
        self.traceparent = traceparent
        self.members: dict[AttemptKey, Attempt] = {}
        self.scheduled = asyncio.Event()  # and reported
        self._open = not terms.barrier
        self._failed = False
        self._awaited: set[AttemptKey] = set()  # members that the barrier may still wait for
        self._timer: asyncio.TimerHandle | None = None

    def join(self, attempt: Attempt) -> None:
        """Takes a member in."""
        self.members[attempt.key] = attempt
        if not self._open:
            self._awaited.add(attempt.key)

    def waiting(self) -> list[Attempt]:
        """Members that have not been launched."""
        return [member for member in self.members.values() if member.phase is Phase.ACCEPTED]

    def need(self) -> Slots:
        """What those members ask for together."""
        return sum((member.need for member in self.waiting()), Slots())

    # --- the barrier ---

    def became_ready(self, attempt: Attempt) -> None:
        """A member could start; the last one lets all of them."""
        attempt.ready = True
        if self._open:
            attempt.release()
            return
        while self._awaited:
            key = next(iter(self._awaited))
            member = self.members.get(key)
            if member is not None and not member.ready and member.phase is not Phase.FINISHED:
                return
            self._awaited.discard(key)
        self._open = True
        later = asyncio.get_running_loop().call_later
        for member in self.members.values():
            if member.phase is Phase.FINISHED:
                continue
            if member.key.index in self.terms.leads or not self.terms.leads:
                member.release()
            else:
                later(LEAD_SECONDS, member.release)

    def started(self) -> None:
        """A member's command runs, so the barrier was opened, if by an earlier bridge."""
        self._open = True

    def ended(self, attempt: Attempt) -> None:
        """A member has ended; before the barrier was opened, that fails those who wait at it."""
        if attempt.ending is not None and attempt.ending.started_at is not None:
            self._open = True
        if self._open or self._failed:
            return
        self._failed = True
        words = f"the barrier cannot open: task {attempt.key.name} ended before it did"
        self._stop_starting(Stop(0.0, words, FinishReason.START_ERROR, BARRIER_FAILED))

    # --- the time to start ---

    def start_clock(self) -> None:
        """Members are launched: from now on they have `start_timeout` to start."""
        self._failed = False
        seconds = self.terms.start_timeout
        if seconds is None:
            return
        words = f"the task had not started {seconds:g} s after it was scheduled"
        stop = Stop(0.0, words, FinishReason.START_TIMEOUT, START_TIMEOUT)
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(seconds, self._stop_starting, stop)

    def stop_clock(self) -> None:
        """Nobody is hurried any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _stop_starting(self, stop: Stop) -> None:
        for member in self.members.values():
            if member.phase is Phase.SCHEDULED and member.ending is None:
                member.order_stop(stop)
