"""What the relay does: takes lines in, says what is archived, gives lines out."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime

import structlog
from faststream.nats import NatsRouter
from nats.errors import Error as NatsError

from cairn_common.events import (
    AttemptRef,
    Envelope,
    InvalidEventError,
    TaskArchived,
    TaskLog,
    WorkflowFinished,
    decode,
    encode,
)
from cairn_common.events.subjects import LOGS
from cairn_common.messaging import Bus, DeadLetters, Message, Publisher
from cairn_common.requests import (
    LOG_READ_SUBJECT,
    LOG_RESEND_SUBJECT,
    LogReadReply,
    LogReadRequest,
    LogResendRequest,
)
from cairn_logs.archive import Archive, Page, attempts_of, flush_to_disk

log = structlog.get_logger(__name__)

SOURCE = "/log-relay"
DURABLE = "log-relay"
_BATCH = 512
_LOOK_AGAIN_SECONDS = 2.0
_MAX_WAIT_SECONDS = 30.0
_ASK_AGAIN_SECONDS = 5.0
_LOOK_THROUGH_SECONDS = 2.0
_RETRY_SECONDS = 0.3


class Followers:
    """Readers that wait for something new of a workflow."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Event]] = {}

    def wake(self, workflows: Iterable[str]) -> None:
        """Something new has come."""
        for workflow in workflows:
            for event in self._waiting.get(workflow, ()):
                event.set()

    @contextlib.contextmanager
    def expect(self, workflow: str) -> Iterator[asyncio.Event]:
        """An event that is set when something new comes; ask for it before looking."""
        event = asyncio.Event()
        waiting = self._waiting.setdefault(workflow, set())
        waiting.add(event)
        try:
            yield event
        finally:
            waiting.discard(event)
            if not waiting:
                self._waiting.pop(workflow, None)


class IngestHandler:
    """Appends lines to the archive and announces logs that are whole."""

    def __init__(
        self,
        bus: Bus,
        archive: Archive,
        publisher: Publisher,
        dead_letters: DeadLetters,
        followers: Followers,
    ) -> None:
        self._bus = bus
        self._archive = archive
        self._publisher = publisher
        self._dead_letters = dead_letters
        self._followers = followers
        self._arrived: deque[tuple[Message, int]] = deque()
        self._wake = asyncio.Event()
        self._stream = 0  # which one, if it was deleted and made anew
        self._asked: dict[tuple[str, int, int], float] = {}
        self._moved = asyncio.Condition()
        self.position = 0
        """The last message of the stream that is in the archive."""

    def deliver(self, message: Message) -> None:
        """Take a message in; `run` works it off."""
        self._arrived.append((message, self._stream))
        self._wake.set()

    async def locate(self) -> None:
        """Find out up to where an earlier relay has come."""
        info = await self._bus.jetstream.consumer_info(LOGS.name, DURABLE)
        if info.ack_floor is not None:
            self.position = info.ack_floor.stream_seq

    def restart(self) -> None:
        """The stream was made anew: its messages are numbered from the beginning."""
        self._stream += 1
        self.position = 0

    async def run(self) -> None:
        """Work until canceled."""
        while True:
            self._wake.clear()
            if not self._arrived:
                await self._wake.wait()
            arrived = [self._arrived.popleft() for _ in range(min(_BATCH, len(self._arrived)))]
            batch = [message for message, _ in arrived]
            await self._handle(batch)
            await batch[-1].inbox.ack(batch[-1], len(batch))
            async with self._moved:
                if arrived[-1][1] == self._stream:
                    self.position = batch[-1].sequence
                self._moved.notify_all()

    async def reached(self, sequence: int) -> None:
        """Returns once everything up to this message is in the archive, or nothing is left."""
        while True:
            try:
                async with asyncio.timeout(_LOOK_AGAIN_SECONDS), self._moved:
                    await self._moved.wait_for(lambda: self.position >= sequence)
                return
            except TimeoutError:
                # Messages may have gone unread: they expired, or the stream was emptied.
                with contextlib.suppress(NatsError):  # away, or about to be made anew
                    info = await self._bus.jetstream.consumer_info(LOGS.name, DURABLE)
                    if not info.num_pending and not info.num_ack_pending:
                        return

    async def _handle(self, batch: Sequence[Message]) -> None:
        events: list[TaskLog] = []
        for message in batch:
            try:
                event = decode(message.subject, message.headers, message.data)
            except InvalidEventError as error:
                await self._dead_letters.send(message, str(error))
                continue
            if isinstance(event, TaskLog):
                events.append(event)
        whole: list[TaskLog] = []
        for event in events:
            taken = self._archive.append(event)
            if taken.missing is not None:
                await self._ask_for(event, taken.missing)
            elif taken.whole:
                whole.append(event)
        self._followers.wake({event.workflow for event in events})
        await self._announce(whole)

    async def _announce(self, whole: Sequence[TaskLog]) -> None:
        envelopes: list[Envelope] = []
        by_workflow = attempts_of(whole)
        await asyncio.to_thread(flush_to_disk, self._archive.descriptors(by_workflow))
        for workflow, ended in by_workflow.items():
            archived = TaskArchived(
                workflow=workflow,
                attempts=[
                    AttemptRef(index=event.index, name=event.task, attempt=event.attempt)
                    for event in ended
                ],
            )
            envelopes.append(encode(archived, source=SOURCE))
        await self._publisher.publish(envelopes)

    async def _ask_for(self, event: TaskLog, missing: int) -> None:
        """Ask the bridges for lines that were lost on the way, not more than now and then."""
        key = (event.workflow, event.index, event.attempt)
        now = asyncio.get_running_loop().time()
        if now - self._asked.get(key, -_ASK_AGAIN_SECONDS) < _ASK_AGAIN_SECONDS:
            return
        self._asked = {k: at for k, at in self._asked.items() if now - at < _ASK_AGAIN_SECONDS}
        self._asked[key] = now
        log.warning("lines missing", workflow=event.workflow, task=event.task, from_seq=missing)
        request = LogResendRequest(
            workflow=event.workflow,
            task=event.task,
            index=event.index,
            attempt=event.attempt,
            from_seq=missing,
        )
        await self._bus.client.publish(LOG_RESEND_SUBJECT, request.model_dump_json().encode())


