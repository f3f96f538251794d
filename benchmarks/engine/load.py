"""Workflows, put in as the API does it: a row, then an event."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from asyncpg.exceptions import UndefinedTableError
from nats.aio.msg import Msg

import cairn_api
from cairn_common.events import WorkflowCancel, WorkflowSubmitted, encode
from cairn_common.messaging import Bus, Publisher, connect_bus, ensure_streams
from cairn_common.persistence import Database, connect_database, migrate
from cairn_common.spec.load import load_workflow

MIGRATIONS = Path(cairn_api.__file__).parent / "migrations"


class Load:
    """Submits workflows and waits for their ends."""

    database: Database
    bus: Bus

    def __init__(self, settings: dict[str, str]) -> None:
        self._settings = settings
        self._run = uuid.uuid4().hex[:8]
        self._numbers = itertools.count()
        self._ended: set[str] = set()
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Load:
        url = self._settings["CAIRN_DATABASE_URL"]
        self.database = await connect_database(url)
        await migrate(url, "api", MIGRATIONS)
        self.bus = await connect_bus(self._settings["CAIRN_NATS_URL"], "benchmark")
        await ensure_streams(self.bus.jetstream)
        self._publisher = Publisher(self.bus, max_in_flight=4096)
        await self._publisher.start()
        await self.bus.client.subscribe("workflow.finished.*.*", cb=self._on_end)
        await self.bus.client.flush()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._publisher.close()
        await self.bus.broker.stop()
        await self.database.close()

    async def run(self, text: str, count: int) -> float:
        """Submit and wait; seconds from the first submission to the last end."""
        names = await self._store(text, count)
        started = time.perf_counter()
        await self._announce(names)
        await self.wait(names)
        return time.perf_counter() - started

    async def submit(self, text: str, count: int) -> list[str]:
        """Submit without waiting."""
        names = await self._store(text, count)
        await self._announce(names)
        return names

    async def cancel(self, names: Sequence[str]) -> None:
        """Cancel by force."""
        await self._publisher.publish(
            [
                encode(WorkflowCancel(workflow=name, user="b", force=True), source="/benchmark")
                for name in names
            ]
        )

    async def wait(self, names: Sequence[str]) -> None:
        """Returns once all of them have ended."""
        missing = set(names)
        while missing := missing - self._ended:
            self._changed.clear()
            await self._changed.wait()

    async def wait_until_stored(self, names: Sequence[str]) -> None:
        """Returns once the engine has them all and has offered what can run."""
        while await self.database.fetchval(
            "SELECT count(*) FROM engine.task_group"
            " WHERE workflow = ANY($1) AND index = 0 AND status <> 'WAITING'",
            names,
        ) < len(names):
            await asyncio.sleep(0.1)

    async def wait_until_shared(self, engines: int) -> None:
        """Returns once so many engines have about the same number of partitions each."""
        while True:
            with contextlib.suppress(UndefinedTableError):
                shares = await self.database.fetch(
                    "SELECT count(*) AS partitions FROM engine.lease"
                    " WHERE expires_at > now() GROUP BY owner"
                )
                sizes = [row["partitions"] for row in shares]
                if len(sizes) == engines and max(sizes) - min(sizes) <= 1:
                    return
            await asyncio.sleep(0.1)

    async def _store(self, text: str, count: int) -> list[str]:
        spec = load_workflow(text).spec.model_dump_json(by_alias=True, exclude_defaults=True)
        names = [f"b{self._run}-{next(self._numbers)}" for _ in range(count)]
        now = datetime.now(UTC)
        await self.database.executemany(
            "INSERT INTO api.submission (workflow, uuid, name, user_name, pool, priority, labels,"
            " submitted_at, spec, rendered, cpu, gpu, memory, storage)"
            " VALUES ($1, $2, 'b', 'b', 'default', 'NORMAL', '{}', $3, $4, '', 1, 0, 0, 0)",
            [(name, uuid.uuid4().hex, now, spec) for name in names],
        )
        return names

    async def _announce(self, names: Sequence[str]) -> None:
        now = datetime.now(UTC)
        await self._publisher.publish(
            [
                encode(
                    WorkflowSubmitted(
                        workflow=name, uuid="u", user="b", pool="default", submitted_at=now
                    ),
                    source="/benchmark",
                )
                for name in names
            ]
        )

    async def _on_end(self, message: Msg) -> None:
        self._ended.add(message.subject.rsplit(".", 1)[1])
        self._changed.set()


def chain(length: int) -> str:
    """A workflow file in which each task needs the one before it."""
    return _file([(f"t{i}", f"t{i - 1}" if i else None) for i in range(length)])


def fan(width: int) -> str:
    """A workflow file in which all tasks but the first need the first."""
    return _file([(f"t{i}", "t0" if i else None) for i in range(width)])


def _file(tasks: Sequence[tuple[str, str | None]]) -> str:
    lines = ["workflow:", "  name: b", "  tasks:"]
    for name, needs in tasks:
        inputs = f"[{{task: {needs}}}]" if needs else "[]"
        lines.append(f"  - {{name: {name}, image: x, command: ['true'], inputs: {inputs}}}")
    return "\n".join(lines)
