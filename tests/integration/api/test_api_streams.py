"""Following a workflow through HTTP: log, events, watch."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx

from cairn_api.service import ApiService
from cairn_common.events import AttemptRef, LogLine, TaskLog
from integration.api.harness import (
    Cluster,
    api_settings,
    engine_running,
    fresh,
    running,
    serving,
    spec,
    submit,
)
from servers import Servers

AT = datetime(2026, 8, 1, 12, 30, 5, tzinfo=UTC)
STAMP = "2026/08/01 12:30:05"


def log(
    workflow: str,
    *texts: str,
    task: str = "only",
    first: int = 0,
    attempt: int = 0,
    stream: Any = "stdout",
    final: bool = False,
) -> TaskLog:
    lines = [
        LogLine(seq=first + number, at=AT, stream=stream, text=text)
        for number, text in enumerate(texts)
    ]
    return TaskLog(workflow=workflow, task=task, index=0, attempt=attempt, lines=lines, final=final)


async def started(api: httpx.AsyncClient, cluster: Cluster) -> str:
    """A workflow whose only task runs until the test ends it."""
    name = fresh()
    cluster.codes[name, "only"] = None
    workflow = await submit(api, spec(name))
    async with asyncio.timeout(20):
        while (await api.get(f"/api/workflow/{workflow}")).json()["status"] != "RUNNING":
            pass
    return workflow


async def finish(cluster: Cluster, workflow: str, code: int = 0) -> None:
    await cluster.harness.finish(workflow, [AttemptRef(index=0, name="only", attempt=0)], code)


async def snapshots(lines: AsyncIterator[str]) -> AsyncIterator[dict[str, Any]]:
    async for line in lines:
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))


async def test_a_log_is_told_live_and_ends_with_the_workflow(
    api: httpx.AsyncClient, cluster: Cluster, engine: None, relay: None
) -> None:
    workflow = await started(api, cluster)
    await cluster.say(log(workflow, "one"))
    async with api.stream("GET", f"/api/workflow/{workflow}/logs") as answer:
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        lines = answer.aiter_lines()
        assert await anext(lines) == f"{STAMP} [only] one"
        await cluster.say(log(workflow, "two", first=1, stream="stderr"))
        assert await anext(lines) == f"{STAMP} [only] two"
        await cluster.say(log(workflow, "done", first=2, stream="cairn", final=True))
        await finish(cluster, workflow)
        assert [line async for line in lines] == [f"{STAMP} [only][osmo] done"]

    async def read(path: str = "logs", **params: Any) -> list[str]:
        found = await api.get(f"/api/workflow/{workflow}/{path}", params=params)
        assert found.status_code == 200, found.text
        return [line.partition("] ")[2] for line in found.text.splitlines()]

    assert await read() == ["one", "two", "done"]
    assert await read(last_n_lines=2) == ["two", "done"]
    assert await read(query="tw") == ["two"]
    assert await read(retry_id=1, task_name="only") == []
    assert await read("error_logs") == ["two"]
    unknown = await api.get(f"/api/workflow/{workflow}/logs", params={"task_name": "nobody"})
    assert unknown.json()["message"] == f"Task nobody of workflow {workflow} is not found."
    wrong = await api.get(f"/api/workflow/{workflow}/logs", params={"last_n_lines": -1})
    assert wrong.status_code == 400


async def test_without_a_log_relay_there_is_a_clear_answer(
    api: httpx.AsyncClient, cluster: Cluster, engine: None
) -> None:
    workflow = await submit(api, spec(fresh()))
    answer = await api.get(f"/api/workflow/{workflow}/logs")
    assert answer.status_code == 503
    assert "log relay" in answer.json()["message"]


async def test_a_log_outlives_a_workflow_that_never_had_one(
    api: httpx.AsyncClient, cluster: Cluster, engine: None, relay: None
) -> None:
    workflow = await submit(api, spec(fresh()))
    await cluster.harness.wait([workflow])
    async with asyncio.timeout(8):
        assert (await api.get(f"/api/workflow/{workflow}/logs")).text == ""


async def test_a_watch_tells_every_change_and_ends(
    api: httpx.AsyncClient, cluster: Cluster, engine: None
) -> None:
    name = fresh()
    cluster.codes[name, "only"] = None
    workflow = await submit(api, spec(name))
    async with api.stream("GET", f"/api/workflow/{workflow}/watch") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        told = snapshots(answer.aiter_lines())
        async for snapshot in told:
            assert not snapshot["final"]
            if snapshot["groups"] and snapshot["groups"][0]["tasks"][0]["status"] == "RUNNING":
                break
        await finish(cluster, workflow, 7)
        rest = [snapshot async for snapshot in told]
    assert rest[-1]["final"] is True
    assert rest[-1]["status"] == "FAILED"
    task = rest[-1]["groups"][0]["tasks"][0]
    assert (task["status"], task["exit_code"], task["node_name"]) == ("FAILED", 7, "n")
    again = await api.get(f"/api/workflow/{workflow}/watch")
    assert again.text.count("event: status") == 1


async def test_a_fact_that_the_engine_stores_late_is_told(
    servers: Servers, api: httpx.AsyncClient, cluster: Cluster
) -> None:
    """The event passes by while no engine runs; the change is told when one has stored it."""
    async with engine_running(servers):
        workflow = await started(api, cluster)
    async with api.stream("GET", f"/api/workflow/{workflow}/watch") as answer:
        told = snapshots(answer.aiter_lines())
        assert (await anext(told))["status"] == "RUNNING"
        await finish(cluster, workflow)
        async with engine_running(servers):
            assert [snapshot async for snapshot in told][-1]["status"] == "COMPLETED"


async def test_the_story_of_a_workflow(
    api: httpx.AsyncClient, cluster: Cluster, engine: None
) -> None:
    workflow = await started(api, cluster)
    async with api.stream("GET", f"/api/workflow/{workflow}/events") as answer:
        lines = answer.aiter_lines()
        first = await anext(lines)
        assert first.endswith(f"Workflow {workflow} submitted by tester to pool default")
        await finish(cluster, workflow, 3)
        rest = [line async for line in lines]
    words = [line[20:] for line in rest]
    assert any(line.startswith("[only] RUNNING on node n") for line in words)
    assert any(line.startswith("[only] FAILED: exit code 3") for line in words)
    assert words[-1].startswith(f"Workflow {workflow} FAILED")
    whole = (await api.get(f"/api/workflow/{workflow}/events")).text.splitlines()
    assert whole == sorted(whole, key=lambda line: line[:19])
    only = await api.get(
        f"/api/workflow/{workflow}/events", params={"task_name": "only", "retry_id": 0}
    )
    assert all("[only]" in line for line in only.text.splitlines())
    none = await api.get(
        f"/api/workflow/{workflow}/events", params={"task_name": "only", "retry_id": 4}
    )
    assert none.text == ""


async def test_a_follower_who_leaves_is_noticed(
    servers: Servers, cluster: Cluster, engine: None, relay: None
) -> None:
    async with serving(servers, max_streams=3, keepalive_seconds=0.2) as api:
        workflow = await started(api, cluster)
        await cluster.say(log(workflow, "one"))
        for path in ("watch", "events", "logs"):
            url = f"/api/workflow/{workflow}/{path}"
            async with (
                api.stream("GET", url) as one,
                api.stream("GET", url) as two,
                api.stream("GET", url) as three,
            ):
                rest = [answer.aiter_raw() for answer in (one, two, three)]
                for part in rest:
                    await anext(part)
                full = await api.get(url)
                assert full.status_code == 503
                assert "3 streams are open" in full.json()["message"]
            async with asyncio.timeout(20):
                while True:
                    async with api.stream("GET", url) as answer:
                        if answer.status_code == 200:
                            break
        await finish(cluster, workflow)


async def test_streams_end_when_the_api_does(
    servers: Servers, cluster: Cluster, engine: None, relay: None
) -> None:
    service = ApiService(api_settings(servers))
    async with httpx.AsyncClient(timeout=30) as client:
        async with running(service):
            client.base_url = httpx.URL(f"http://127.0.0.1:{service.port}")
            workflow = await started(client, cluster)
            await cluster.say(log(workflow, "one"))
            streams = [
                client.stream("GET", f"/api/workflow/{workflow}/{path}")
                for path in ("watch", "events", "logs")
            ]
            answers = [await stream.__aenter__() for stream in streams]
            rest = [answer.aiter_raw() for answer in answers]
            for part in rest:
                await anext(part)
        async with asyncio.timeout(10):
            for part in rest:
                async for _ in part:
                    pass
        for stream in streams:
            await stream.__aexit__(None, None, None)
    await finish(cluster, workflow)


async def test_a_thousand_followers(
    servers: Servers, cluster: Cluster, engine: None, relay: None
) -> None:
    async with serving(servers) as api:
        workflow = await started(api, cluster)
        await cluster.say(log(workflow, "one"))
        following = asyncio.Semaphore(0)
        assert api.base_url.port is not None

        async def follow(path: str) -> str:
            # Not httpx, whose pool of a thousand connections is slower than what is tested.
            reader, writer = await asyncio.open_connection("127.0.0.1", api.base_url.port)
            request = f"GET /api/workflow/{workflow}/{path} HTTP/1.1\r\nHost: localhost\r\n\r\n"
            writer.write(request.encode())
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            text = await reader.readuntil(b"\r\n")
            following.release()
            text += await reader.readuntil(b"\r\n0\r\n\r\n")
            writer.close()
            await writer.wait_closed()
            return text.decode()

        threads = threading.active_count()
        paths = ["watch", "events", "logs", "logs"] * 250
        followers = [asyncio.create_task(follow(path)) for path in paths]
        async with asyncio.timeout(100):
            for _ in followers:
                await following.acquire()
            assert threading.active_count() - threads < 100
            await cluster.say(log(workflow, "two", first=1, final=True))
            await finish(cluster, workflow)
            texts = await asyncio.gather(*followers)
    for path, text in zip(paths, texts, strict=True):
        expected = {"watch": '"final":true', "events": "COMPLETED", "logs": "[only] two"}[path]
        assert expected in text
