"""A cluster that answers at once: every attempt is accepted, started and finished on arrival.

What it says is what the bridge's reporter makes of such facts: one message for all attempts of a
workflow that end together, with the times of what came before (`cairn_bridge.core.folding`).

For throughput it runs as a process of its own, as a bridge does:

    python benchmarks/engine/null_bridge.py nats://127.0.0.1:4222

For latency it runs within the benchmark, which reads the times that it notes. It remembers
nothing of its attempts, which is right for a cluster on which nothing happens.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
import sys
import time
from collections import deque
from datetime import UTC, datetime

import orjson
import uvloop

from cairn_common.events import Envelope, event_headers, partition_of
from cairn_common.events.subjects import PLACEMENTS, cluster_inbox
from cairn_common.messaging import Inbox, Message, Publisher, connect_bus, ensure_streams


class NullBridge:
    """Answers the placements of cluster `local`.

    `latencies` are the seconds from a task's end, as it is sent, to the arrival of the next
    placement of the same workflow, which for a chain is its successor's. While `mute` is set
    nothing is answered.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._prefix = secrets.token_hex(6)
        self._numbers = itertools.count()
        self._arrived: deque[tuple[Message, float]] = deque()
        self._wake = asyncio.Event()
        self._ended: dict[str, float] = {}
        self.latencies: list[float] = []
        self.mute = False

    async def __aenter__(self) -> NullBridge:
        self._bus = await connect_bus(self._url, "null-bridge")
        await ensure_streams(self._bus.jetstream)
        self._publisher = Publisher(self._bus, max_in_flight=4096)
        await self._publisher.start()
        self._inbox = Inbox(
            self._bus, PLACEMENTS, "bridge-local", cluster_inbox("local"), self._deliver
        )
        await self._inbox.start()
        self._task = asyncio.create_task(self._serve())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._inbox.close()
        await self._publisher.close()
        await self._bus.broker.stop()

    async def wait(self) -> None:
        """Returns only if the bridge fails."""
        await self._task

    def _deliver(self, message: Message) -> None:
        self._arrived.append((message, time.perf_counter()))
        self._wake.set()

    async def _serve(self) -> None:
        while True:
            self._wake.clear()
            if not self._arrived:
                await self._wake.wait()
            batch = [self._arrived.popleft() for _ in range(len(self._arrived))]
            facts: list[Envelope] = []
            for message, at in batch:
                if not self.mute and message.subject.startswith("task.ready."):
                    facts += self._answer(message, at)
            await self._publisher.publish(facts)
            await self._inbox.ack(batch[-1][0], len(batch))

    def _answer(self, message: Message, arrived: float) -> list[Envelope]:
        ready = orjson.loads(message.data)
        workflow = ready["workflow"]
        now = datetime.now(UTC)
        outcomes = [
            {
                "index": task["index"],
                "name": task["name"],
                "attempt": task["attempt"],
                "exit_code": 0,
                "reason": "exited",
                "node": "null",
                "accepted_at": now,
                "started_at": now,
            }
            for placement in ready["placements"]
            for task in placement["tasks"]
        ]
        if (ended := self._ended.get(workflow)) is not None:
            self.latencies.append(arrived - ended)
        self._ended[workflow] = time.perf_counter()
        body = {"workflow": workflow, "cluster": "local", "at": now, "outcomes": outcomes}
        return [self._envelope("task.finished", workflow, body)]

    def _envelope(self, kind: str, workflow: str, body: object) -> Envelope:
        identity = f"{self._prefix}-{next(self._numbers)}"
        return Envelope(
            f"{kind}.{partition_of(workflow)}.{workflow}",
            event_headers(kind, about=workflow, source="/null", event_id=identity),
            orjson.dumps(body),
        )


async def serve(url: str) -> None:
    """Answer placements until killed."""
    async with NullBridge(url) as bridge:
        await bridge.wait()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1]))
