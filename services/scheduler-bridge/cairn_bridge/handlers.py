"""What the bridge does when the engine says something: place, stop, settle."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

import structlog
from faststream.nats import NatsRouter

from cairn_bridge.acks import Acks
from cairn_bridge.cluster import (
    AttemptKey,
    ClusterDriver,
    ClusterError,
    Fact,
    NotNowError,
    Outcome,
    Phase,
    PlacementError,
    keys_of,
)
from cairn_bridge.pending import Pending, without
from cairn_bridge.reporter import BusReporter
from cairn_common.events import (
    AttemptRef,
    Event,
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

_TASKS_AT_ONCE = 2000
"""How many tasks are being placed before the next order to place is read."""
_STOPS_AT_ONCE = 4
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
    """Carries out the engine's orders, side by side.

    A large placement takes seconds, and nobody else waits for it. So many tasks are being placed
    at once and no more; the other placements are `Pending`, and who is stopped meanwhile is left
    out of them. Stops that come together are handed to the driver together. Settling is done
    beside, since nobody waits for it: what a crash leaves unsettled is reported, and settled,
    again.
    """

    def __init__(
        self, driver: ClusterDriver, reporter: BusReporter, dead_letters: DeadLetters
    ) -> None:
        self._driver = driver
        self._reporter = reporter
        self._dead_letters = dead_letters
        self._acks = Acks()
        self._arrived: list[Message] = []
        self._wake = asyncio.Event()
        self._pending = Pending()
        self._tasks_at_work = 0
        self._stops = _Stops()
        self._stops_at_work = 0
        self._to_settle: dict[AttemptKey, None] = {}
        self._settle_wake = asyncio.Event()

    def deliver(self, message: Message) -> None:
        """Take a message in; `run` works it off."""
        self._acks.take(message)
        self._arrived.append(message)
        self._wake.set()

    async def run(self) -> None:
        """Work until canceled. Raises ClusterError when the cluster cannot be driven."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._settle())
            while True:
                await self._wake.wait()
                self._wake.clear()
                arrived, self._arrived = self._arrived, []
                await self._acks.done([each for each in arrived if await self._is_over(each)])
                while self._pending and self._tasks_at_work < _TASKS_AT_ONCE:
                    await self._begin(group)
                if self._stops.messages and self._stops_at_work < _STOPS_AT_ONCE:
                    stops, self._stops = self._stops, _Stops()
                    self._stops_at_work += 1
                    group.create_task(self._stop_all(stops))

    async def _is_over(self, message: Message) -> bool:
        """Puts an order where it waits; whether it may be acknowledged already."""
        if message.subject.startswith(f"{TaskReady.type}."):
            self._pending.push(message)
            return False
        event = await self._read(message)
        if isinstance(event, TaskStop):
            # After a restart, a stop may be the first that is heard of a workflow.
            self._reporter.trace(event.workflow, message.headers.get("traceparent"))
            keys = _keys(event.workflow, event.attempts)
            self._pending.stop(event.workflow, keys)
            self._stops.add(message, event, keys)
            return False
        if isinstance(event, TaskSettled):
            self._to_settle.update(dict.fromkeys(_keys(event.workflow, event.attempts)))
            self._settle_wake.set()
        return True

    async def _read(self, message: Message) -> Event | None:
        try:
            return decode(message.subject, message.headers, message.data)
        except InvalidEventError as error:
            await self._dead_letters.send(message, str(error))
            return None

    # --- placing ---

    async def _begin(self, group: asyncio.TaskGroup) -> None:
        message, stopped = self._pending.pop()
        ready = await self._read(message)
        placements: list[GroupPlacement] = []
        if isinstance(ready, TaskReady):
            self._reporter.trace(ready.workflow, ready.traceparent)
            found = (without(placement, stopped) for placement in ready.placements)
            placements = [placement for placement in found if placement is not None]
        if not isinstance(ready, TaskReady) or not placements:
            await self._acks.done([message])
            return
        tasks = sum(len(placement.tasks) for placement in placements)
        self._tasks_at_work += tasks
        group.create_task(self._place_all(message, ready, placements, tasks))

    async def _place_all(
        self, message: Message, ready: TaskReady, placements: Sequence[GroupPlacement], tasks: int
    ) -> None:
        spans = MessageSpans.if_wanted()
        if spans is not None:
            spans.take(message, ready)
        async with asyncio.TaskGroup() as group:
            for placement in placements:
                group.create_task(self._place(placement, ready, spans))
        if spans is not None:
            spans.record()
        await self._acks.done([message])
        self._tasks_at_work -= tasks
        self._wake.set()

    async def _place(
        self, placement: GroupPlacement, ready: TaskReady, spans: MessageSpans | None
    ) -> None:
        try:
            await self._driver.place(placement, ready.traceparent)
            return
        except PlacementError as error:
            log.warning("placement refused", workflow=ready.workflow, reason=str(error))
            outcome = Outcome(FinishReason.UNSCHEDULABLE, message=str(error))
        except NotNowError as error:
            # Neither accepted nor ended: the engine offers it again, ever more rarely.
            log.warning("no room for a placement", workflow=ready.workflow, reason=str(error))
            await self._reporter.held(keys_of(placement), f"waiting: {error}"[:2000])
            return
        except ClusterError:
            raise
        except Exception as error:
            log.exception("placement failed", workflow=ready.workflow)
            words = f"the cluster could not take the task: {type(error).__name__}: {error}"
            outcome = Outcome(FinishReason.BACKEND_ERROR, message=words[:2000])
        if spans is not None:
            spans.fail(ready, outcome.message or outcome.reason.value)
        await self._refuse(placement, outcome)

    async def _refuse(self, placement: GroupPlacement, outcome: Outcome) -> None:
        now = datetime.now(UTC)
        await asyncio.gather(
            *(
                self._reporter.fact(Fact(Phase.FINISHED, (key,), now, outcome=outcome))
                for key in keys_of(placement)
            )
        )

    # --- stopping ---

    async def _stop_all(self, stops: _Stops) -> None:
        spans = MessageSpans.if_wanted()
        if spans is not None:
            for message, event in stops.messages:
                spans.take(message, event)
        async with asyncio.TaskGroup() as group:
            for (cause, grace), keys in stops.keys.items():
                group.create_task(self._stop(keys, cause, grace))
        if spans is not None:
            spans.record()
        await self._acks.done(message for message, _ in stops.messages)
        self._stops_at_work -= 1
        self._wake.set()

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

    # --- settling ---

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


class _Stops:
    """Stops that have come together: their messages, and whom to stop by cause and grace."""

    def __init__(self) -> None:
        self.messages: list[tuple[Message, TaskStop]] = []
        self.keys: dict[tuple[str, float], list[AttemptKey]] = {}

    def add(self, message: Message, event: TaskStop, keys: Sequence[AttemptKey]) -> None:
        self.messages.append((message, event))
        self.keys.setdefault((event.cause, event.grace_seconds), []).extend(keys)


def _keys(workflow: str, attempts: Sequence[AttemptRef]) -> list[AttemptKey]:
    return [AttemptKey(workflow, ref.index, ref.attempt, ref.name) for ref in attempts]
