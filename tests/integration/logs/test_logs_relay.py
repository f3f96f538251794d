"""The log relay with a real nats-server: nothing is lost, whatever is killed or deleted."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from nats.aio.msg import Msg
from nats.errors import NoRespondersError
from nats.js.errors import NotFoundError

from cairn_common.events import (
    Envelope,
    LogLine,
    TaskArchived,
    TaskLog,
    WorkflowFinished,
    decode,
    encode,
    partition_of,
)
from cairn_common.events.subjects import LOGS
from cairn_common.messaging import Bus, Publisher, connect_bus, ensure_streams
from cairn_common.requests import (
    LOG_READ_SUBJECT,
    LOG_RESEND_SUBJECT,
    LogReadReply,
    LogReadRequest,
    LogResendRequest,
)
from cairn_logs import handlers
from cairn_logs.handlers import DURABLE
from cairn_logs.service import LogRelayService
from cairn_logs.settings import LogRelaySettings
from servers import Servers

SECONDS = 30.0


class Sender:
    """Sends as a bridge and the engine do, asks as the API does, hears what the relay says."""

    def __init__(self, bus: Bus, publisher: Publisher) -> None:
        self._bus = bus
        self._publisher = publisher
        self.jetstream = bus.jetstream
        self.workflow = f"flow-{uuid.uuid4().hex[:8]}"
        self.archived: list[TaskArchived] = []
        self.asked: list[LogResendRequest] = []
        self.on_archived: Callable[[], None] = lambda: None
        self._changed = asyncio.Condition()

    async def listen(self) -> None:
        partition = partition_of(self.workflow)
        subject = f"task.archived.{partition}.{self.workflow}"
        await self._bus.client.subscribe(subject, cb=self._archived)
        await self._bus.client.subscribe(LOG_RESEND_SUBJECT, cb=self._asked)

    async def _archived(self, message: Msg) -> None:
        event = decode(message.subject, message.headers or {}, message.data)
        assert isinstance(event, TaskArchived)
        self.on_archived()
        async with self._changed:
            self.archived.append(event)
            self._changed.notify_all()

    async def _asked(self, message: Msg) -> None:
        request = LogResendRequest.model_validate_json(message.data)
        async with self._changed:
            if request.workflow == self.workflow:
                self.asked.append(request)
            self._changed.notify_all()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(SECONDS), self._changed:
            await self._changed.wait_for(condition)

    async def send(self, numbers: Sequence[int], *, final: bool = False) -> None:
        now = datetime.now(UTC)
        event = TaskLog(
            workflow=self.workflow,
            task="t",
            index=0,
            attempt=0,
            lines=[LogLine(seq=seq, at=now, text=f"line {seq}") for seq in numbers],
            final=final,
        )
        await self._publisher.publish([encode(event, source="/test")])

    async def finish(self) -> None:
        now = datetime.now(UTC)
        event = WorkflowFinished(
            workflow=self.workflow,
            status="COMPLETED",
            submitted_at=now,
            at=now,
            tasks_completed=1,
            tasks_failed=0,
        )
        await self._publisher.publish([encode(event, source="/test")])

    async def publish(self, envelope: Envelope) -> None:
        await self._publisher.publish([envelope])

    async def read(self, wait_seconds: float = 0.0, **wishes: Any) -> LogReadReply:
        request = LogReadRequest(workflow=self.workflow, wait_seconds=wait_seconds, **wishes)
        async with asyncio.timeout(SECONDS):
            while True:
                try:
                    reply = await self._bus.client.request(
                        LOG_READ_SUBJECT,
                        request.model_dump_json().encode(),
                        timeout=SECONDS,
                        headers={"content-type": "application/json"},
                    )
                except NoRespondersError:  # the relay is being started again
                    continue
                return LogReadReply.model_validate_json(reply.data)

    async def follow(self) -> list[str]:
        """The whole log, by long-poll."""
        texts: list[str] = []
        page = await self.read(20.0)
        async with asyncio.timeout(SECONDS):
            while True:
                texts += [record.text for record in page.records]
                if page.complete:
                    return texts
                page = await self.read(20.0, cursor=page.cursor)


def lines(count: int) -> list[str]:
    return [f"line {number}" for number in range(count)]


@pytest.fixture
async def sender(servers: Servers) -> AsyncIterator[Sender]:
    bus = await connect_bus(servers.nats_url, "test")
    await ensure_streams(bus.jetstream)
    publisher = Publisher(bus)
    await publisher.start()
    made = Sender(bus, publisher)
    await made.listen()
    yield made
    await publisher.close()
    await bus.broker.stop()


@contextlib.asynccontextmanager
async def relay(servers: Servers, home: Path) -> AsyncIterator[None]:
    """A relay in this process."""
    service = LogRelayService(LogRelaySettings(nats_url=servers.nats_url, home=home))
    work = asyncio.create_task(service.run())
    ready = asyncio.create_task(service.ready.wait())
    await asyncio.wait([work, ready], timeout=SECONDS, return_when=asyncio.FIRST_COMPLETED)
    assert ready.done()
    try:
        yield
        assert not work.done()
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


@contextlib.asynccontextmanager
async def relay_process(servers: Servers, home: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """A relay as a process of its own, killed at the end."""
    environment = os.environ | servers.settings | {"CAIRN_HOME": str(home)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cairn_logs", env=environment, stdout=asyncio.subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_lines_survive_a_relay_that_is_killed(
    servers: Servers, sender: Sender, tmp_path: Path
) -> None:
    for first in (0, 300):
        async with relay_process(servers, tmp_path) as process:
            for start in range(first, first + 300, 10):
                await sender.send(range(start, start + 10))
                if start == first + 150:
                    await sender.read()  # it is at work
                    process.kill()
    async with relay_process(servers, tmp_path):
        await sender.send([599], final=True)
        await sender.finish()
        assert await sender.follow() == lines(600)
        await sender.until(lambda: bool(sender.archived))


async def test_a_gap_is_asked_for_and_closed(
    servers: Servers, sender: Sender, tmp_path: Path
) -> None:
    async with relay(servers, tmp_path):
        await sender.send([0, 1])
        await sender.send([4], final=True)  # 2 and 3 were lost
        await sender.until(lambda: bool(sender.asked))
        (asked,) = sender.asked
        assert (asked.task, asked.index, asked.attempt, asked.from_seq) == ("t", 0, 0, 2)
        assert sender.archived == []
        await sender.send([2, 3, 4], final=True)
        await sender.until(lambda: bool(sender.archived))
        await sender.finish()
        assert await sender.follow() == lines(5)


async def test_following_ends_with_the_workflow(
    servers: Servers, sender: Sender, tmp_path: Path
) -> None:
    async with relay(servers, tmp_path):
        following = asyncio.create_task(sender.follow())
        for seq in range(5):
            await sender.send([seq], final=seq == 4)
        await sender.until(lambda: bool(sender.archived))
        assert not following.done()
        await sender.finish()
        assert await following == lines(5)


async def test_an_attempt_is_archived_once_it_is_on_the_disk(
    servers: Servers, sender: Sender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    genuine = handlers.flush_to_disk

    def flush(descriptors: Any) -> None:
        synced = list(descriptors)
        genuine(synced)
        order.extend("flushed" for _ in synced)

    monkeypatch.setattr(handlers, "flush_to_disk", flush)
    sender.on_archived = lambda: order.append("archived")
    async with relay(servers, tmp_path):
        await sender.send([0])
        await sender.send([1], final=True)
        await sender.until(lambda: bool(sender.archived))
    # Another test's messages may come again and be flushed, too.
    assert order.index("flushed") < order.index("archived")


async def test_the_stream_is_deleted_in_the_middle(
    servers: Servers, sender: Sender, tmp_path: Path
) -> None:
    async with relay(servers, tmp_path):
        await sender.send([0, 1, 2])
        assert len((await sender.read(20.0)).records) == 3
        await sender.jetstream.delete_stream(LOGS.name)
        await sender.send([5], final=True)  # sent until there is a stream; 3 and 4 were in the old
        await sender.until(lambda: bool(sender.asked))
        assert sender.asked[0].from_seq == 3
        await sender.send([3, 4, 5], final=True)
        await sender.until(lambda: bool(sender.archived))
        await sender.finish()
        assert await sender.follow() == lines(6)
        # Late lines are there for whoever reads afterwards.
        await sender.send([6], final=True)
        await sender.until(lambda: len(sender.archived) >= 2)
        assert await sender.follow() == lines(7)


async def test_a_relay_that_starts_knows_how_far_it_is(
    servers: Servers, sender: Sender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handlers, "_LOOK_AGAIN_SECONDS", 1000.0)  # nothing may wait for it
    async with relay(servers, tmp_path):
        await sender.send([0], final=True)
        await sender.until(lambda: bool(sender.archived))
        await acknowledged(sender)
    async with relay(servers, tmp_path):
        await sender.finish()
        assert await sender.follow() == lines(1)


async def acknowledged(sender: Sender) -> None:
    """Until the server knows that the relay has dealt with all that there is."""
    while True:
        with contextlib.suppress(NotFoundError):
            info = await sender.jetstream.consumer_info(LOGS.name, DURABLE)
            if not info.num_pending and not info.num_ack_pending:
                return


async def test_an_event_that_nobody_understands_is_put_aside(
    servers: Servers, sender: Sender, tmp_path: Path
) -> None:
    subject = f"{partition_of(sender.workflow)}.{sender.workflow}"
    async with relay(servers, tmp_path):
        for kind, place in (("task.log", f"{subject}.t"), ("workflow.finished", subject)):
            await sender.publish(Envelope(f"{kind}.{place}", {"ce-type": kind}, b"{"))
        await sender.send([0], final=True)
        await sender.finish()
        assert await sender.follow() == lines(1)
    for kind, place in (("task.log", f"{subject}.t"), ("workflow.finished", subject)):
        dead = f"dead.log-relay.{kind}.{place}"
        message = await sender.jetstream.get_last_msg("CAIRN_DEAD_LETTERS", dead)
        assert message.data == b"{"


async def test_a_long_tail_comes_in_pages(servers: Servers, sender: Sender, tmp_path: Path) -> None:
    async with relay(servers, tmp_path):
        for start in range(0, 20_000, 1000):
            await sender.send(range(start, start + 1000), final=start == 19_000)
        await sender.finish()
        assert await sender.follow() == lines(20_000)
        page = await sender.read(last_n_lines=15_000)
        texts = [record.text for record in page.records]
        while not page.complete:
            assert len(page.model_dump_json()) < 1_000_000
            page = await sender.read(cursor=page.cursor)
            texts += [record.text for record in page.records]
        assert texts == lines(20_000)[-15_000:]


def test_followers_leave_nothing_behind() -> None:
    followers = handlers.Followers()
    with followers.expect("w") as one, followers.expect("w") as other:
        followers.wake(["w", "x"])
        assert one.is_set()
        assert other.is_set()
    assert followers._waiting == {}
