"""What tests of the engine need around it: a submitter, and a cluster that does as it is told."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cairn_api
from cairn_common.events import (
    AttemptRef,
    ClusterHeartbeat,
    ClusterResources,
    Event,
    FinishReason,
    NodeInfo,
    TaskAccepted,
    TaskFinished,
    TaskOutcome,
    TaskPlacement,
    TaskReady,
    TaskSettled,
    TaskStarted,
    TaskStop,
    WorkflowFinished,
    WorkflowSubmitted,
    decode,
    encode,
)
from cairn_common.events.subjects import PLACEMENTS, cluster_inbox
from cairn_common.messaging import Bus, Inbox, Message, Publisher, connect_bus, ensure_streams
from cairn_common.persistence import Database, connect_database, migrate
from cairn_common.spec.load import load_workflow

API_MIGRATIONS = Path(cairn_api.__file__).parent / "migrations"

Judge = Callable[[str, TaskPlacement], int | None]
"""Workflow and task to the exit code; None lets the task run until it is stopped."""


class Harness:
    """Submits workflows as the API does and plays a cluster.

    While `hears` is cleared the cluster hears no orders; while `starts` is False it only takes
    tasks into its queue.
    """

    def __init__(
        self,
        nats_url: str,
        database_url: str,
        judge: Judge | None = None,
        *,
        cluster: str = "local",
        pool: str = "default",
    ) -> None:
        self.cluster = cluster
        self.pool = pool
        self.starts = True
        self.hears = asyncio.Event()
        self.hears.set()
        self._nats_url = nats_url
        self._database_url = database_url
        self._judge = judge or (lambda _workflow, _task: 0)
        self._numbers = itertools.count()
        self._run = uuid.uuid4().hex[:8]
        self._placed: set[tuple[str, str, int]] = set()
        self.started: list[tuple[str, str, int]] = []
        self.settled: set[tuple[str, int, int]] = set()
        self.stopped: list[tuple[str, str, int]] = []
        self.finished: dict[str, WorkflowFinished] = {}
        self._changed = asyncio.Condition()
        self.database: Database
        self.bus: Bus
        self.publisher: Publisher

    async def __aenter__(self) -> Harness:
        self.database = await connect_database(self._database_url)
        await migrate(self._database_url, "api", API_MIGRATIONS)
        self.bus = await connect_bus(self._nats_url, "harness")
        await ensure_streams(self.bus.jetstream)
        self.publisher = Publisher(self.bus)
        await self.publisher.start()
        self._arrived: asyncio.Queue[Message] = asyncio.Queue()
        self._inbox = Inbox(
            self.bus,
            PLACEMENTS,
            f"bridge-{self.cluster}",
            cluster_inbox(self.cluster),
            self._arrived.put_nowait,
        )
        await self._inbox.start()
        await self.bus.client.subscribe("workflow.finished.*.*", cb=self._on_finished)
        self._task = asyncio.create_task(self._play())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._inbox.close()
        await self.publisher.close()
        await self.bus.broker.stop()
        await self.database.close()

    async def submit(self, text: str, *, count: int = 1) -> list[str]:
        """Store submissions and announce them."""
        spec = load_workflow(text).spec.model_dump_json(by_alias=True, exclude_defaults=True)
        names = [f"w{self._run}-{next(self._numbers)}" for _ in range(count)]
        now = datetime.now(UTC)
        await self.database.executemany(
            "INSERT INTO api.submission (workflow, uuid, name, user_name, pool, priority, labels,"
            " submitted_at, spec, rendered, cpu, gpu, memory, storage)"
            " VALUES ($1, $2, 'w', 'me', $5, 'NORMAL', '{}', $3, $4, '', 1, 0, 0, 0)",
            [(name, uuid.uuid4().hex, now, spec, self.pool) for name in names],
        )
        await self.announce(names)
        return names

    async def announce(self, names: Sequence[str]) -> None:
        """Tell the engine about submissions, as often as one likes."""
        await self.publisher.publish(
            [
                encode(
                    WorkflowSubmitted(
                        workflow=name,
                        uuid="u",
                        user="me",
                        pool=self.pool,
                        submitted_at=datetime.now(UTC),
                    ),
                    source="/test",
                )
                for name in names
            ]
        )

    async def wait(self, names: Sequence[str], seconds: float = 60.0) -> None:
        """Returns once all of these workflows have finished."""
        async with asyncio.timeout(seconds), self._changed:
            await self._changed.wait_for(lambda: self.finished.keys() >= set(names))

    def runs(self, names: Sequence[str]) -> list[tuple[str, str, int]]:
        """The attempts of these workflows that the cluster has started, each time it did."""
        return [run for run in self.started if run[0] in set(names)]

    async def tasks(self, workflow: str) -> dict[str, Any]:
        """The newest attempt of each task, by name."""
        rows = await self.database.fetch(
            "SELECT * FROM engine.view_task WHERE workflow = $1 ORDER BY index, attempt", workflow
        )
        return {row["name"]: row for row in rows}

    async def _on_finished(self, message: Any) -> None:
        event = decode(message.subject, message.headers, message.data)
        assert isinstance(event, WorkflowFinished)
        async with self._changed:
            self.finished[event.workflow] = event
            self._changed.notify_all()

    async def _play(self) -> None:
        while True:
            message = await self._arrived.get()
            await self.hears.wait()
            event = decode(message.subject, message.headers, message.data)
            if isinstance(event, TaskReady):
                await self._place(event)
            elif isinstance(event, TaskStop):
                self.stopped += [(event.workflow, ref.name, ref.attempt) for ref in event.attempts]
                await self.finish(event.workflow, event.attempts, 143, FinishReason.STOPPED)
            elif isinstance(event, TaskSettled):
                self.settled |= {(event.workflow, ref.index, ref.attempt) for ref in event.attempts}
            await self._inbox.ack(message, 1)

    async def _place(self, event: TaskReady) -> None:
        tasks = [task for placement in event.placements for task in placement.tasks]
        refs = [AttemptRef(index=t.index, name=t.name, attempt=t.attempt) for t in tasks]
        now = datetime.now(UTC)
        common: dict[str, Any] = {"workflow": event.workflow, "cluster": self.cluster, "at": now}
        facts: list[Event] = [TaskAccepted(**common, attempts=refs)]
        if self.starts:
            facts.append(TaskStarted(**common, attempts=refs, node="n"))
        await self.say(*facts)
        for task, ref in zip(tasks, refs, strict=True):
            key = (event.workflow, task.name, task.attempt)
            if key not in self._placed:  # placed twice is placed once
                self._placed.add(key)
                self.started.append(key)
            code = self._judge(event.workflow, task)
            if code is not None and self.starts:
                await self.finish(event.workflow, [ref], code, FinishReason.EXITED)

    async def finish(
        self,
        workflow: str,
        refs: Sequence[AttemptRef],
        code: int,
        reason: FinishReason = FinishReason.EXITED,
    ) -> None:
        """Report the end of attempts."""
        outcomes = [
            TaskOutcome(**ref.model_dump(), exit_code=code, reason=reason, node="n") for ref in refs
        ]
        event = TaskFinished(
            workflow=workflow, cluster=self.cluster, at=datetime.now(UTC), outcomes=outcomes
        )
        await self.say(event)

    async def say(self, *events: Event) -> None:
        """Publish events as a bridge does."""
        await self.publisher.publish([encode(event, source="/test") for event in events])

    async def beat(self, *, seconds: float = 0.2) -> None:
        """A sign of life, with the next one promised in so many seconds."""
        now = datetime.now(UTC)
        await self.say(ClusterHeartbeat(cluster=self.cluster, at=now, interval_seconds=seconds))

    async def has(self, *nodes: NodeInfo) -> None:
        """Tell what the cluster has, which registers it."""
        await self.say(
            ClusterResources(
                cluster=self.cluster, at=datetime.now(UTC), pools=[self.pool], nodes=list(nodes)
            )
        )


def chain(length: int) -> str:
    """A workflow file: each task needs the one before it."""
    return _file([(f"t{i}", [f"t{i - 1}"] if i else []) for i in range(length)])


def fan(width: int) -> str:
    """A workflow file: one task, then `width` that need it, then one that needs them all."""
    middle = [(f"m{i}", ["first"]) for i in range(width)]
    return _file([("first", []), *middle, ("last", [name for name, _ in middle])])


def _file(tasks: Sequence[tuple[str, list[str]]]) -> str:
    lines = ["workflow:", "  name: w", "  tasks:"]
    for name, inputs in tasks:
        needs = ", ".join(f"{{task: {source}}}" for source in inputs)
        lines.append(f"  - {{name: {name}, image: x, command: ['true'], inputs: [{needs}]}}")
    return "\n".join(lines)