class EndHandler:
    """Marks the logs of finished workflows as complete, once their last lines are there."""

    def __init__(
        self,
        bus: Bus,
        archive: Archive,
        ingest: IngestHandler,
        dead_letters: DeadLetters,
        followers: Followers,
    ) -> None:
        self._bus = bus
        self._dead_letters = dead_letters
        self._archive = archive
        self._ingest = ingest
        self._followers = followers
        self._arrived: asyncio.Queue[Message] = asyncio.Queue()

    def deliver(self, message: Message) -> None:
        """Take a message in; `run` works it off."""
        self._arrived.put_nowait(message)

    async def run(self) -> None:
        """Work until canceled."""
        while True:
            batch = [await self._arrived.get()]
            while not self._arrived.empty():
                batch.append(self._arrived.get_nowait())
            # A bridge sends an attempt's lines before its end, so all lines of these workflows
            # are in the stream already.
            await self._all_lines()
            ended: list[str] = []
            for message in batch:
                try:
                    event = decode(message.subject, message.headers, message.data)
                except InvalidEventError as error:
                    await self._dead_letters.send(message, str(error))
                    continue
                if isinstance(event, WorkflowFinished):
                    ended.append(event.workflow)
            for workflow in ended:
                self._archive.end(workflow)
            await asyncio.to_thread(flush_to_disk, self._archive.descriptors(ended))
            self._followers.wake(ended)
            await batch[-1].inbox.ack(batch[-1], len(batch))

    async def _all_lines(self) -> None:
        """Returns once all that is in the stream now is in the archive."""
        while True:
            try:
                info = await self._bus.jetstream.stream_info(LOGS.name)
            except NatsError as error:  # deleted, or NATS is away: the inbox makes it anew
                log.warning("stream not seen yet", stream=LOGS.name, error=str(error))
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            if info.state.messages:
                await self._ingest.reached(info.state.last_seq)
            return


def reading_router(archive: Archive, followers: Followers) -> NatsRouter:
    """The requests that the relay answers."""
    router = NatsRouter()

    @router.subscriber(LOG_READ_SUBJECT, max_workers=256)
    async def read(request: LogReadRequest) -> LogReadReply:
        with followers.expect(request.workflow) as news:
            page = await _read_on(archive, request)
            if not page.records and not page.complete and request.wait_seconds > 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(request.wait_seconds, _MAX_WAIT_SECONDS)):
                        await news.wait()
                again = request.model_copy(update={"cursor": page.cursor, "last_n_lines": None})
                page = await _read_on(archive, again)
        return LogReadReply(
            records=page.records,
            cursor=page.cursor,
            complete=page.complete,
            read_at=datetime.now(UTC),
        )

    return router


async def _read_on(archive: Archive, request: LogReadRequest) -> Page:
    """A page; not an empty one where the reader would find something further on, if possible."""
    until = asyncio.get_running_loop().time() + _LOOK_THROUGH_SECONDS
    while True:
        page = await asyncio.to_thread(archive.read, request)
        at_end = page.complete or page.cursor == request.cursor
        if page.records or at_end or asyncio.get_running_loop().time() > until:
            return page
        request = request.model_copy(update={"cursor": page.cursor, "last_n_lines": None})
