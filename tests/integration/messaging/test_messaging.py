"""Inbox and publisher against a real nats-server: bursts, and what is taken away under them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest
from nats.aio.msg import Msg

from cairn_common.events import Envelope
from cairn_common.events.subjects import Stream
from cairn_common.messaging import (
    Bus,
    DeadLetterBox,
    DeadLetters,
    Inbox,
    Message,
    Publisher,
    RefusedError,
    connect_bus,
)
from cairn_common.messaging.streams import ensure_stream, ensure_streams
from servers import Servers

STREAM = Stream("TEST", ("test.>",), "for tests")


@pytest.fixture
async def bus(servers: Servers) -> AsyncIterator[Bus]:
    connected = await connect_bus(servers.nats_url, "test")
    await ensure_stream(connected.jetstream, STREAM)
    yield connected
    await connected.jetstream.delete_stream(STREAM.name)
    await connected.broker.stop()


@pytest.fixture
async def publisher(bus: Bus) -> AsyncIterator[Publisher]:
    publisher = Publisher(bus, max_in_flight=64, answer_seconds=1.0)
    await publisher.start()
    yield publisher
    await publisher.close()


class Reader:
    """An inbox whose messages are acknowledged as they come."""

    def __init__(self, bus: Bus, durable: str, window: int = 100) -> None:
        self.got: list[bytes] = []
        self.restored = asyncio.Event()
        self._arrived: asyncio.Queue[Message] = asyncio.Queue()
        self.inbox = Inbox(
            bus,
            STREAM,
            durable,
            "test.>",
            self._arrived.put_nowait,
            window=window,
            ack_seconds=2.0,
            on_restored=self.restored.set,
        )

    async def __aenter__(self) -> Reader:
        await self.inbox.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.inbox.close()

    async def read(self, count: int) -> list[bytes]:
        async with asyncio.timeout(30):
            for _ in range(count):
                message = await self._arrived.get()
                self.got.append(message.data)
                await self.inbox.ack(message, 1)
        return self.got


def envelopes(count: int, start: int = 0) -> list[Envelope]:
    return [
        Envelope("test.x", {"Nats-Msg-Id": f"{i}"}, str(i).encode())
        for i in range(start, start + count)
    ]


async def test_a_burst_larger_than_every_window_arrives_once_and_in_order(
    bus: Bus, publisher: Publisher
) -> None:
    async with Reader(bus, "burst", window=100) as reader:
        sent = envelopes(3000)
        await asyncio.gather(publisher.publish(sent[:1500]), publisher.publish(sent[1500:]))
        await publisher.publish(sent[:10])  # the same ids again: dropped by JetStream
        assert await reader.read(3000) == [e.body for e in sent]


async def test_what_is_not_acknowledged_comes_again_to_the_next_reader(
    bus: Bus, publisher: Publisher
) -> None:
    await publisher.publish(envelopes(20))
    async with Reader(bus, "again") as reader:
        await reader.read(5)
    async with Reader(bus, "again") as reader:
        assert (await reader.read(15))[-1] == b"19"


async def test_what_a_dead_reader_had_in_hand_comes_at_once_and_in_order(
    bus: Bus, publisher: Publisher
) -> None:
    await publisher.publish(envelopes(20))
    dead = Reader(bus, "dead")
    await dead.inbox.start()
    await dead.read(5)  # and the rest is in its hands
    await dead.inbox.close()
    await publisher.publish(envelopes(5, start=20))
    async with Reader(bus, "dead") as reader:
        assert await reader.read(20) == [str(i).encode() for i in range(5, 25)]


async def test_what_went_to_a_reader_that_should_have_ended_is_not_lost(
    bus: Bus, publisher: Publisher
) -> None:
    """A process that was paused asks once more before it learns that its place was taken."""
    stolen: asyncio.Queue[Msg] = asyncio.Queue()
    reply = bus.client.new_inbox()
    await bus.client.subscribe(reply, cb=stolen.put)
    async with Reader(bus, "taken") as reader:
        await publisher.publish(envelopes(3))
        await reader.read(3)
        await bus.client.publish(
            f"$JS.API.CONSUMER.MSG.NEXT.{STREAM.name}.taken", b'{"batch": 5}', reply=reply
        )
        await publisher.publish(envelopes(40, start=3))
        async with asyncio.timeout(20):
            await stolen.get()
            while len(set(reader.got)) < 43:
                await reader.read(1)
        info = await bus.jetstream.consumer_info(STREAM.name, "taken")
        assert sorted(set(map(int, reader.got))) == list(range(43))
        assert info.num_pending == 0


async def test_nothing_is_acknowledged_to_a_later_durable(bus: Bus, publisher: Publisher) -> None:
    """Its numbers may be those of other messages: a stream that was wiped begins with 1 again."""
    await publisher.publish(envelopes(20))
    held: asyncio.Queue[Message] = asyncio.Queue()
    restored = asyncio.Event()
    inbox = Inbox(
        bus, STREAM, "later", "test.>", held.put_nowait, window=50, on_restored=restored.set
    )
    await inbox.start()
    async with asyncio.timeout(20):
        old = [await held.get() for _ in range(20)]
        await bus.jetstream.delete_stream(STREAM.name)
        await restored.wait()
        await publisher.publish([Envelope("test.x", {}, f"new {i}".encode()) for i in range(30)])
        new = [await held.get() for _ in range(30)]
        await inbox.ack(old[-1], len(old))
        await bus.client.flush()
        info = await bus.jetstream.consumer_info(STREAM.name, "later")
        assert info.num_ack_pending == 30
        await inbox.ack(new[-1], len(new))
        await bus.client.flush()
        info = await bus.jetstream.consumer_info(STREAM.name, "later")
        assert info.num_ack_pending == 0
    await inbox.close()


async def test_what_is_worked_on_for_long_does_not_come_again(
    bus: Bus, publisher: Publisher
) -> None:
    held: asyncio.Queue[Message] = asyncio.Queue()
    inbox = Inbox(bus, STREAM, "long", "test.>", held.put_nowait, ack_seconds=0.6)
    await inbox.start()
    await publisher.publish(envelopes(5))
    async with asyncio.timeout(20):
        taken = [await held.get() for _ in range(5)]
        await asyncio.sleep(3)
        assert held.empty()
        await inbox.ack(taken[2], 3)
        await asyncio.sleep(1)
        info = await bus.jetstream.consumer_info(STREAM.name, "long")
        assert (info.num_ack_pending, info.num_redelivered) == (2, 0)
        await inbox.ack(taken[4], 2)
        await publisher.publish(envelopes(1, start=5))
        assert (await held.get()).data == b"5"
    await inbox.close()


async def test_a_durable_that_is_deleted_is_noticed_and_restored(
    bus: Bus, publisher: Publisher
) -> None:
    async with Reader(bus, "gone") as reader:
        await publisher.publish(envelopes(3))
        await reader.read(3)
        await bus.jetstream.delete_consumer(STREAM.name, "gone")
        async with asyncio.timeout(20):
            await reader.restored.wait()
        await publisher.publish(envelopes(3, start=3))
        await reader.read(6)  # all again, since the durable knew how far it was
        assert sorted(set(reader.got)) == [b"0", b"1", b"2", b"3", b"4", b"5"]


async def test_a_stream_that_is_deleted_is_made_anew_by_whoever_needs_it(
    servers: Servers, bus: Bus, publisher: Publisher
) -> None:
    async with Reader(bus, "emptied") as reader:
        await bus.jetstream.delete_stream(STREAM.name)
        async with asyncio.timeout(20):
            await reader.restored.wait()
        await publisher.publish(envelopes(3))
        assert await reader.read(3) == [b"0", b"1", b"2"]


async def test_the_publisher_restores_the_streams_of_the_catalogue(
    bus: Bus, publisher: Publisher
) -> None:
    await ensure_streams(bus.jetstream)
    await bus.jetstream.delete_stream("CAIRN_CLUSTERS")
    async with asyncio.timeout(20):
        await publisher.publish([Envelope("cluster.heartbeat.x", {}, b"{}")])
    assert (await bus.jetstream.stream_info("CAIRN_CLUSTERS")).state.messages == 1


async def test_what_nats_cannot_take_is_refused_and_holds_up_nothing(
    bus: Bus, publisher: Publisher
) -> None:
    ten_megabytes = Envelope("test.x", {}, b"x" * (10 << 20))
    # The body alone would fit, but a server closes the connection over the whole.
    headers = {"padding": "y" * 1000}
    just_too_large = Envelope("test.x", headers, b"x" * (bus.client.max_payload - 500))
    first, second = envelopes(2)
    async with Reader(bus, "refused") as reader:
        with pytest.raises(RefusedError, match="too large") as caught:
            await publisher.publish([ten_megabytes, first, just_too_large, second])
        assert [each for each, _ in caught.value.refused] == [ten_megabytes, just_too_large]
        await publisher.publish(envelopes(1, start=2))
        assert await reader.read(3) == [b"0", b"1", b"2"]
    dead = await bus.client.subscribe("dead.tests.>")
    await DeadLetters(publisher, "tests").send_refused(caught.value.refused)
    letter = await dead.next_msg(timeout=5)
    assert letter.headers["cairn-size"] == str(10 << 20)
    assert "too large" in letter.headers["cairn-reason"]


async def test_dead_letters_keep_the_reason_and_a_bounded_body(
    bus: Bus, publisher: Publisher
) -> None:
    await ensure_streams(bus.jetstream)
    dead = await bus.client.subscribe("dead.tests.>")
    message = Message("test.bad", {"ce-id": "7"}, b"y" * 100_000, "$JS.ACK.a.b.1.5.6.7.8", None)  # type: ignore[arg-type]
    await DeadLetters(publisher, "tests").send(message, "no\nsense")
    letter = await dead.next_msg(timeout=5)
    assert letter.subject == "dead.tests.test.bad"
    assert letter.headers["cairn-reason"] == "no sense"
    assert letter.headers["ce-id"] == "7"
    assert letter.headers["cairn-size"] == "100000"
    assert len(letter.data) == 64 * 1024


async def cancelled_as_the_answer_comes(bus: Bus, work: Coroutine[Any, Any, Any]) -> bool:
    """Whether work that asks something heeds a cancellation in the moment of the answer.

    On Python 3.11 the client's `wait_for` then swallows it (CPython 86296).
    """
    task = asyncio.create_task(work)
    while not (waiting := list(bus.client._resp_map.values())):
        await asyncio.sleep(0)
    waiting[0].set_result(Msg(bus.client, data=b"{}"))
    task.cancel()
    await asyncio.wait([task], timeout=10)
    return task.cancelled()


async def test_a_request_that_is_answered_as_it_is_cancelled_is_cancelled(bus: Bus) -> None:
    async def say_nothing(_: Msg) -> None:
        pass

    await bus.client.subscribe("silence", cb=say_nothing)
    assert await cancelled_as_the_answer_comes(bus, bus.client.request("silence", timeout=5))
    assert await cancelled_as_the_answer_comes(bus, bus.jetstream.account_info())


async def test_who_is_cancelled_may_ask_while_cleaning_up(bus: Bus) -> None:
    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await bus.jetstream.account_info()
            cleaned.set()

    cleaned = asyncio.Event()
    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task], timeout=10)
    assert task.cancelled()
    assert cleaned.is_set()


async def test_dead_letters_are_read_page_by_page_replayed_and_dropped(
    bus: Bus, publisher: Publisher
) -> None:
    await ensure_streams(bus.jetstream)
    await bus.jetstream.purge_stream("CAIRN_DEAD_LETTERS")
    box = DeadLetterBox(bus.jetstream, publisher)
    assert await box.newest(10) == ([], False)
    sent = [
        (Envelope("test.bad", {"ce-id": f"{i}", "Nats-Msg-Id": f"m{i}"}, b"%d" % i), f"reason {i}")
        for i in range(12)
    ]
    await DeadLetters(publisher, "tests").send_refused(sent)
    first = (await box.newest(100))[0][0].number
    for number in range(first + 3, first + 11):
        assert await box.drop(number)
    assert not await box.drop(first + 3), "gone already"
    newest, more = await box.newest(2)
    assert ([letter.body for letter in newest], more) == ([b"2", b"11"], True)
    older, more = await box.newest(2, before=newest[0].number)
    assert ([letter.body for letter in older], more) == ([b"0", b"1"], False)
    letter = await box.get(older[0].number)
    assert letter is not None
    assert (letter.service, letter.subject, letter.reason) == ("tests", "test.bad", "reason 0")
    async with Reader(bus, "replayed") as reader:
        await box.replay(letter)
        assert await reader.read(1) == [b"0"]
    assert await box.get(letter.number) is None
    await DeadLetters(publisher, "tests").send_refused(
        [(Envelope("test.bad", {"Nats-Msg-Id": "long"}, b"z" * 100_000), "too long")]
    )
    with pytest.raises(ValueError, match="only 65536 of its 100000 bytes"):
        await box.replay((await box.newest(1))[0][0])
