"""Looking at workflows and tasks through HTTP, in the reference's JSON."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import asyncpg
import httpx

from cairn_common.events import NodeInfo
from integration.api.harness import GI, Cluster, fresh, serving, spec, submit
from servers import Servers


async def test_a_finished_workflow_in_full(
    api: httpx.AsyncClient, cluster: Cluster, engine: None
) -> None:
    name = fresh()
    cluster.codes[name, "b"] = 3
    text = spec(name, "a", "b<a", "c<b")
    workflow = await submit(api, text)
    before = (await api.get(f"/api/workflow/{workflow}")).json()
    assert before["status"] in {"PENDING", "RUNNING", "FAILED"}
    await cluster.harness.wait([workflow])
    found = (await api.get(f"/api/workflow/{workflow}")).json()
    assert found["status"] == "FAILED"
    assert found["name"] == workflow
    assert found["submitted_by"] == "tester"
    assert (found["pool"], found["backend"]) == ("default", "local")
    assert found["plugins"] == {"rsync": False}
    assert found["logs"].endswith(f"/api/workflow/{workflow}/logs")
    assert [(g["name"], g["status"]) for g in found["groups"]] == [
        ("a-group", "COMPLETED"),
        ("b-group", "FAILED"),
        ("c-group", "FAILED_UPSTREAM"),
    ]
    assert found["groups"][0]["downstream_groups"] == ["b-group"]
    assert found["groups"][2]["remaining_upstream_groups"] == ["b-group"]
    task = found["groups"][1]["tasks"][0]
    assert (task["name"], task["retry_id"], task["exit_code"], task["lead"]) == ("b", 0, 3, True)
    # The reference's client reads times in this form only.
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?", found["submit_time"])
    assert found["duration"] >= 0
    assert found["queued_time"] >= 0
    assert (await api.get(f"/api/workflow/{workflow}", params={"skip_groups": True})).json()[
        "groups"
    ] == []
    verbose = (await api.get(f"/api/workflow/{workflow}", params={"verbose": True})).json()
    assert verbose["spec"] == text
    assert (await api.get(f"/api/workflow/{workflow}/spec")).text == text
    one = (await api.get(f"/api/workflow/{workflow}/task/b")).json()
    assert (one["status"], one["cpu"], one["memory"]) == ("FAILED", 1, 1.0)
    canceled = await api.post(f"/api/workflow/{workflow}/cancel")
    assert canceled.status_code == 400
    assert "has already finished with status FAILED" in canceled.json()["message"]


async def test_lists_and_their_filters(api: httpx.AsyncClient, cluster: Cluster) -> None:
    stem = fresh()
    mine = [await submit(api, spec(f"{stem}-m"), label=["team=vision_a"]) for _ in range(3)]
    other = await api.post(
        "/api/pool/default/workflow",
        json={"file": spec(f"{stem}-o")},
        params={"priority": "HIGH", "label": ["team=planning"]},
        headers={"x-osmo-user": "other"},
    )
    theirs = other.json()["name"]

    async def listed(**params: Any) -> list[str]:
        answer = await api.get("/api/workflow", params={"name": stem, **params})
        assert answer.status_code == 200, answer.text
        return [entry["name"] for entry in answer.json()["workflows"]]

    assert await listed() == mine
    assert await listed(order="DESC") == mine[::-1]
    assert await listed(all_users=True) == [*mine, theirs]
    assert await listed(users=["other"]) == [theirs]
    assert await listed(all_users=True, priority=["HIGH"]) == [theirs]
    assert await listed(limit=2) == mine[1:]
    assert await listed(limit=2, offset=2) == mine[:1]
    assert await listed(statuses=["PENDING"]) == mine
    assert await listed(statuses=["COMPLETED"]) == []
    assert await listed(pools=["elsewhere"]) == []
    everybody = {"all_users": True}
    assert await listed(label=["team=(vision_*|nobody)"], **everybody) == mine
    assert await listed(label=["team=planning"], **everybody) == [theirs]
    assert await listed(no_label=["team"], **everybody) == []
    assert await listed(submitted_after="2100-01-01T00:00:00") == []
    assert await listed(submitted_before="2100-01-01T00:00:00") == mine
    page = (await api.get("/api/workflow", params={"name": stem, "limit": 2})).json()
    assert page["more_entries"] is True
    assert (await api.get("/api/workflow", params={"name": stem, "limit": 3})).json()[
        "more_entries"
    ] is False
    tagged = await api.post(f"/api/workflow/{mine[0]}/tag", params={"add": [stem, "x"]})
    assert tagged.json() == {"tags": sorted([stem, "x"])}
    assert await listed(tags=[stem]) == mine[:1]
    assert stem in (await api.get("/api/tag")).json()["tags"]
    await api.post(f"/api/workflow/{mine[0]}/tag", params={"remove": [stem]})
    assert await listed(tags=[stem]) == []


async def test_names_are_literal_in_filters(api: httpx.AsyncClient, cluster: Cluster) -> None:
    await submit(api, spec(fresh()))
    for name in ("%", "_%", "w%-1", "\\"):
        answer = await api.get("/api/workflow", params={"name": name})
        assert answer.json()["workflows"] == []
    answer = await api.get("/api/workflow", params={"name": "a\0b"})
    assert answer.status_code == 400


async def test_refusals(api: httpx.AsyncClient) -> None:
    for path in ("", "/spec", "/logs", "/events", "/watch", "/error_logs", "/task/t"):
        answer = await api.get(f"/api/workflow/nope-1{path}")
        assert (answer.status_code, answer.json()) == (
            400,
            {
                "message": "Workflow nope-1 is not found.",
                "error_code": "DATABASE",
                "workflow_id": "nope-1",
            },
        )
    assert (await api.get("/api/workflow/no*pe.>")).json()["error_code"] == "DATABASE"
    limit = await api.get("/api/workflow", params={"limit": 1001})
    assert limit.json()["message"] == "Limit must be less than 1000."
    assert (await api.get("/api/workflow", params={"limit": -1})).status_code == 400
    assert (await api.get("/api/workflow", params={"statuses": "BORED"})).status_code == 422
    nowhere = await api.get("/api/nowhere")
    assert (nowhere.status_code, nowhere.json()["error_code"]) == (404, "NOTFOUND")


async def test_tasks_and_their_sums(api: httpx.AsyncClient, cluster: Cluster, engine: None) -> None:
    name = fresh()
    text = spec(name, "a", "b", resources="{default: {cpu: 2}, big: {cpu: 4, memory: 8Gi}}")
    workflow = await submit(api, text + "    resource: big\n")
    await cluster.harness.wait([workflow])
    tasks = (await api.get("/api/task", params={"workflow_id": workflow})).json()["tasks"]
    assert {(t["task_name"], t["cpu"], t["memory"]) for t in tasks} == {
        ("a", 2, 1.0),
        ("b", 4, 8.0),
    }
    assert {t["status"] for t in tasks} == {"COMPLETED"}
    none = await api.get(
        "/api/task", params={"workflow_id": workflow, "statuses": ["RUNNING", "FAILED"]}
    )
    assert none.json()["tasks"] == []
    sums = await api.get(
        "/api/task", params={"workflow_id": workflow, "aggregate_by_workflow": True}
    )
    (total,) = sums.json()["summaries"]
    assert (total["workflow_id"], total["cpu"], total["memory"]) == (workflow, 6, 9.0)
    assert "cpu" in (await api.get("/api/task", params={"summary": True})).text


async def test_a_cancel_is_handed_over(
    api: httpx.AsyncClient, cluster: Cluster, engine: None
) -> None:
    name = fresh()
    cluster.codes[name, "only"] = None
    workflow = await submit(api, spec(name))
    async with asyncio.timeout(20):
        while (await api.get(f"/api/workflow/{workflow}")).json()["status"] != "RUNNING":
            pass
    answer = await api.post(f"/api/workflow/{workflow}/cancel", params={"message": "enough"})
    assert answer.json() == {"name": workflow}
    await cluster.harness.wait([workflow])
    found = (await api.get(f"/api/workflow/{workflow}")).json()
    assert found["status"] == "FAILED_CANCELED"
    assert found["cancelled_by"] == "tester"
    assert "enough" in found["failure_message"]


async def test_pools_nodes_and_profile(api: httpx.AsyncClient, cluster: Cluster) -> None:
    async with asyncio.timeout(20):
        while (await api.get("/api/resources/box")).status_code != 200:
            pass
    pools = (await api.get("/api/pool")).json()["pools"]
    assert pools["default"]["status"] == "ONLINE"
    assert pools["default"]["backend"] == "local"
    quota = (await api.get("/api/pool_quota")).json()
    assert quota["node_sets"][0]["pools"][0]["name"] == "default"
    assert quota["resource_sum"]["total_capacity"] == "0"
    (node,) = (await api.get("/api/resources")).json()["resources"]
    assert node["exposed_fields"]["pool/platform"] == ["default/default"]
    assert node["allocatable_fields"]["memory"] == f"{16 * GI >> 10}Ki"
    assert (await api.get("/api/resources", params={"platforms": ["x"]})).json()["resources"] == []
    assert (await api.get("/api/resources/nope")).status_code == 400
    await cluster.has(NodeInfo(name="box", cpu=8, memory=16 * GI, storage=100 * GI))

    user = {"x-osmo-user": fresh("user")}
    profile = (await api.get("/api/profile/settings", headers=user)).json()
    assert profile["profile"]["pool"] == "default"
    assert profile["pools"] == ["default"]
    answer = await api.post(
        "/api/profile/settings", headers=user, json={"email_notification": True}
    )
    assert answer.status_code == 200
    await api.post("/api/profile/settings", headers=user, json={"pool": "default"})
    profile = (await api.get("/api/profile/settings", headers=user)).json()["profile"]
    assert (profile["pool"], profile["email_notification"]) == ("default", True)
    nowhere = await api.post("/api/profile/settings", headers=user, json={"pool": "nowhere"})
    assert nowhere.json()["message"] == "Pool nowhere not found."


async def test_before_the_first_engine(servers: Servers) -> None:
    """On a database that no engine has touched, submissions are taken and reads say what is up."""
    name = fresh("db")
    connection = await asyncpg.connect(servers.database_url)
    await connection.execute(f'CREATE DATABASE "{name}"')
    url = servers.database_url.replace("/cairn?", f"/{name}?")
    try:
        async with serving(servers, database_url=url) as api:
            workflow = await submit(api, spec(fresh()))
            answer = await api.get(f"/api/workflow/{workflow}")
            assert answer.status_code == 503
            assert "engine has not started" in answer.json()["message"]
            assert (await api.get(f"/api/workflow/{workflow}/spec")).status_code == 200
            assert (await api.get("/health")).json() == {"status": "OK"}
            ready = await api.get("/api/ready")
            assert ready.status_code == 503
            assert ready.json()["engine"] == "no engine answers"
            assert ready.json()["database"] == ready.json()["nats"] == "OK"
    finally:
        await connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
        await connection.close()


async def test_ready_with_an_engine(api: httpx.AsyncClient, engine: None) -> None:
    answer = await api.get("/api/ready")
    assert answer.status_code == 200, answer.text
    version = (await api.get("/api/version")).json()
    assert (version["major"], version["minor"]) == ("6", "4")
    assert version["hash"].startswith("cairn-")
