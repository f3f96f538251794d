"""Dead letters over HTTP, with a real engine that puts them aside."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
from nats.js import JetStreamContext

from cairn_common.events.subjects import DEAD_LETTERS, FACTS
from integration.api.harness import Cluster, engine_running, fresh, spec, submit
from servers import Servers

PATH = "/api/dead-letters"


async def _letters(api: httpx.AsyncClient, count: int, **params: Any) -> Any:
    """The newest, once there are as many as that."""
    async with asyncio.timeout(20):
        while True:
            answer = (await api.get(PATH, params=params)).json()
            if len(answer["dead_letters"]) >= count:
                return answer
            await asyncio.sleep(0.05)


async def test_dead_letters_are_listed_shown_replayed_and_dropped(
    api: httpx.AsyncClient, cluster: Cluster, servers: Servers
) -> None:
    jetstream = cluster.harness.bus.jetstream
    # Other tests leave facts behind about workflows that no engine knows.
    for stream in (FACTS, DEAD_LETTERS):
        await jetstream.purge_stream(stream.name)
    async with engine_running(servers):
        await _put_aside_and_mended(api, jetstream)


async def _put_aside_and_mended(api: httpx.AsyncClient, jetstream: JetStreamContext) -> None:
    assert (await api.get(PATH)).json() == {"dead_letters": [], "more_entries": False}
    for body in (b"{not json", b"\xff\xfe", b"[]"):
        await jetstream.publish("task.finished.3.x-1", body, headers={"ce-id": "7"})
    answer = await _letters(api, 3)
    first, second, third = answer["dead_letters"]
    assert not answer["more_entries"]
    assert (first["service"], first["subject"]) == ("engine", "task.finished.3.x-1")
    assert "Invalid JSON" in first["reason"]
    assert first["size"] == 9

    page = (await api.get(PATH, params={"limit": 1, "before": third["id"]})).json()
    assert ([letter["id"] for letter in page["dead_letters"]], page["more_entries"]) == (
        [second["id"]],
        True,
    )
    whole = (await api.get(f"{PATH}/{first['id']}")).json()
    assert whole["body"] == "{not json"
    assert whole["headers"]["ce-id"] == "7"
    assert whole["complete"]
    assert not whole["base64"]
    binary = (await api.get(f"{PATH}/{second['id']}")).json()
    assert (binary["body"], binary["base64"]) == ("//4=", True)

    assert (await api.delete(f"{PATH}/{second['id']}")).status_code == 200
    missing = await api.delete(f"{PATH}/{second['id']}")
    assert (missing.status_code, missing.json()["error_code"]) == (400, "NOTFOUND")
    # It is as wrong as before, so it comes back under another number.
    assert (await api.post(f"{PATH}/{first['id']}/replay")).status_code == 200
    async with asyncio.timeout(20):
        while [x["id"] for x in (await _letters(api, 1))["dead_letters"]][-1] <= third["id"]:
            await asyncio.sleep(0.05)
    workflow = await submit(api, spec(fresh()))
    async with asyncio.timeout(20):
        while (await api.get(f"/api/workflow/{workflow}")).json()["status"] != "COMPLETED":
            await asyncio.sleep(0.05)


async def test_questions_about_dead_letters_that_cannot_be_answered(
    api: httpx.AsyncClient,
) -> None:
    assert (await api.get(f"{PATH}/999999999")).json()["error_code"] == "NOTFOUND"
    assert (await api.get(PATH, params={"limit": 0})).status_code == 400
    for path in (f"{PATH}/0", f"{PATH}/x", f"{PATH}?before=0"):
        assert (await api.get(path)).status_code == 422
