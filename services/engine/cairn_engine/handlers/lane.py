"""A lane: some partitions, worked through one batch at a time.

A batch is whatever has arrived since the last one, so the busier the lane, the larger its
batches and the less a single event costs (group commit). While a batch commits, another lane
computes; what a batch has to say is published while the next one is decided, in order.

What a cluster may forget is not urgent, and is repeated by the cluster if it is lost: it is kept
for a moment, so that a chain of tasks is settled by one message and not by one for each.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import structlog

from cairn_common.events import Envelope, InvalidEventError, encode, partition_of
from cairn_common.events.subjects import FACTS, engine_inbox
from cairn_common.messaging import Bus, DeadLetters, Inbox, Message, Publisher, RefusedError
from cairn_common.persistence import TRANSIENT
from cairn_common.process import give_back_memory
from cairn_common.telemetry import MessageSpans
from cairn_engine.core import Due
from cairn_engine.core.clocks import Clocks
from cairn_engine.handlers.announce import SOURCE, Announcer, Attempts, gather, unplaceable
from cairn_engine.handlers.batch import BatchHandler, Result
from cairn_engine.handlers.decode import Arrivals
from cairn_engine.handlers.stranded import Stranded
from cairn_engine.store import FencedError, Store

log = structlog.get_logger(__name__)

_PASSING: tuple[type[Exception], ...] = (FencedError, *TRANSIENT)
_FAR = timedelta(hours=1)
_SWEEP_SECONDS = 5.0
_RETRY_SECONDS = 0.5
_DUE_AT_ONCE = 200
_SUBMISSIONS_AT_ONCE = 32
_LARGE = 5_000  # tasks, whose specification takes kilobytes each while it is read
_SETTLE_SECONDS = 0.25
_PUBLISHING_AT_ONCE = 8


class Lane:
    """Works through the partitions that it is given.

    Args:
        bus: the connection.
        store: where state is.
        handler: decides batches.
        announcer: makes events.
        publisher: sends what was decided.
        dead_letters: takes what cannot be decided.
        batch_size: the most messages in one transaction.
        ack_seconds: after how long a dead owner's messages come again to the next.
        stranded: finds what lies in clusters where it should not.
    """

    def __init__(
        self,
        bus: Bus,
        store: Store,
        handler: BatchHandler,
        announcer: Announcer,
        publisher: Publisher,
        dead_letters: DeadLetters,
        batch_size: int,
        ack_seconds: float,
        stranded: Stranded,
    ) -> None:
        self._bus = bus
        self._store = store
        self._handler = handler
        self._announcer = announcer
        self._publisher = publisher
        self._dead_letters = dead_letters
        self._batch_size = batch_size
        self._ack_seconds = ack_seconds
        self._stranded = stranded
        self._epochs: dict[int, int] = {}  # of the batch in hand
        self._granted: dict[int, int] = {}  # of the next one
        self._inboxes: dict[int, Inbox] = {}
        self._owning = asyncio.Lock()
        self._arrived: deque[Message] = deque()
        self._wake = asyncio.Event()
        self._clocks = Clocks()
        self._clocks_read = False  # whether all clocks of the partitions are in `_clocks`
        self._next_sweep = datetime.now(UTC)
        self._follow_ups = True
        self._settled: dict[tuple[str, str], Attempts] = {}
        self._next_settle: datetime | None = None
        self._sent: list[int] = []
        self._unsent: set[int] = set()
        self._publishing: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(_PUBLISHING_AT_ONCE)
        self._spans: MessageSpans | None = None  # of the batch in hand, if anybody wants them
        self.handled = 0
        self.batches = 0

    async def own(self, epochs: dict[int, int]) -> None:
        """Work on exactly these partitions, beginning with the next batch."""
        # The lane itself gives up what it was fenced off from, while leases are being renewed.
        async with self._owning:
            await self._own(epochs)

    async def _own(self, epochs: dict[int, int]) -> None:
        for partition in self._inboxes.keys() - epochs.keys():
            await self._inboxes.pop(partition).close()
        self._granted = dict(epochs)
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
        if self._granted != self._epochs:
            self._wake.set()

    def _take_over(self) -> None:
        """Begin a batch as the owner that this lane is now.

        What it remembers from before may have been written by another owner since, and what that
        one left undone is to be done.
        """
        if self._granted == self._epochs:
            return
        if self._granted.items() - self._epochs.items():
            self._next_sweep = datetime.now(UTC)
            self._follow_ups = True
        self._epochs = self._granted
        self._handler.forget()
        self._clocks_read = False

    def wake(self) -> None:
        """Something has changed that no message tells: look at it."""
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
        busy = self._arrived or self._follow_ups or self._granted != self._epochs
        if busy or (self._stranded.waiting and self._epochs):
            await asyncio.sleep(0)
            return
        moments = [self._next_sweep, self._clocks.next(), self._next_settle]
        next_one = min(moment for moment in moments if moment is not None)
        pause = (next_one - datetime.now(UTC)).total_seconds()
        if pause > 0:
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                # Not wait_for: on Python 3.11 it can swallow a cancellation.
                async with asyncio.timeout(pause):
                    await self._wake.wait()

    async def _step(self) -> None:
        """Decide one batch; nothing of it is lost if that fails."""
        self._take_over()
        if not self._epochs:
            self._follow_ups = False
            self._next_sweep = datetime.now(UTC) + _FAR
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
            await self.own({})
        except TRANSIENT as error:
            log.warning("batch put back", messages=len(mine), error=repr(error))
            self._arrived.extendleft(reversed(mine))
            self._clocks_read = False
            await asyncio.sleep(_RETRY_SECONDS)

    async def _decide(self, messages: Sequence[Message]) -> None:
        now = datetime.now(UTC)
        arrivals = Arrivals()
        spans = self._spans = MessageSpans.if_wanted()
        bad: dict[Message, str] = {}
        for message in messages:
            event = None
            try:
                event = arrivals.take(message)
            except InvalidEventError as error:
                bad[message] = str(error)
            if spans is not None:
                spans.take(message, event)
        await self._put_aside(bad)
        await self._read_clocks()
        arrivals.inputs += [Due(*key) for key in self._clocks.ring(now, _DUE_AT_ONCE)]
        if self._stranded.waiting:
            arrivals.inputs += await self._stranded.next(list(self._epochs))
        if now >= self._next_sweep:
            await self._sweep(now)
        if arrivals.submissions or arrivals.inputs or self._follow_ups:
            await self._handle(arrivals, messages)
        await self._acknowledge(messages)
        if self._next_settle is not None and now >= self._next_settle:
            await self._say_settled(now)
        if spans is not None:
            spans.record()
        self.handled += len(messages)
        self.batches += 1

    async def _handle(self, arrivals: Arrivals, messages: Sequence[Message]) -> None:
        try:
            await self._decide_and_say(arrivals, take_follow_ups=self._follow_ups)
        except _PASSING:
            raise
        except Exception as error:
            await self._isolate(messages, error)

    async def _decide_and_say(self, arrivals: Arrivals, *, take_follow_ups: bool = False) -> None:
        """New workflows first: what else came may be about them already."""
        submitted = list(arrivals.submissions)
        while submitted:
            some, submitted = submitted[:_SUBMISSIONS_AT_ONCE], submitted[_SUBMISSIONS_AT_ONCE:]
            async with self._sent_in_hand() as forget:
                result = await self._handler.submit(some, self._epochs, forget)
            submitted[:0] = result.left
            if result.planned >= _LARGE:
                give_back_memory()
            await self._apply(result, arrivals)
        if arrivals.inputs or take_follow_ups:
            async with self._sent_in_hand() as forget:
                result = await self._handler.handle(
                    arrivals.inputs, self._epochs, take_follow_ups=take_follow_ups, forget=forget
                )
            self._follow_ups = False
            await self._apply(result, arrivals)

    @contextlib.asynccontextmanager
    async def _sent_in_hand(self) -> AsyncIterator[list[int]]:
        """Messages to be dropped from the outbox with the next commit; kept if that fails."""
        forget, self._sent = self._sent, []
        try:
            yield forget
        except BaseException:
            self._sent += forget
            raise

    async def _apply(self, result: Result, arrivals: Arrivals) -> None:
        self._follow_ups |= result.more_follow_ups
        if self._spans is not None:
            self._spans.traceparents |= result.traceparents
        for key, due in result.clocks.items():
            self._clocks.set(key, due)
        if result.settled:
            gather(self._settled, result.settled)
            if self._next_settle is None:
                self._next_settle = datetime.now(UTC) + timedelta(seconds=_SETTLE_SECONDS)
        if result.outbox is not None:
            await self._publish(result.outbox, result.envelopes)
        if result.anomalies or result.unsubmitted:
            # Stored, but not acknowledged: whatever crashes now, they come again.
            await self._put_aside(arrivals.about_nothing(result.anomalies, result.unsubmitted))

    async def _read_clocks(self) -> None:
        """After a change of ownership, or a failure that may have swallowed some."""
        if not self._clocks_read:
            clocks = Clocks()
            for workflow, group, due in await self._store.clocks(list(self._epochs)):
                clocks.set((workflow, group), due)
            self._clocks = clocks
            self._clocks_read = True
            self._stranded.again()

    async def _say_settled(self, now: datetime) -> None:
        settled, self._settled = self._settled, {}
        self._next_settle = None
        await self._publish(None, self._announcer.settlements(settled, now))

    async def _isolate(self, messages: Sequence[Message], error: Exception) -> None:
        """A batch that cannot be decided: find the message at fault and put it aside."""
        log.error("batch failed", messages=len(messages), exc_info=error)
        self._clocks_read = False
        if not messages:  # a clock or a follow-up: it stays in the database, to be looked into
            self._follow_ups = False
            await asyncio.sleep(_RETRY_SECONDS)
            return
        for message in messages:
            arrivals = Arrivals()
            try:
                arrivals.take(message)
                await self._decide_and_say(arrivals)
            except _PASSING:
                raise
            except Exception as reason:
                log.error("message failed", subject=message.subject, exc_info=reason)
                await self._put_aside({message: f"{type(reason).__name__}: {reason}"})
        self._follow_ups = True

    async def _put_aside(self, bad: Mapping[Message, str]) -> None:
        """Send what cannot be handled, each with its reason, where an operator finds it."""
        if self._spans is not None:
            for message, reason in bad.items():
                self._spans.fail(message, reason)
        if bad:
            await self._dead_letters.send_all(list(bad.items()))

    async def _acknowledge(self, messages: Sequence[Message]) -> None:
        last: dict[Inbox, tuple[Message, int]] = {}
        for message in messages:
            last[message.inbox] = (message, last.get(message.inbox, (message, 0))[1] + 1)
        for inbox, (message, count) in last.items():
            await inbox.ack(message, count)

    async def _publish(self, outbox: int | None, envelopes: list[Envelope]) -> None:
        await self._slots.acquire()
        if outbox is not None:
            self._unsent.add(outbox)
        task = asyncio.create_task(self._send(outbox, envelopes))
        self._publishing.add(task)
        task.add_done_callback(self._publishing.discard)

    async def _send(self, outbox: int | None, envelopes: list[Envelope]) -> None:
        try:
            try:
                await self._publisher.publish(envelopes)
            except RefusedError as error:
                await self._refused(error)
            if outbox is not None:
                self._sent.append(outbox)
        finally:
            if outbox is not None:
                self._unsent.discard(outbox)
            self._slots.release()

    async def _refused(self, error: RefusedError) -> None:
        """What the bus cannot carry becomes a dead letter, and placements among it fail.

        Their tasks would wait for ever to be placed; the fact that they cannot be goes the way of
        all facts, through the bus.
        """
        await self._dead_letters.send_refused(error.refused)
        await self._publisher.publish(
            [
                encode(fact, source=SOURCE)
                for envelope, reason in error.refused
                if (fact := unplaceable(envelope, reason)) is not None
            ]
        )

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
