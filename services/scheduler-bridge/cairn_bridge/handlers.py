"""What the bridge does when the engine says something: place, stop, settle."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime

import structlog
from faststream.nats import NatsRouter

from cairn_bridge.cluster import (
    AttemptKey,
    ClusterDriver,
    ClusterError,
    Fact,
    NotNowError,
    Outcome,
    Phase,
    PlacementError,
)
from cairn_bridge.reporter import BusReporter
from cairn_common.events import (
    AttemptRef,
    FinishReason,
    GroupPlacement,
    InvalidEventError,
    TaskReady,
    TaskSettled,
    TaskStop,
    decode,
)
from cairn_common.messaging import DeadLetters, Message
from cairn_common.requests import LOG_RESEND_SUBJECT, LogResendRequest
from cairn_common.telemetry import MessageSpans

log = structlog.get_logger(__name__)

_BATCH = 1024
_SETTLED_AT_ONCE = 1000
_RESENDS_AT_ONCE = 16


def resend_router(driver: ClusterDriver) -> NatsRouter:
    """The requests that a bridge answers."""
    router = NatsRouter()

    @router.subscriber(LOG_RESEND_SUBJECT, max_workers=_RESENDS_AT_ONCE)
    async def resend(request: LogResendRequest) -> None:
        key = AttemptKey(request.workflow, request.index, request.attempt, request.task)
        if key in driver.known():
            await driver.resend_log(key, request.from_seq)

    return router


class OrderHandler:
    """Carries out the engine's orders.

    Of the orders that arrive together, placements come first, then stops, then settlements, each
    handed to the driver together: twenty thousand stops hold up a placement for a moment only. A
    stop never overtakes the placement of its attempt. Settling is done beside, since nobody waits
    for it: what a crash leaves unsettled is reported, and settled, again.
    """

    def __init__(
        self, driver: ClusterDriver, reporter: BusReporter, dead_letters: DeadLetters
    ) -> None:
        self._driver = driver
        self._reporter = reporter
        self._dead_letters = dead_letters
        self._arrived: deque[Message] = deque()
        self._wake = asyncio.Event()
        self._spans: MessageSpans | None = None  # of the batch in hand, if anybody wants them
        self._to_settle: dict[AttemptKey, None] = {}
        self._settle_wake = asyncio.Event()

    def deliver(self, message: Message) -> None:
        """Take a message in; `run` works it off."""
        self._arrived.append(message)
        self._wake.set()

    async def run(self) -> None:
        """Work until canceled. Raises ClusterError when the cluster cannot be driven."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._settle())
            while True:
                self._wake.clear()
                if not self._arrived:
                    await self._wake.wait()
                batch = [self._arrived.popleft() for _ in range(min(_BATCH, len(self._arrived)))]
                await self._handle(batch)
                await batch[-1].inbox.ack(batch[-1], len(batch))

    async def _handle(self, batch: Sequence[Message]) -> None:
        placements: list[tuple[TaskReady, GroupPlacement]] = []
        stops: dict[tuple[str, float], list[AttemptKey]] = {}
        spans = self._spans = MessageSpans.if_wanted()
        for message in batch:
            try:
                event = decode(message.subject, message.headers, message.data)
            except InvalidEventError as error:
                await self._dead_letters.send(message, str(error))
                continue
            if spans is not None and isinstance(event, TaskReady | TaskStop):
                spans.take(message, event)
            if isinstance(event, TaskReady):
                self._reporter.trace(event.workflow, event.traceparent)
                placements += [(event, placement) for placement in event.placements]
            elif isinstance(event, TaskStop):
                keys = stops.setdefault((event.cause, event.grace_seconds), [])
                keys += _keys(event.workflow, event.attempts)
                # After a restart, a stop may be the first that is heard of a workflow.
                self._reporter.trace(event.workflow, message.headers.get("traceparent"))
            elif isinstance(event, TaskSettled):
                self._to_settle.update(dict.fromkeys(_keys(event.workflow, event.attempts)))
                self._settle_wake.set()
        async with asyncio.TaskGroup() as group:
            for ready, placement in placements:
                group.create_task(self._place(ready, placement))
        async with asyncio.TaskGroup() as group:
            for (cause, grace), keys in stops.items():
                group.create_task(self._stop(keys, cause, grace))
        if spans is not None:
            spans.record()

    async def _stop(self, keys: Sequence[AttemptKey], cause: str, grace: float) -> None:
        try:
            await self._driver.stop(keys, cause, grace)
        except ClusterError:
            raise
        except Exception as error:
            if len(keys) == 1:  # the engine will say it again when the attempt does not end
                log.exception("not stopped", task=keys[0])
                return
            log.warning("not stopped together, trying one by one", error=str(error))
            for key in keys:
                await self._stop([key], cause, grace)

    async def _settle(self) -> None:
        while True:
            await self._settle_wake.wait()
            self._settle_wake.clear()
            waiting, self._to_settle = list(self._to_settle), {}
            for start in range(0, len(waiting), _SETTLED_AT_ONCE):
                try:
                    await self._driver.settle(waiting[start : start + _SETTLED_AT_ONCE])
                except ClusterError:
                    raise
                except Exception:  # settling goes on with the others, and comes back to these
                    log.exception("not settled")
            # What is still there, for whatever reason, is reported and settled again.
            known = self._driver.known()
            self._reporter.settled(key for key in waiting if key not in known)

    async def _place(self, ready: TaskReady, placement: GroupPlacement) -> None:
        try:
            await self._driver.place(placement, ready.traceparent)
        except PlacementError as error:
            log.warning("placement refused", workflow=ready.workflow, reason=str(error))
            await self._refuse(
                ready, placement, Outcome(FinishReason.UNSCHEDULABLE, message=str(error))
            )
        except NotNowError as error:
            # Neither accepted nor ended: the engine offers it again, ever more rarely.
            log.warning("no room for a placement", workflow=ready.workflow, reason=str(error))
            await self._reporter.held(_keys_of(ready, placement), f"waiting: {error}"[:2000])
        except ClusterError:
            raise
        except Exception as error:
            log.exception("placement failed", workflow=ready.workflow)
            words = f"the cluster could not take the task: {type(error).__name__}: {error}"
            await self._refuse(
                ready, placement, Outcome(FinishReason.BACKEND_ERROR, message=words[:2000])
            )

    async def _refuse(self, ready: TaskReady, placement: GroupPlacement, outcome: Outcome) -> None:
        now = datetime.now(UTC)
        if self._spans is not None:
            self._spans.fail(ready, outcome.message or outcome.reason.value)
        await asyncio.gather(
            *(
                self._reporter.fact(Fact(Phase.FINISHED, (key,), now, outcome=outcome))
                for key in _keys_of(ready, placement)
            )
        )


def _keys_of(ready: TaskReady, placement: GroupPlacement) -> list[AttemptKey]:
    return [
        AttemptKey(ready.workflow, task.index, task.attempt, task.name) for task in placement.tasks
    ]


def _keys(workflow: str, attempts: Sequence[AttemptRef]) -> list[AttemptKey]:
    return [AttemptKey(workflow, ref.index, ref.attempt, ref.name) for ref in attempts]
