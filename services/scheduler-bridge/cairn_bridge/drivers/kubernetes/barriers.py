"""The barrier of a group: its commands start once every task is ready, and none if one cannot be.

A pod tells that it is ready by running its container of the barrier, see `core.helpers`; the answer
is an annotation. Both stand in the cluster, so that a bridge that comes anew, even in the midst
of letting a thousand pods through, sees from any one of them that the barrier is open.

A group's retried tasks are a placement of their own: they do not wait for those that run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import aiohttp
import structlog

from cairn_bridge.cluster import BARRIER_FAILED, identity
from cairn_bridge.drivers.kubernetes.api import ApiError
from cairn_bridge.drivers.kubernetes.attempts import Attempt, Gate
from cairn_bridge.drivers.kubernetes.core.names import placement_size
from cairn_bridge.drivers.kubernetes.core.observe import Barrier
from cairn_bridge.drivers.kubernetes.endings import Endings
from cairn_bridge.drivers.kubernetes.placing import Placer
from cairn_bridge.drivers.kubernetes.telling import Teller
from cairn_common.events import FinishReason

log = structlog.get_logger(__name__)

_PAUSE_SECONDS: Final = 5.0
_TAKEN_AWAY: Final = frozenset(
    {
        FinishReason.BACKEND_ERROR,
        FinishReason.EVICTED,
        FinishReason.NODE_LOST,
        FinishReason.PREEMPTED,
    }
)


class Barriers:
    """Opens barriers, and ends those who wait at one that cannot open."""

    def __init__(self, placer: Placer, teller: Teller, endings: Endings) -> None:
        self._placer = placer
        self._teller = teller
        self._endings = endings

    def mind_all(self, attempts: Sequence[Attempt]) -> None:
        """As `mind`, for all there are: those first that know their barrier to be open."""
        for attempt in sorted(attempts, key=lambda each: each.sight.barrier is not Barrier.OPEN):
            self.mind(attempt)

    def mind(self, attempt: Attempt) -> None:
        """Takes down how an attempt stands to its barrier; what follows from it is begun."""
        standing, placement = attempt.sight.barrier, attempt.sight.placement
        if standing is Barrier.ABSENT:
            return
        gate = attempt.gang.gates.setdefault(placement, Gate())
        if standing is Barrier.OPEN:
            gate.open = True
            gate.waiting.pop(identity(attempt.key), None)
        elif not attempt.live:
            self._cannot_open(gate, attempt)
        elif standing is Barrier.REACHED and not attempt.let_through:
            gate.waiting[identity(attempt.key)] = attempt
            gate.open = gate.open or len(gate.waiting) == placement_size(placement)
        if gate.open:
            for each in gate.waiting.values():
                each.let_through = True
                self._teller.spawn(self._let_through(each))
            gate.waiting.clear()

    async def _let_through(self, attempt: Attempt) -> None:
        """Until it is: nobody else will remember a pod that waits."""
        while attempt.live:
            try:
                await self._placer.open_barrier(attempt.sight.pod)
            except (ApiError, aiohttp.ClientError, TimeoutError, OSError) as error:
                log.warning("kubernetes.barrier", task=attempt.key, error=str(error))
                await asyncio.sleep(_PAUSE_SECONDS)
            else:
                return

    def _cannot_open(self, gate: Gate, ended: Attempt) -> None:
        """Ends the others as the one ended, if it was taken away; else for its failure.

        So what is worth another attempt is tried again with all of them.
        """
        if gate.open or gate.failed:
            return
        gate.failed = True
        words = f"the barrier cannot open: task {ended.key.name} ended before it did"
        outcome = None if ended.ending is None else ended.ending.outcome
        if outcome is not None and outcome.reason in _TAKEN_AWAY:
            reason, exit_code = outcome.reason, None
            words += f" ({outcome.message})" if outcome.message else ""
        else:
            reason, exit_code = FinishReason.START_ERROR, BARRIER_FAILED
        for each in ended.gang.attempts.values():
            if each.live and each.sight.placement == ended.sight.placement:
                self._teller.spawn(self._endings.order(each, reason, words, exit_code=exit_code))
