"""The engine's side of the bus, for one cluster: places groups, and notes when facts arrive."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from cairn_common.events import (
    GroupPlacement,
    Resources,
    TaskAccepted,
    TaskPlacement,
    TaskReady,
    TaskStarted,
    decode,
    encode,
)
from cairn_common.messaging import Bus, Publisher, connect_bus, ensure_streams
from cairn_common.requests import (
    ATTEMPTS_SUBJECT,
    WORKFLOWS_SUBJECT,
    AttemptsReply,
    WorkflowsReply,
)

Task = tuple[str, int]
"""A workflow and the index of one of its tasks."""


class EngineSide:
    """Speaks to one bridge as the engine does.

    Args:
        url: NATS.
        cluster: the bridge's cluster.
    """

    def __init__(self, url: str, cluster: str) -> None:
        self._url = url
        self._cluster = cluster
        self.accepted: dict[Task, float] = {}
        self.started: dict[Task, float] = {}
        self._heard = asyncio.Event()
        self._bus: Bus
        self._publisher: Publisher

    async def __aenter__(self) -> EngineSide:
        self._bus = await connect_bus(self._url, "engine")
        await ensure_streams(self._bus.jetstream)
        self._publisher = Publisher(self._bus)
        await self._publisher.start()
        subscribe = self._bus.client.subscribe
        for fact in ("accepted", "started"):
            await subscribe(f"task.{fact}.>", cb=self._hear, pending_msgs_limit=1_000_000)
        await subscribe(ATTEMPTS_SUBJECT, cb=self._knows_nothing)
        await subscribe(WORKFLOWS_SUBJECT, cb=self._knows_all)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._publisher.close()
        await self._bus.broker.stop()

    async def place(self, groups: Sequence[GroupPlacement]) -> float:
        """Order all, each with a message of its own; when that was, as `time.monotonic` says."""
        began = time.monotonic()
        orders = [
            TaskReady(cluster=self._cluster, workflow=group.workflow, placements=[group])
            for group in groups
        ]
        await self._publisher.publish([encode(order, source="/benchmark") for order in orders])
        return began

    async def until(self, heard: dict[Task, float], count: int, seconds: float) -> float:
        """When so many tasks have been `heard` of.

        Raises:
            TimeoutError: not within `seconds`.
        """
        async with asyncio.timeout(seconds):
            while len(heard) < count:
                self._heard.clear()
                await self._heard.wait()
        return max(heard.values())

    async def _hear(self, message: Any) -> None:
        now = time.monotonic()
        event = decode(message.subject, message.headers, message.data)
        assert isinstance(event, TaskAccepted | TaskStarted)
        heard = self.started if isinstance(event, TaskStarted) else self.accepted
        for each in event.attempts:
            heard.setdefault((event.workflow, each.index), now)
        self._heard.set()

    async def _knows_nothing(self, message: Any) -> None:
        await message.respond(AttemptsReply(attempts=[]).model_dump_json().encode())

    async def _knows_all(self, message: Any) -> None:
        await message.respond(WorkflowsReply(unknown=[]).model_dump_json().encode())


def group_of(number: int, size: int) -> GroupPlacement:
    """A gang; how long its pods run is for the pool to say, see `POOLS`."""
    workflow = f"{number:016x}" + "0" * 16
    return GroupPlacement(
        workflow=f"bench-{number}",
        workflow_uuid=workflow,
        group="g",
        group_index=0,
        group_uuid=f"{number:016x}{0:08x}",
        tasks=[
            TaskPlacement(
                index=index,
                name=f"t{index}",
                uuid=f"{number:016x}{index:016x}",
                image="image",
                command=["run"],
                resources=Resources(cpu=1, memory=1 << 20),
            )
            for index in range(size)
        ],
    )


def pod_name(group: GroupPlacement, index: int) -> str:
    """Of the pod of a task's first attempt."""
    return f"cairn-{group.tasks[index].uuid}-0"
