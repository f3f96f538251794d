"""A lane: some partitions, worked through one batch at a time.

A batch is whatever has arrived since the last one, so the busier the lane, the larger its
batches and the less a single event costs (group commit). While a batch commits, another lane
computes; what a batch has to say is published while the next one is decided, in order.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import structlog

from cairn_common.events import Envelope, InvalidEventError, partition_of
from cairn_common.events.subjects import FACTS, engine_inbox
from cairn_common.messaging import Bus, DeadLetters, Inbox, Message, Publisher
from cairn_common.persistence import TRANSIENT
from cairn_common.telemetry import MessageSpans
from cairn_engine.core import Due
from cairn_engine.handlers.batch import Batch, BatchHandler, Result
from cairn_engine.handlers.decode import Arrivals
from cairn_engine.store import FencedError, Store

log = structlog.get_logger(__name__)

_PASSING: tuple[type[Exception], ...] = (FencedError, *TRANSIENT)
_FAR = timedelta(hours=1)
_SWEEP_SECONDS = 5.0
_RETRY_SECONDS = 0.5
_DUE_AT_ONCE = 200
_PUBLISHING_AT_ONCE = 8


class Lane:
    """Works through the partitions that it is given.

    Args:
        bus: the connection.
        store: where state is.
        handler: decides batches.
        publisher: sends what was decided.
        dead_letters: takes what cannot be decided.
        batch_size: the most messages in one transaction.
        ack_seconds: after how long a dead owner's messages come again to the next.
    """

    def __init__(
        self,
        bus: Bus,
        store: Store,
        handler: BatchHandler,
        publisher: Publisher,
        dead_letters: DeadLetters,
        batch_size: int,
        ack_seconds: float,
    ) -> None:
        self._bus = bus
        self._store = store
        self._handler = handler
        self._publisher = publisher
        self._dead_letters = dead_letters
        self._batch_size = batch_size
        self._ack_seconds = ack_seconds
        self._epochs: dict[int, int] = {}
        self._inboxes: dict[int, Inbox] = {}
        self._arrived: deque[Message] = deque()
        self._wake = asyncio.Event()
        self._next_due = datetime.now(UTC)
        self._next_sweep = datetime.now(UTC)
        self._follow_ups = True
        self._sent: list[int] = []
        self._unsent: set[int] = set()
        self._publishing: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(_PUBLISHING_AT_ONCE)
        self._spans: MessageSpans | None = None  # of the batch in hand, if anybody wants them
        self.handled = 0
        self.batches = 0

    async def own(self, epochs: dict[int, int]) -> None:
        """Work on exactly these partitions from now on."""
        for partition in self._inboxes.keys() - epochs.keys():
            await self._inboxes.pop(partition).close()
        gained = epochs.keys() - self._epochs.keys()
        self._epochs = dict(epochs)
        for partition in sorted(epochs.keys() - self._inboxes.keys()):
            inbox = Inbox(
                self._bus,
                FACTS,
                f"engine-{partition}",
                engine_inbox(partition),
                self._deliver,
                window=self._batch_size,
                ack_seconds=self._ack_seconds,
            )
            await inbox.start()
            self._inboxes[partition] = inbox
        if gained:  # what its last owner left undone
            self._next_due = self._next_sweep = datetime.now(UTC)
            self._follow_ups = True
            self._wake.set()

    def _deliver(self, message: Message) -> None:
        self._arrived.append(message)
        self._wake.set()

    async def run(self) -> None:
        """Work until canceled."""
        try:
            while True:
                await self._wait()
                await self._step()
        finally:
            for inbox in self._inboxes.values():
                await inbox.close()
            if self._publishing:
                await asyncio.wait(self._publishing, timeout=5)
            if self._sent:
                with contextlib.suppress(*TRANSIENT):
                    await self._store.forget_outbox(self._sent)

    async def _wait(self) -> None:
        if self._arrived or self._follow_ups:
            await asyncio.sleep(0)
            return
        pause = (min(self._next_due, self._next_sweep) - datetime.now(UTC)).total_seconds()
        if pause > 0:
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                # Not wait_for: on Python 3.11 it can swallow a cancellation.
                async with asyncio.timeout(pause):
                    await self._wake.wait()

    async def _step(self) -> None:
        """Decide one batch; nothing of it is lost if that fails."""
        if not self._epochs:
            self._follow_ups = False
            self._next_due = self._next_sweep = datetime.now(UTC) + _FAR
            return
        messages = [
            self._arrived.popleft() for _ in range(min(self._batch_size, len(self._arrived)))
        ]
        # Messages of a partition that was given away belong to its new owner.
        mine = [message for message in messages if message.inbox in self._inboxes.values()]
        try:
            await self._decide(mine)
        except FencedError as error:
            log.warning("partitions lost", reason=str(error))
            self._epochs = {}
            await self.own({})
        except TRANSIENT as error:
            log.warning("batch put back", messages=len(mine), error=repr(error))
            self._arrived.extendleft(reversed(mine))
            await asyncio.sleep(_RETRY_SECONDS)

    async def _decide(self, messages: Sequence[Message]) -> None:
        now = datetime.now(UTC)
        arrivals = Arrivals()
        spans = self._spans = MessageSpans.if_wanted()
        for message in messages:
            event = None
            try:
                event = arrivals.take(message)
            except InvalidEventError as error:
                await self._put_aside(message, str(error))
            if spans is not None:
                spans.take(message, event)
        if now >= self._next_due:
            overdue = await self._store.due_groups(list(self._epochs), now, _DUE_AT_ONCE)
            arrivals.inputs += [Due(workflow, group) for workflow, group in overdue]
            if len(overdue) < _DUE_AT_ONCE:
                self._next_due = (
                    await self._store.next_due(list(self._epochs)) or now + _FAR
                    if not overdue
                    else now + timedelta(milliseconds=50)
                )
        if now >= self._next_sweep:
            await self._sweep(now)
        batch = Batch(arrivals.submissions, arrivals.inputs, self._follow_ups)
        if batch.submissions or batch.inputs or batch.take_follow_ups:
            await self._handle(batch, messages)
        await self._acknowledge(messages)
        if spans is not None:
            spans.record()
        self.handled += len(messages)
        self.batches += 1

    async def _handle(self, batch: Batch, messages: Sequence[Message]) -> None:
        forget, self._sent = self._sent, []
        try:
            result = await self._handler.handle(batch, self._epochs, forget)
        except _PASSING:
            self._sent += forget
            raise
        except Exception as error:
            self._sent += forget
            await self._isolate(messages, error)
            return
        if result.outbox is None:
            self._sent += forget
        await self._apply(result)

    async def _apply(self, result: Result) -> None:
        self._follow_ups = result.more_follow_ups
        if self._spans is not None:
            self._spans.traceparents |= result.traceparents
        if result.next_due is not None:
            self._next_due = min(self._next_due, result.next_due)
        if result.outbox is not None:
            await self._publish(result.outbox, result.envelopes)

    async def _isolate(self, messages: Sequence[Message], error: Exception) -> None:
        """A batch that cannot be decided: find the message at fault and put it aside."""
        log.error("batch failed", messages=len(messages), exc_info=error)
        if not messages:  # a clock or a follow-up: it stays in the database, to be looked into
            self._follow_ups = False
            self._next_due = datetime.now(UTC) + timedelta(seconds=_SWEEP_SECONDS)
            return
        for message in messages:
            arrivals = Arrivals()
            try:
                arrivals.take(message)
                batch = Batch(arrivals.submissions, arrivals.inputs)
                await self._apply(await self._handler.handle(batch, self._epochs))
            except _PASSING:
                raise
            except Exception as reason:
                log.error("message failed", subject=message.subject, exc_info=reason)
                await self._put_aside(message, f"{type(reason).__name__}: {reason}")
        self._follow_ups = True

    async def _put_aside(self, message: Message, reason: str) -> None:
        if self._spans is not None:
            self._spans.fail(message, reason)
        await self._dead_letters.send(message, reason)

    async def _acknowledge(self, messages: Sequence[Message]) -> None:
        last: dict[Inbox, tuple[Message, int]] = {}
        for message in messages:
            last[message.inbox] = (message, last.get(message.inbox, (message, 0))[1] + 1)
        for inbox, (message, count) in last.items():
            await inbox.ack(message, count)

    async def _publish(self, outbox: int, envelopes: list[Envelope]) -> None:
        await self._slots.acquire()
        self._unsent.add(outbox)
        task = asyncio.create_task(self._send(outbox, envelopes))
        self._publishing.add(task)
        task.add_done_callback(self._publishing.discard)

    async def _send(self, outbox: int, envelopes: list[Envelope]) -> None:
        try:
            await self._publisher.publish(envelopes)
            self._sent.append(outbox)
        except ValueError as error:
            # Nobody can take it as it is; the row stays for an operator to look at.
            log.error("announcement refused", outbox=outbox, error=str(error))
        finally:
            self._unsent.discard(outbox)
            self._slots.release()

    async def _sweep(self, now: datetime) -> None:
        """Send what was decided and never confirmed as sent; drop what was."""
        self._next_sweep = now + timedelta(seconds=_SWEEP_SECONDS)
        if self._sent:
            sent, self._sent = self._sent, []
            await self._store.forget_outbox(sent)
        for outbox, envelopes in await self._store.left_in_outbox(
            list(self._epochs), _SWEEP_SECONDS
        ):
            if outbox in self._unsent:
                continue
            mine = [e for e in envelopes if partition_of(e.headers["ce-subject"]) in self._epochs]
            log.info("sending again from the outbox", outbox=outbox, messages=len(mine))
            await self._publish(outbox, mine)
