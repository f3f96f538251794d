"""The engine with a real nats-server and a real PostgreSQL; the cluster is played by the test."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator

import pytest

from cairn_common.events import AttemptRef
from cairn_common.events.subjects import STREAMS
from cairn_common.messaging import ensure_streams
from cairn_engine.service import EngineService
from cairn_engine.settings import EngineSettings
from engine_harness import Harness, chain, fan
from servers import Servers


def settings(servers: Servers, **changes: float) -> EngineSettings:
    return EngineSettings(
        nats_url=servers.nats_url,
        database_url=servers.database_url,
        **{"offer_interval": 1.0, "backoff_base": 0.05, "lease_seconds": 2.0, **changes},
    )


@contextlib.asynccontextmanager
async def engine(servers: Servers, **changes: float) -> AsyncIterator[EngineService]:
    service = EngineService(settings(servers, **changes))
    task = asyncio.create_task(service.run())
    ready = asyncio.create_task(service.ready.wait())
    await asyncio.wait([task, ready], return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()
    try:
        yield service
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@contextlib.asynccontextmanager
async def engine_process(servers: Servers) -> AsyncIterator[asyncio.subprocess.Process]:
    """An engine that can be killed."""
    environment = {
        **os.environ,
        **servers.settings,
        "CAIRN_OFFER_INTERVAL": "1",
        "CAIRN_LEASE_SECONDS": "2",
        "CAIRN_LOG_LEVEL": "warning",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cairn_engine", env=environment
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.wait()


@pytest.fixture
async def harness(servers: Servers) -> AsyncIterator[Harness]:
    async with Harness(servers.nats_url, servers.database_url) as running:
        yield running


async def test_workflows_of_every_shape_complete(servers: Servers, harness: Harness) -> None:
    async with engine(servers):
        names = await harness.submit(chain(5), count=20) + await harness.submit(fan(30), count=5)
        await harness.wait(names)
    assert {harness.finished[name].status for name in names} == {"COMPLETED"}
    assert len(harness.runs(names)) == 20 * 5 + 5 * 32
    tasks = await harness.tasks(names[0])
    assert [task["status"] for task in tasks.values()] == ["COMPLETED"] * 5
    ends = [task["ended_at"] for task in tasks.values()]
    assert ends == sorted(ends)
    left = await harness.database.fetchval("SELECT count(*) FROM engine.follow_up")
    assert left == 0


async def test_a_submission_that_is_announced_twice_runs_once(
    servers: Servers, harness: Harness
) -> None:
    async with engine(servers):
        names = await harness.submit(chain(3), count=3)
        await harness.announce(names)
        await harness.wait(names)
        await harness.announce(names)
        more = await harness.submit(chain(1))
        await harness.wait(more)
    assert len(harness.runs(names + more)) == 10


async def test_a_failing_task_blocks_exactly_its_downstream(servers: Servers) -> None:
    def judge(_: str, task: object) -> int:
        return 7 if getattr(task, "name", "") == "m1" else 0

    async with Harness(servers.nats_url, servers.database_url, judge) as harness:
        async with engine(servers):
            names = await harness.submit(fan(3))
            await harness.wait(names)
        tasks = await harness.tasks(names[0])
    status = {name: task["status"] for name, task in tasks.items()}
    assert status == {
        "first": "COMPLETED",
        "m0": "COMPLETED",
        "m1": "FAILED",
        "m2": "COMPLETED",
        "last": "FAILED_UPSTREAM",
    }
    assert tasks["m1"]["exit_code"] == 7
    assert harness.finished[names[0]].status == "FAILED"


async def test_a_rescheduled_task_runs_again(servers: Servers) -> None:
    def judge(_: str, task: object) -> int:
        return 0 if getattr(task, "attempt", 0) == 2 else 11

    text = chain(1).replace("inputs: []", "exitActions: {RESCHEDULE: '11'}")
    async with Harness(servers.nats_url, servers.database_url, judge) as harness:
        async with engine(servers):
            names = await harness.submit(text)
            await harness.wait(names)
        rows = await harness.database.fetch(
            "SELECT attempt, status FROM engine.view_task WHERE workflow = $1 ORDER BY attempt",
            names[0],
        )
    assert [tuple(row) for row in rows] == [
        (0, "RESCHEDULED"),
        (1, "RESCHEDULED"),
        (2, "COMPLETED"),
    ]


async def test_killed_engines_are_replaced_and_nothing_runs_twice(
    servers: Servers, harness: Harness
) -> None:
    names: list[str] = []
    for _ in range(3):
        async with engine_process(servers) as process:
            names += await harness.submit(chain(20), count=10)
            target = len(harness.started) + 60
            async with asyncio.timeout(60):
                while len(harness.started) < target:
                    await asyncio.sleep(0.01)
            process.kill()
            await process.wait()
    async with engine(servers):
        await harness.wait(names)
    assert {harness.finished[name].status for name in names} == {"COMPLETED"}
    assert len(harness.runs(names)) == len(names) * 20


async def test_two_engines_share_the_partitions_and_one_takes_over(
    servers: Servers, harness: Harness
) -> None:
    async with engine(servers) as first:
        async with engine_process(servers) as second:
            async with asyncio.timeout(30):
                while await _owners(harness) != [8, 8]:
                    await asyncio.sleep(0.1)
            names = await harness.submit(chain(10), count=30)
            second.kill()
            await second.wait()
            await harness.wait(names)
        async with asyncio.timeout(30):
            while await _owners(harness) != [16]:
                await asyncio.sleep(0.1)
        assert sum(lane.handled for lane in first.lanes) > 0
    assert len(harness.runs(names)) == 300


async def _owners(harness: Harness) -> list[int]:
    rows = await harness.database.fetch(
        "SELECT count(*) FROM engine.lease WHERE expires_at > now() GROUP BY owner"
    )
    return sorted(row[0] for row in rows)


async def test_deleting_every_stream_costs_time_only(servers: Servers, harness: Harness) -> None:
    async with engine(servers):
        names = await harness.submit(chain(30), count=20)
        for _ in range(3):
            target = len(harness.started) + 100
            async with asyncio.timeout(60):
                while len(harness.started) < min(target, 550):
                    await asyncio.sleep(0.01)
            for stream in STREAMS:
                await harness.bus.jetstream.delete_stream(stream.name)
            await ensure_streams(harness.bus.jetstream)
        # The API repeats hand-overs until the engine has them; so does the test.
        await harness.announce(names)
        await _repeat_lost_facts(harness, names)
    assert len(harness.runs(names)) == 600


async def _repeat_lost_facts(harness: Harness, names: list[str]) -> None:
    """What a bridge does that finds the bus emptied: it reports all that it has, again."""
    waiting = asyncio.create_task(harness.wait(names))
    while not waiting.done():
        rows = await harness.database.fetch(
            "SELECT workflow, index, name, attempt FROM engine.view_task"
            " WHERE ended_at IS NULL AND status <> 'WAITING'"
        )
        for row in rows:
            if (row["workflow"], row["name"], row["attempt"]) in harness.started:
                ref = AttemptRef(index=row["index"], name=row["name"], attempt=row["attempt"])
                await harness.finish(row["workflow"], [ref], 0)
        await asyncio.wait([waiting], timeout=1.0)
    await waiting


async def test_bad_events_end_as_dead_letters_and_stop_nothing(
    servers: Servers, harness: Harness
) -> None:
    dead = await harness.bus.client.subscribe("dead.engine.>")
    async with engine(servers):
        for body in (b"{not json", b'{"workflow": "x-1"}', b"[]"):
            await harness.bus.jetstream.publish("task.finished.3.x-1", body)
        headers = {"ce-type": "task.vanished", "ce-specversion": "1.0"}
        await harness.bus.jetstream.publish("task.finished.3.x-1", b"{}", headers=headers)
        reasons = [(await dead.next_msg(timeout=10)).headers["cairn-reason"] for _ in range(4)]
        names = await harness.submit(chain(2))
        await harness.wait(names)
    assert "Invalid JSON" in reasons[0]
    assert "Field required" in reasons[1]
    assert "task.vanished" in reasons[3]


async def test_a_fact_about_an_unknown_task_is_recorded(servers: Servers, harness: Harness) -> None:
    async with engine(servers):
        await harness.finish("nobody-1", [AttemptRef(index=0, name="t", attempt=0)], 0)
        names = await harness.submit(chain(1))
        await harness.wait(names)
        async with asyncio.timeout(10):
            while not await harness.database.fetchval(
                "SELECT count(*) FROM engine.anomaly WHERE workflow = 'nobody-1'"
            ):
                await asyncio.sleep(0.05)


async def test_an_engine_that_is_told_to_stop_stops_even_while_messages_arrive(
    servers: Servers, harness: Harness
) -> None:
    for _ in range(12):
        async with asyncio.timeout(20), engine(servers):
            await harness.submit(chain(3), count=5)
    async with engine(servers):  # and what was under way goes on
        names = await harness.submit(chain(1))
        await harness.wait(names)
