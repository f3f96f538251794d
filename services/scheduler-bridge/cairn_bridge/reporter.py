"""From a driver's facts to events on the bus.

Facts that come together leave together: what arrives while a message is under way is gathered,
folded (`core.folding`), and facts of one kind about one workflow become one event. A finished
attempt is remembered until the engine settles it, and reported again, ever more rarely, as long
as it does not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from cairn_bridge.cluster import AttemptKey, Fact, Phase
from cairn_bridge.core.folding import fold
from cairn_common.events import (
    AttemptRef,
    Envelope,
    Event,
    LogLine,
    TaskAccepted,
    TaskFinished,
    TaskHeld,
    TaskLog,
    TaskOutcome,
    TaskScheduled,
    TaskStarted,
    encode,
)
from cairn_common.messaging import DeadLetters, Publisher, RefusedError

_MAX_LOG_BYTES = 512 * 1024
_MAX_TOGETHER = 500  # facts in one event, which must fit a message of the bus
_LONGEST_WAIT = 16.0
_MAX_TRACES = 10_000


@dataclass(slots=True)
class _Unsettled:
    fact: Fact
    due: float
    wait: float


class BusReporter:
    """Reports to the bus; implements `cairn_bridge.cluster.Reporter`.

    Args:
        publisher: sends with acknowledgement.
        cluster: the cluster's name.
        unsettled_seconds: after how long an end that is not settled is reported again.
    """

    def __init__(self, publisher: Publisher, cluster: str, unsettled_seconds: float) -> None:
        self._publisher = publisher
        self._dead_letters = DeadLetters(publisher, "bridge")
        self._cluster = cluster
        self._source = f"/bridge/{cluster}"
        self._unsettled_seconds = unsettled_seconds
        self._unsettled: dict[AttemptKey, _Unsettled] = {}
        self._waiting: list[tuple[Fact, asyncio.Future[None]]] = []
        self._wake = asyncio.Event()
        self._traces: dict[str, str] = {}

    def trace(self, workflow: str, traceparent: str | None) -> None:
        """Send what is reported about a workflow within this trace."""
        if traceparent is not None:
            self._traces[workflow] = traceparent
            if len(self._traces) > _MAX_TRACES:
                del self._traces[next(iter(self._traces))]

    async def fact(self, fact: Fact) -> None:
        """Returns once the fact is on the bus."""
        if fact.phase is Phase.FINISHED:
            now = asyncio.get_running_loop().time()
            wait = self._unsettled_seconds
            for key in fact.keys:
                self._unsettled[key] = _Unsettled(fact, now + wait, wait)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((fact, future))
        self._wake.set()
        await future

    async def held(self, keys: Sequence[AttemptKey], message: str) -> None:
        """Say that the cluster cannot take these attempts of one workflow at present."""
        workflow = keys[0].workflow
        envelopes = [
            self._envelope(
                TaskHeld(
                    workflow=workflow,
                    cluster=self._cluster,
                    at=datetime.now(UTC),
                    attempts=[_ref(key) for key in keys[start : start + _MAX_TOGETHER]],
                    message=message,
                ),
                workflow,
            )
            for start in range(0, len(keys), _MAX_TOGETHER)
        ]
        await self._publish(envelopes)

    async def log(self, key: AttemptKey, lines: Sequence[LogLine], *, final: bool) -> None:
        """Returns once the lines are on the bus, in messages of bounded size."""
        envelopes: list[Envelope] = []
        chunk: list[LogLine] = []
        size = 0
        for line in lines:
            if chunk and size + len(line.text) > _MAX_LOG_BYTES:
                envelopes.append(self._log(key, chunk, final=False))
                chunk, size = [], 0
            chunk.append(line)
            size += len(line.text) + 100
        if chunk or final:
            envelopes.append(self._log(key, chunk, final=final))
        await self._publish(envelopes)

    def _log(self, key: AttemptKey, lines: list[LogLine], *, final: bool) -> Envelope:
        event = TaskLog(
            workflow=key.workflow,
            task=key.name,
            index=key.index,
            attempt=key.attempt,
            lines=lines,
            final=final,
        )
        return self._envelope(event, key.workflow)

    def settled(self, keys: Iterable[AttemptKey]) -> None:
        """These ends need not be reported any more."""
        for key in keys:
            self._unsettled.pop(key, None)

    def overdue(self) -> list[AttemptKey]:
        """Ends that should have been settled by now; each is due again later than before."""
        now = asyncio.get_running_loop().time()
        keys = [key for key, entry in self._unsettled.items() if entry.due <= now]
        for key in keys:
            entry = self._unsettled[key]
            entry.wait = min(entry.wait * 2, self._unsettled_seconds * _LONGEST_WAIT)
            entry.due = now + entry.wait
        return keys

    async def repeat(self, keys: Iterable[AttemptKey]) -> None:
        """Report ends again."""
        facts = [self._unsettled[key].fact for key in keys if key in self._unsettled]
        await self._publish(list(self._envelopes(facts)))

    def log_lines(self, key: AttemptKey) -> int:
        """How many lines the log of an unsettled attempt has; 0 if that is not known."""
        entry = self._unsettled.get(key)
        return entry.fact.outcome.log_lines if entry and entry.fact.outcome else 0

    async def run(self) -> None:
        """Send what is reported, until canceled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            waiting, self._waiting = self._waiting, []
            if not waiting:
                continue
            await self._publish(list(self._envelopes(fact for fact, _ in waiting)))
            for _, future in waiting:
                if not future.done():
                    future.set_result(None)

    async def _publish(self, envelopes: Sequence[Envelope]) -> None:
        """One event that NATS cannot take holds up no other: it becomes a dead letter."""
        try:
            await self._publisher.publish(envelopes)
        except RefusedError as error:
            await self._dead_letters.send_refused(error.refused)

    def _envelopes(self, facts: Iterable[Fact]) -> Iterable[Envelope]:
        """Gather neighbours of one workflow and kind into one event."""
        run: list[Fact] = []
        for fact in fold(facts):
            if run and (len(run) >= _MAX_TOGETHER or not _together(run[-1], fact)):
                yield self._fact(run)
                run = []
            run.append(fact)
        if run:
            yield self._fact(run)

    def _fact(self, run: list[Fact]) -> Envelope:
        first = run[0]
        workflow = first.keys[0].workflow
        refs = [_ref(key) for fact in run for key in fact.keys]
        event: Event
        match first.phase:
            case Phase.ACCEPTED:
                event = TaskAccepted(
                    workflow=workflow,
                    cluster=self._cluster,
                    at=first.at,
                    attempts=refs,
                    message=first.message,
                )
            case Phase.SCHEDULED:
                event = TaskScheduled(
                    workflow=workflow,
                    cluster=self._cluster,
                    at=first.at,
                    attempts=refs,
                    node=first.node,
                    message=first.message,
                )
            case Phase.STARTED:
                event = TaskStarted(
                    workflow=workflow,
                    cluster=self._cluster,
                    at=first.at,
                    attempts=refs,
                    node=first.node,
                    accepted_at=first.accepted_at,
                    scheduled_at=first.scheduled_at,
                )
            case Phase.FINISHED:
                event = TaskFinished(
                    workflow=workflow,
                    cluster=self._cluster,
                    at=first.at,
                    outcomes=[_outcome(fact) for fact in run],
                )
        return self._envelope(event, workflow)

    def _envelope(self, event: Event, workflow: str) -> Envelope:
        return encode(event, source=self._source, traceparent=self._traces.get(workflow))


def _together(one: Fact, other: Fact) -> bool:
    return (
        one.phase is other.phase
        and one.keys[0].workflow == other.keys[0].workflow
        and (one.phase is Phase.FINISHED or _same_moment(one, other))
    )


def _same_moment(one: Fact, other: Fact) -> bool:
    mine, others = (
        (fact.node, fact.at, fact.accepted_at, fact.scheduled_at, fact.message)
        for fact in (one, other)
    )
    return mine == others


def _ref(key: AttemptKey) -> AttemptRef:
    return AttemptRef(index=key.index, name=key.name, attempt=key.attempt)


def _outcome(fact: Fact) -> TaskOutcome:
    key, outcome = fact.keys[0], fact.outcome
    if outcome is None:
        raise ValueError(f"a finished fact about {key} has no outcome")
    return TaskOutcome(
        index=key.index,
        name=key.name,
        attempt=key.attempt,
        exit_code=outcome.exit_code,
        reason=outcome.reason,
        message=outcome.message,
        node=fact.node,
        accepted_at=fact.accepted_at,
        scheduled_at=fact.scheduled_at,
        started_at=outcome.started_at,
        at=fact.at,
        log_lines=outcome.log_lines,
        restarts=outcome.restarts,
    )
