"""The engine with a real nats-server and a real PostgreSQL; the cluster is played by the test."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from cairn_common.events import AttemptRef, partition_of
from cairn_common.events.subjects import STREAMS
from cairn_common.messaging import ensure_streams
from cairn_engine.handlers import batch
from cairn_engine.service import EngineService
from cairn_engine.settings import EngineSettings
from cairn_engine.store import Store, sql
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


async def test_submissions_too_large_to_be_taken_in_together_all_run(
    servers: Servers, harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "_SPEC_BYTES", 1)
    loaded: list[int] = []
    load = Store.load_submissions

    async def load_submissions(store: Store, *args: Any) -> Any:
        submissions, left = await load(store, *args)
        loaded.append(len(submissions))
        return submissions, left

    monkeypatch.setattr(Store, "load_submissions", load_submissions)
    names = await harness.submit(chain(2), count=40)  # all are there when the engine starts
    async with engine(servers):
        await harness.wait(names)
    assert {harness.finished[name].status for name in names} == {"COMPLETED"}
    assert max(loaded) == 1


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


NOBODY = '{"workflow": "nobody-1", "cluster": "local", "at": "2026-01-01T00:00:00Z", '
SUBJECT = f"task.finished.{partition_of('nobody-1')}.nobody-1"
ATTEMPT = '"attempts": [{"index": 0, "name": "t", "attempt": 0}]}'
SUBMITTED = (
    b'{"workflow": "nobody-2", "uuid": "u", "user": "me", "pool": "default", '
    b'"submitted_at": "2026-01-01T00:00:00Z"}'
)
BAD_EVENTS = {
    "wrong JSON": (SUBJECT, {}, b"{not json", "Invalid JSON"),
    "no object": (SUBJECT, {}, b"[]", "should be an object"),
    "no text": (SUBJECT, {}, b"\xff\xfe", "Invalid JSON"),
    "a field is missing": (SUBJECT, {}, b'{"workflow": "nobody-1"}', "Field required"),
    "a field of another type": (
        SUBJECT,
        {},
        f'{NOBODY} "outcomes": [{{"index": "one", "name": "t", "attempt": 0, '
        '"reason": "exited"}]}'.encode(),
        "outcomes.0.index: Input should be a valid integer",
    ),
    "an unknown reason": (
        SUBJECT,
        {},
        f'{NOBODY} "outcomes": [{{"index": 1, "name": "t", "attempt": 0, "reason": "tired"}}]}}'
        "".encode(),
        "outcomes.0.reason",
    ),
    "an unknown type": (SUBJECT, {"ce-type": "task.vanished"}, b"{}", "task.vanished"),
    "an unknown version": (SUBJECT, {"ce-specversion": "9.0"}, b"{}", "version '9.0'"),
    "another's subject": (
        "task.accepted.3.x-1",
        {},
        f"{NOBODY} {ATTEMPT}".encode(),
        f"the subject task.accepted.{partition_of('nobody-1')}.nobody-1 came on another one",
    ),
    "an unknown workflow": (
        f"task.accepted.{partition_of('nobody-1')}.nobody-1",
        {},
        f"{NOBODY} {ATTEMPT}".encode(),
        "the engine knows no such workflow: Accepted(workflow='nobody-1', index=0",
    ),
    "a number beyond all": (
        f"task.accepted.{partition_of('nobody-1')}.nobody-1",
        {},
        f"{NOBODY} {ATTEMPT}".replace('"index": 0', '"index": 99999999999').encode(),
        "out of int32 range",
    ),
    "nothing submitted": (
        f"workflow.submitted.{partition_of('nobody-2')}.nobody-2",
        {},
        SUBMITTED,
        "nobody has submitted a workflow nobody-2",
    ),
    "seven megabytes": (SUBJECT, {}, b"x" * (7 << 20), "Invalid JSON"),
}


async def test_bad_events_end_as_dead_letters_and_stop_nothing(
    servers: Servers, harness: Harness
) -> None:
    dead = await harness.bus.client.subscribe("dead.engine.>")
    reasons: dict[str, str] = {}
    async with engine(servers):
        names = await harness.submit(chain(2))
        for kind, (subject, headers, body, _) in BAD_EVENTS.items():
            await harness.bus.jetstream.publish(subject, body, headers=headers)
            letter = await dead.next_msg(timeout=10)
            reasons[kind] = letter.headers["cairn-reason"]
            assert letter.headers["cairn-subject"] == subject
        names += await harness.submit(chain(2))
        await harness.wait(names)
    wrong = {kind: r for kind, r in reasons.items() if BAD_EVENTS[kind][3] not in r}
    assert not wrong
    assert {harness.finished[name].status for name in names} == {"COMPLETED"}


async def test_a_good_fact_beside_a_bad_one_counts(servers: Servers, harness: Harness) -> None:
    """One message of two facts, of which one is about an attempt that does not exist."""
    dead = await harness.bus.client.subscribe("dead.engine.>")
    async with engine(servers):
        names = await harness.submit(chain(1))
        refs = [AttemptRef(index=i, name="t0", attempt=0) for i in (7, 0)]
        await harness.finish(names[0], refs, 0)
        await harness.wait(names)
        reason = (await dead.next_msg(timeout=10)).headers["cairn-reason"]
    assert "the engine knows no such task attempt" in reason
    assert "index=7" in reason
    assert harness.finished[names[0]].status == "COMPLETED"


async def test_a_flood_of_facts_about_nothing_is_bounded(
    servers: Servers, harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql, "ANOMALIES_KEPT", 100)
    async with engine(servers):
        for _ in range(10):
            refs = [AttemptRef(index=i, name="t", attempt=0) for i in range(50)]
            await harness.finish("nobody-3", refs, 0)
        names = await harness.submit(chain(1))
        await harness.wait(names)
        await harness.finish("nobody-3", [AttemptRef(index=0, name="t", attempt=0)], 0)
        async with asyncio.timeout(10):
            # The batch that comes last is added to the hundred that are kept before it.
            while not 0 < await _anomalies(harness) <= 100 + 50:
                await asyncio.sleep(0.05)


async def _anomalies(harness: Harness) -> int:
    return int(await harness.database.fetchval("SELECT count(*) FROM engine.anomaly"))


async def test_a_placement_too_large_for_the_bus_fails_and_stops_nothing(
    servers: Servers, harness: Harness
) -> None:
    quotes = '"' * (5 << 20)  # small enough for a workflow file, twice as long in JSON
    text = chain(1).replace(
        "inputs: []", f"files: [{{path: /tmp/big, contents: '{quotes}'}}], inputs: []"
    )
    dead = await harness.bus.client.subscribe("dead.engine.task.ready.>")
    async with engine(servers):
        huge = await harness.submit(text)
        others = await harness.submit(chain(2), count=3)
        await harness.wait(huge + others)
        reason = (await dead.next_msg(timeout=10)).headers["cairn-reason"]
        tasks = await harness.tasks(huge[0])
    assert "too large for NATS" in reason
    assert harness.finished[huge[0]].status == "FAILED_SERVER_ERROR"
    assert "cannot be sent to its cluster" in tasks["t0"]["message"]
    assert {harness.finished[name].status for name in others} == {"COMPLETED"}


async def test_an_engine_that_is_told_to_stop_stops_even_while_messages_arrive(
    servers: Servers, harness: Harness
) -> None:
    for _ in range(12):
        async with asyncio.timeout(20), engine(servers):
            await harness.submit(chain(3), count=5)
    async with engine(servers):  # and what was under way goes on
        names = await harness.submit(chain(1))
        await harness.wait(names)
