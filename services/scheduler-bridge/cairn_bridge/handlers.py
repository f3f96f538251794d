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
    Fact,
    Outcome,
    Phase,
    PlacementError,
)
from cairn_bridge.reporter import BusReporter
from cairn_common.events import (
    AttemptRef,
    FinishReason,
    InvalidEventError,
    TaskReady,
    TaskSettled,
    TaskStop,
    decode,
)
from cairn_common.messaging import DeadLetters, Message
from cairn_common.requests import LOG_RESEND_SUBJECT, LogResendRequest

log = structlog.get_logger(__name__)

_BATCH = 256


def resend_router(driver: ClusterDriver) -> NatsRouter:
    """The requests that a bridge answers."""
    router = NatsRouter()

    @router.subscriber(LOG_RESEND_SUBJECT)
    async def resend(request: LogResendRequest) -> None:
        key = AttemptKey(request.workflow, request.index, request.attempt, request.task)
        if key in driver.known():
            await driver.resend_log(key, request.from_seq)

    return router


class OrderHandler:
    """Carries out the engine's orders, in the order in which they came.

    Placements that arrive together are handed to the driver together; a stop waits for the
    placements before it.
    """

    def __init__(
        self, driver: ClusterDriver, reporter: BusReporter, dead_letters: DeadLetters
    ) -> None:
        self._driver = driver
        self._reporter = reporter
        self._dead_letters = dead_letters
        self._arrived: deque[Message] = deque()
        self._wake = asyncio.Event()

    def deliver(self, message: Message) -> None:
        """Take a message in; `run` works it off."""
        self._arrived.append(message)
        self._wake.set()

    async def run(self) -> None:
        """Work until canceled."""
        while True:
            self._wake.clear()
            if not self._arrived:
                await self._wake.wait()
            batch = [self._arrived.popleft() for _ in range(min(_BATCH, len(self._arrived)))]
            await self._handle(batch)
            await batch[-1].inbox.ack(batch[-1], len(batch))

    async def _handle(self, batch: Sequence[Message]) -> None:
        placements: list[TaskReady] = []
        for message in batch:
            try:
                event = decode(message.subject, message.headers, message.data)
            except InvalidEventError as error:
                await self._dead_letters.send(message, str(error))
                continue
            if isinstance(event, TaskReady):
                placements.append(event)
                continue
            await self._place_all(placements)
            placements = []
            if isinstance(event, TaskStop):
                await self._driver.stop(
                    _keys(event.workflow, event.attempts), event.cause, event.grace_seconds
                )
            elif isinstance(event, TaskSettled):
                keys = _keys(event.workflow, event.attempts)
                self._reporter.settled(keys)
                await self._driver.settle(keys)
        await self._place_all(placements)

    async def _place_all(self, placements: Sequence[TaskReady]) -> None:
        if placements:
            async with asyncio.TaskGroup() as group:
                for ready in placements:
                    group.create_task(self._place(ready))

    async def _place(self, ready: TaskReady) -> None:
        placement = ready.placement
        self._reporter.trace(ready.workflow, ready.traceparent)
        try:
            await self._driver.place(placement, ready.traceparent)
        except PlacementError as error:
            log.warning("placement refused", workflow=ready.workflow, reason=str(error))
            for task in placement.tasks:
                key = AttemptKey(ready.workflow, task.index, task.attempt, task.name)
                outcome = Outcome(FinishReason.UNSCHEDULABLE, message=str(error))
                await self._reporter.fact(
                    Fact(Phase.FINISHED, (key,), datetime.now(UTC), outcome=outcome)
                )


def _keys(workflow: str, attempts: Sequence[AttemptRef]) -> list[AttemptKey]:
    return [AttemptKey(workflow, ref.index, ref.attempt, ref.name) for ref in attempts]
