"""Says to the reporter what is known: each fact once, and again when it is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor
from datetime import UTC, datetime

import structlog

from cairn_bridge.cluster import AttemptKey, Fact, Outcome, Phase, Reporter
from cairn_bridge.drivers.local import logs, shims
from cairn_bridge.drivers.local.attempt import Attempt, outcome_of
from cairn_bridge.drivers.local.gang import Gang
from cairn_bridge.drivers.local.record import Record
from cairn_common.events import FinishReason

log = structlog.get_logger(__name__)

_LOGS_AT_ONCE, _ENDS_AT_ONCE = 8, 64


class Teller:
    """Tells facts and logs of attempts."""

    def __init__(self, reporter: Reporter, record: Record, executor: Executor, node: str) -> None:
        self._reporter = reporter
        self._record = record
        self._executor = executor
        self._node = node
        self._logs = asyncio.Semaphore(_LOGS_AT_ONCE)
        self._ends = asyncio.Lock()

    async def fact(self, phase: Phase, keys: Sequence[AttemptKey], at: datetime) -> None:
        """A phase short of the end, reached together."""
        node = None if phase is Phase.ACCEPTED else self._node
        await self._reporter.fact(Fact(phase, tuple(keys), at, node))

    async def started(self, attempt: Attempt, gang: Gang) -> None:
        """The command runs; told after its gang was told to be scheduled."""
        at = attempt.at
        await gang.scheduled.wait()
        await self.fact(Phase.STARTED, [attempt.key], at)

    async def follow_log(self, attempt: Attempt) -> int:
        """The log of a running attempt, to its end; returns its number of lines."""
        return await attempt.bring_log(self._reporter, self._executor)

    async def log(self, attempt: Attempt, from_seq: int = 0) -> int:
        """The whole log of an ended attempt, from a line on; returns its number of lines."""
        async with self._logs:
            return await logs.report_whole(
                attempt.key, attempt.room, from_seq, self._reporter, self._executor
            )

    async def end(self, attempt: Attempt, lines: int) -> None:
        """How an attempt ended, once its log was told."""
        assert attempt.ending is not None
        outcome = outcome_of(attempt.ending, lines)
        at = datetime.fromtimestamp(attempt.ending.ended_at, UTC)
        await self._reporter.fact(Fact(Phase.FINISHED, (attempt.key,), at, self._node, outcome))
        if not attempt.reported:
            attempt.reported = True
            self._record.reported(attempt.key)
        attempt.end(outcome)

    async def ends_of_unstarted(self, attempts: Sequence[Attempt]) -> None:
        """The ends of attempts that never ran, a few at a time: there may be thousands."""
        for start in range(0, len(attempts), _ENDS_AT_ONCE):
            async with self._ends:
                some = attempts[start : start + _ENDS_AT_ONCE]
                await asyncio.gather(*(self._end_of_unstarted(attempt) for attempt in some))

    async def _end_of_unstarted(self, attempt: Attempt) -> None:
        try:
            await self._reporter.log(attempt.key, [], final=True)
            await self.end(attempt, 0)
        except Exception:  # the others' ends must be told all the same
            log.exception("local_cluster.end_not_told", task=attempt.key)
            attempt.told.set()

    async def end_again(self, attempt: Attempt) -> None:
        """Log and end of an attempt whose end was told, or is being told."""
        await attempt.told.wait()
        await self.end(attempt, await self.log(attempt))

    async def settled_before(self, key: AttemptKey) -> None:
        """An order to run what has run and was settled: the engine knows, or will do it anew."""
        outcome = Outcome(FinishReason.NODE_LOST, message="the attempt was settled before")
        now = datetime.now(UTC)
        await self._reporter.fact(Fact(Phase.FINISHED, (key,), now, self._node, outcome))

    async def phases(self, attempts: Sequence[Attempt]) -> None:
        """How far each is, again; an end that is about to be told is not told twice."""
        together: dict[tuple[str, Phase], list[Attempt]] = {}
        for attempt in attempts:
            if attempt.phase is not Phase.FINISHED:
                together.setdefault((attempt.key.workflow, attempt.phase), []).append(attempt)
            elif attempt.reported:
                await attempt.told.wait()
                assert attempt.outcome is not None
                await self.end(attempt, attempt.outcome.log_lines)
        for (_, phase), members in together.items():
            await self.fact(phase, [member.key for member in members], members[0].at)

    async def recall(self, attempt: Attempt) -> None:
        """Finds again, in silence, what an earlier bridge told of an attempt's end."""
        loop = asyncio.get_running_loop()
        if attempt.ending is None:
            attempt.ending = await loop.run_in_executor(
                self._executor, shims.read_ending, attempt.room
            )
        lines = await loop.run_in_executor(self._executor, logs.count, attempt.room)
        attempt.end(outcome_of(attempt.ending, lines))
