"""What the bus and the database can carry alone, of the same messages and rows.

A task of the null cluster costs four rows that are updated in batches with a durable commit (it
and its group, when they are offered and when they end), and in a chain two messages (ready,
finished). In a fan, up to a hundred tasks share a message.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from datetime import UTC, datetime

from cairn_common.events import AttemptRef, TaskStarted, encode
from cairn_common.events.subjects import Stream
from cairn_common.messaging import Inbox, Message, Publisher, connect_bus
from cairn_common.persistence import connect_database

MESSAGES_PER_TASK = {"chain": 2.0, "fan": 0.04}
ROWS_PER_TASK = 4
BATCH = 512
STREAM = Stream("BENCH", ("bench.>",), "raw limit")


async def measure(settings: dict[str, str], messages: int) -> dict[str, float]:
    """Messages and rows a second, and the tasks a second that they would allow."""
    bus = await _bus(settings["CAIRN_NATS_URL"], messages)
    rows = await _database(settings["CAIRN_DATABASE_URL"], messages)
    # Both must be done for each task, one after the other, on the same two cores.
    return {
        "jetstream_publish_and_consume_per_second": round(bus, 1),
        "postgresql_rows_updated_per_second": round(rows, 1),
    } | {
        f"{shape}_tasks_per_second_if_only_bus_and_database_worked": round(
            1 / (messages_of_one / bus + ROWS_PER_TASK / rows), 1
        )
        for shape, messages_of_one in MESSAGES_PER_TASK.items()
    }


async def _bus(url: str, messages: int) -> float:
    bus = await connect_bus(url, "limit")
    publisher = Publisher(bus, max_in_flight=1024)
    await publisher.start()
    done = asyncio.Event()
    got: list[Message] = []
    pending: list[Message] = []
    wake = asyncio.Event()

    def deliver(message: Message) -> None:
        pending.append(message)
        wake.set()

    inbox = Inbox(bus, STREAM, "limit", "bench.>", deliver)
    await inbox.start()

    async def consume() -> None:
        while len(got) < messages:
            await wake.wait()
            wake.clear()
            batch = pending[:]
            pending.clear()
            got.extend(batch)
            if batch:
                await inbox.ack(batch[-1], len(batch))
        done.set()

    event = TaskStarted(
        workflow="b-1",
        cluster="local",
        at=datetime.now(UTC),
        attempts=[AttemptRef(index=0, name="t0", attempt=0)],
    )
    envelopes = [encode(event, source="/limit") for _ in range(messages)]
    for envelope in envelopes:
        object.__setattr__(envelope, "subject", "bench.x")
    started = time.perf_counter()
    consumer = asyncio.create_task(consume())
    for start in range(0, messages, BATCH):
        await publisher.publish(envelopes[start : start + BATCH])
    await done.wait()
    seconds = time.perf_counter() - started
    await consumer
    await inbox.close()
    await bus.jetstream.delete_stream(STREAM.name)
    await publisher.close()
    await bus.broker.stop()
    return messages / seconds


async def _database(url: str, rows: int) -> float:
    database = await connect_database(url)
    await database.execute(
        "CREATE TABLE bench (id text PRIMARY KEY, status text, at timestamptz, node text)"
        " WITH (fillfactor = 60)"
    )
    names = [uuid.uuid4().hex for _ in range(rows)]
    await database.executemany("INSERT INTO bench VALUES ($1, 'WAITING')", [(n,) for n in names])
    started = time.perf_counter()
    for start in range(0, rows, BATCH):
        batch = names[start : start + BATCH]
        await database.execute(
            "UPDATE bench SET status = n.status, at = n.at, node = n.node"
            " FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::text[])"
            " AS n (id, status, at, node) WHERE bench.id = n.id",
            batch,
            ["RUNNING"] * len(batch),
            [datetime.now(UTC)] * len(batch),
            ["node"] * len(batch),
        )
    seconds = time.perf_counter() - started
    await database.execute("DROP TABLE bench")
    await database.close()
    return rows / seconds
