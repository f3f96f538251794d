"""A cluster that answers at once: every attempt is accepted, started and finished on arrival.

It runs as a process of its own, as a bridge does. It remembers nothing, which is right for a
cluster on which nothing happens.

    python benchmarks/engine/null_bridge.py nats://127.0.0.1:4222
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
import sys
from collections import deque

import orjson
import uvloop

from cairn_common.events import Envelope, event_headers, partition_of
from cairn_common.events.subjects import PLACEMENTS, cluster_inbox
from cairn_common.messaging import Inbox, Message, Publisher, connect_bus, ensure_streams

_PREFIX = secrets.token_hex(6)
_NUMBERS = itertools.count()


def answer(message: Message, now: str) -> list[Envelope]:
    """The facts that follow from one placement: started, and finished with exit code 0."""
    placement = orjson.loads(message.data)["placement"]
    workflow = placement["workflow"]
    refs = [
        {"index": t["index"], "name": t["name"], "attempt": t.get("attempt", 0)}
        for t in placement["tasks"]
    ]
    base = {"workflow": workflow, "cluster": "local", "at": now}
    bodies = {
        "task.accepted": {**base, "attempts": refs},
        "task.started": {**base, "attempts": refs, "node": "null"},
        "task.finished": {
            **base,
            "outcomes": [{**ref, "exit_code": 0, "reason": "exited"} for ref in refs],
        },
    }
    token = f"{partition_of(workflow)}.{workflow}"
    return [
        Envelope(
            f"{kind}.{token}",
            event_headers(
                kind, about=workflow, source="/null", event_id=f"{_PREFIX}-{next(_NUMBERS)}"
            ),
            orjson.dumps(body),
        )
        for kind, body in bodies.items()
    ]


async def serve(url: str) -> None:
    """Answer placements until killed."""
    bus = await connect_bus(url, "null-bridge")
    await ensure_streams(bus.jetstream)
    publisher = Publisher(bus, max_in_flight=4096)
    await publisher.start()
    arrived: deque[Message] = deque()
    wake = asyncio.Event()

    def deliver(message: Message) -> None:
        arrived.append(message)
        wake.set()

    inbox = Inbox(bus, PLACEMENTS, "bridge-local", cluster_inbox("local"), deliver)
    await inbox.start()
    print("ready", flush=True)
    while True:
        wake.clear()
        if not arrived:
            await wake.wait()
        batch = [arrived.popleft() for _ in range(len(arrived))]
        now = _now()
        facts = [
            envelope
            for message in batch
            if message.subject.startswith("task.ready.")
            for envelope in answer(message, now)
        ]
        await publisher.publish(facts)
        await inbox.ack(batch[-1], len(batch))


def _now() -> str:
    from datetime import UTC, datetime

    return datetime.now(UTC).isoformat()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1]))
