"""Submitting through HTTP: numbers, refusals, dry runs, hand-overs that get lost."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import asyncpg
import httpx
import pytest

from cairn_common.events import NodeInfo
from cairn_common.events.subjects import FACTS
from cairn_common.messaging import connect_bus
from cairn_common.spec import WorkflowSpec
from integration.api.harness import (
    GI,
    Cluster,
    engine_running,
    fresh,
    serving,
    spec,
    submit,
)
from servers import Servers


async def refused(
    api: httpx.AsyncClient, text: str, pool: str = "default", **params: Any
) -> dict[str, Any]:
    answer = await api.post(f"/api/pool/{pool}/workflow", json={"file": text}, params=params)
    assert answer.status_code == 400, answer.text
    body: dict[str, Any] = answer.json()
    assert body.keys() >= {"message", "error_code", "workflow_id"}
    return body


async def test_one_hundred_at_once_get_one_hundred_numbers(
    servers: Servers, api: httpx.AsyncClient, cluster: Cluster, engine: None
) -> None:
    name = fresh()
    text = spec(name)
    ids = await asyncio.gather(*(submit(api, text) for _ in range(100)))
    assert sorted(ids, key=lambda i: int(i.rpartition("-")[2])) == [
        f"{name}-{number}" for number in range(1, 101)
    ]
    await cluster.harness.wait(ids)
    assert {cluster.harness.finished[i].status for i in ids} == {"COMPLETED"}


async def test_what_is_stored_is_what_the_engine_reads(
    servers: Servers, api: httpx.AsyncClient, cluster: Cluster
) -> None:
    name = fresh()
    workflow = await submit(
        api, spec(name, "a", "b<a", labels="{team: x}"), label=["team=y", "k=v"], priority="LOW"
    )
    connection = await asyncpg.connect(servers.database_url)
    try:
        row = await connection.fetchrow(
            "SELECT * FROM api.view_submission WHERE workflow = $1", workflow
        )
        assert row is not None
        stored = WorkflowSpec.model_validate_json(row["spec"])
        assert [group.name for group in stored.all_groups] == ["a-group", "b-group"]
        assert stored.labels == {"team": "y", "k": "v"} == json.loads(row["labels"])
        assert (row["user_name"], row["pool"], row["priority"]) == ("tester", "default", "LOW")
        assert len(row["uuid"]) == 32
        assert row["traceparent"].startswith("00-")
    finally:
        await connection.close()


async def test_the_callers_trace_and_name_go_with_the_workflow(
    servers: Servers, api: httpx.AsyncClient, cluster: Cluster
) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    answer = await api.post(
        "/api/pool/default/workflow",
        json={"file": spec(fresh())},
        headers={"traceparent": trace, "x-osmo-user": "ada@example.org"},
    )
    workflow = answer.json()["name"]
    connection = await asyncpg.connect(servers.database_url)
    try:
        row = await connection.fetchrow(
            "SELECT * FROM api.view_submission WHERE workflow = $1", workflow
        )
        assert row is not None
        assert (row["traceparent"], row["user_name"]) == (trace, "ada@example.org")
    finally:
        await connection.close()


async def test_all_problems_of_a_file_come_with_their_places(api: httpx.AsyncClient) -> None:
    text = spec("bad", "a", "b<nobody").replace("image: ubuntu:24.04", "imege: x", 1)
    body = await refused(api, text)
    assert len(body["problems"]) >= 2
    assert {problem["path"] for problem in body["problems"]} >= {"workflow.tasks[1].inputs[0].task"}
    assert "imege" in body["message"]
    assert all(problem["line"] for problem in body["problems"])


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ("    checkpoint: [{path: /a, url: 'file:///c', frequency: 1m}]", "checkpoints"),
        ("    outputs: [{dataset: {name: d}}]", "dataset outputs"),
        ("    privileged: true", "privileged"),
        ("    hostNetwork: true", "host network"),
        ("    credentials: {c: /run/c}", "credentials"),
        ("    volumeMounts: [/opt]", "volume mounts"),
        ("    inputs: [{url: 's3://b/c'}]", "s3://"),
        ("    inputs: [{task: 'other-1:a'}]", "other workflows"),
    ],
)
async def test_what_is_not_executed_is_refused_by_name(
    api: httpx.AsyncClient, cluster: Cluster, fields: str, word: str
) -> None:
    body = await refused(api, spec(fresh()) + fields + "\n")
    assert word in body["message"]
    assert "not executed by this installation yet" in body["message"]


async def test_what_fits_no_node_is_refused_with_the_nodes(
    api: httpx.AsyncClient, cluster: Cluster
) -> None:
    huge = spec(fresh(), resources="{default: {cpu: 64}}")
    # The inventory reaches the API by an event.
    async with asyncio.timeout(20):
        while not (await api.get("/api/resources")).json()["resources"]:
            pass
    body = await refused(api, huge)
    assert body["error_code"] == "RESOURCE"
    assert "box" in body["message"]
    assert "cpu 64 <= 8" in body["message"]
    gpu = spec(fresh(), resources="{default: {gpu: 1}}")
    assert "GPUs are not executed" in (await refused(api, gpu))["message"]
    await cluster.has(NodeInfo(name="gpu", cpu=8, gpu=2, memory=16 * GI, storage=100 * GI))
    async with asyncio.timeout(20):
        while (await api.get("/api/resources/gpu")).status_code != 200:
            pass
    await submit(api, gpu)
    await cluster.has(NodeInfo(name="box", cpu=8, memory=16 * GI, storage=100 * GI))


async def test_dry_run_and_validation_store_nothing(
    api: httpx.AsyncClient, cluster: Cluster
) -> None:
    name = fresh()
    text = (
        spec(name).replace("hello", "'{{ word }}', '{{output}}'") + "default-values: {word: hi}\n"
    )
    dry = await api.post(
        "/api/pool/default/workflow",
        params={"dry_run": True},
        json={"file": text, "set_string_variables": ["word=ho"]},
    )
    assert dry.status_code == 200, dry.text
    assert "'ho', '{{output}}'" in dry.json()["spec"]
    assert "default-values" not in dry.json()["spec"]
    local = spec(name) + "    files: [{path: /tmp/x, localpath: x}]\n"
    dry = await api.post(
        "/api/pool/default/workflow", params={"dry_run": True}, json={"file": local}
    )
    assert dry.json()["spec"] == local
    await refused(api, local)
    valid = await api.post(
        "/api/pool/default/workflow", params={"validation_only": True}, json={"file": text}
    )
    assert valid.json()["logs"] == "Workflow validation succeeded."
    listed = await api.get("/api/workflow", params={"name": name})
    assert listed.json() == {"workflows": [], "more_entries": False}


async def test_an_earlier_workflow_is_submitted_again(
    api: httpx.AsyncClient, cluster: Cluster
) -> None:
    first = await submit(api, spec(fresh(), "a", "b<a"))
    again = await api.post(
        "/api/pool/default/workflow",
        params={"workflow_id": first, "env_vars": ["A=1"], "label": ["k=v"]},
    )
    assert again.json()["name"] == first.removesuffix("1") + "2"
    second = (await api.get(f"/api/workflow/{again.json()['name']}")).json()
    assert (second["parent_name"], second["parent_job_id"]) == (first[:-2], 1)
    assert second["labels"] == {"k": "v"}
    unknown = await api.post("/api/pool/default/workflow", params={"workflow_id": "nope-1"})
    assert unknown.json() == {
        "message": "Workflow nope-1 is not found.",
        "error_code": "DATABASE",
        "workflow_id": "nope-1",
    }


async def test_refusals_of_the_request_itself(api: httpx.AsyncClient) -> None:
    assert "Pool nopool not found." in (await refused(api, spec("x"), pool="nopool"))["message"]
    assert "not a label" in (await refused(api, spec("x"), label=["k"]))["message"]
    assert "app" in (await refused(api, spec("x"), app_uuid="u"))["message"]
    neither = await api.post("/api/pool/default/workflow")
    assert neither.status_code == 400
    wrong = await api.post(
        "/api/pool/default/workflow", json={"file": "x"}, params={"priority": "URGENT"}
    )
    assert wrong.status_code == 422
    assert wrong.json()["detail"][0]["loc"] == ["query", "priority"]
    nul = await api.post(
        "/api/pool/default/workflow",
        json={"file": spec("x"), "uploaded_templated_spec": "a\0b"},
    )
    assert nul.status_code == 400
    restart = await api.post("/api/pool/default/workflow/x-1/restart")
    assert restart.json()["message"] == "Workflow x-1 is not found."


async def test_a_submission_survives_a_bus_that_forgets_it(
    servers: Servers, cluster: Cluster
) -> None:
    """Submitted while no engine runs, and its event is lost: the sweep hands it over again."""
    async with serving(servers, handover_seconds=0.5) as api:
        bus = await connect_bus(servers.nats_url, "test")
        try:
            workflow = await submit(api, spec(fresh()))
            await bus.jetstream.purge_stream(FACTS.name)
            async with engine_running(servers):
                await cluster.harness.wait([workflow])
            assert cluster.harness.finished[workflow].status == "COMPLETED"
        finally:
            await bus.broker.stop()
        connection = await asyncpg.connect(servers.database_url)
        try:
            left = "SELECT count(*) FROM api.handover WHERE workflow = $1"
            async with asyncio.timeout(20):
                while await connection.fetchval(left, workflow):
                    pass
        finally:
            await connection.close()


async def test_a_cancel_survives_a_bus_that_forgets_it(servers: Servers, cluster: Cluster) -> None:
    name = fresh()
    cluster.codes[name, "only"] = None
    async with serving(servers, handover_seconds=0.5) as api:
        async with engine_running(servers):
            workflow = await submit(api, spec(name))
            async with asyncio.timeout(20):
                while (await api.get(f"/api/workflow/{workflow}")).json()["status"] != "RUNNING":
                    pass
        canceled = await api.post(f"/api/workflow/{workflow}/cancel", params={"force": True})
        assert canceled.status_code == 200
        bus = await connect_bus(servers.nats_url, "test")
        try:
            await bus.jetstream.purge_stream(FACTS.name)
        finally:
            await bus.broker.stop()
        async with engine_running(servers):
            await cluster.harness.wait([workflow])
    assert cluster.harness.finished[workflow].status == "FAILED_CANCELED"
