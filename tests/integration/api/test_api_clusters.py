"""A pool over two clusters as the API shows it, and what is ordered about clusters."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from cairn_common.events import ClusterHeartbeat, ClusterResources, NodeInfo
from cairn_common.pools import Platform, Pool, Queue, Share
from engine_harness import Harness
from integration.api.harness import GI, fresh, serving, spec
from servers import Servers

RUN = uuid.uuid4().hex[:8]
POOL, EAST, WEST = f"pool-{RUN}", f"east-{RUN}", f"west-{RUN}"
ROBOT = Platform(privileged_allowed=True, allowed_mounts=["/data"], default_cpu=4)


def node(name: str, **more: Any) -> NodeInfo:
    return NodeInfo(name=name, cpu=8, memory=16 * GI, storage=100 * GI, **more)


@pytest.fixture
async def two(servers: Servers, engine: None, api: httpx.AsyncClient) -> AsyncIterator[Harness]:
    """East has GPUs and a platform that allows much; west is plain and cannot do much."""
    async with Harness(
        servers.nats_url, servers.database_url, lambda _w, _t: None, cluster=EAST, pool=POOL
    ) as east:
        now = datetime.now(UTC)
        terms = Pool(
            description="for robots",
            platforms={"robot": ROBOT},
            queue=Queue(gpu=Share(guarantee=6)),
        )
        await east.say(
            ClusterResources(
                cluster=EAST,
                at=now,
                pools=[POOL],
                nodes=[node("n", gpu=8, used_gpu=4, platforms=["robot"], taints=["a=b:NoExecute"])],
                definitions={POOL: terms},
                features=["gpu", "platform", "privileged", "volume_mounts", "nodes_excluded"],
            ),
            ClusterResources(
                cluster=WEST,
                at=now,
                pools=[POOL],
                nodes=[node("n", used_cpu=2)],
                definitions={POOL: Pool()},
                features=[],
            ),
            *(ClusterHeartbeat(cluster=each, at=now, interval_seconds=60) for each in (EAST, WEST)),
        )
        await until(api, "/api/clusters", lambda answer: {EAST, WEST} <= _names(answer))
        yield east


def _names(answer: Any) -> set[str]:
    return {each["name"] for each in answer.get("clusters", ())}


async def until(api: httpx.AsyncClient, path: str, good: Callable[[Any], bool]) -> Any:
    """The answer once it is good."""
    async with asyncio.timeout(20):
        while not good(answer := (await api.get(path)).json()):
            await asyncio.sleep(0.05)
    return answer


async def judged(api: httpx.AsyncClient, text: str) -> str:
    """Empty if the workflow is accepted, else why not."""
    answer = await api.post(
        f"/api/pool/{POOL}/workflow", json={"file": text}, params={"validation_only": True}
    )
    return "" if answer.status_code == 200 else str(answer.json()["message"])


def asking(resource: str, **task: str) -> str:
    more = "".join(f"\n    {name}: {value}" for name, value in task.items())
    return spec(fresh(), "only", resources=f"{{default: {{{resource}}}}}").rstrip() + more + "\n"


async def test_pools_and_nodes_of_all_clusters(api: httpx.AsyncClient, two: Harness) -> None:
    answer = (await api.get("/api/pool", params={"pools": POOL})).json()["pools"][POOL]
    assert answer["backend"] == f"{EAST}, {WEST}"
    assert (answer["status"], answer["description"]) == ("ONLINE", "for robots")
    assert answer["platforms"]["robot"]["privileged_allowed"]
    use = (await api.get("/api/pool_quota", params={"pools": POOL})).json()
    (pool,) = [pool for nodes in use["node_sets"] for pool in nodes["pools"]]
    assert pool["resource_usage"] == {
        "quota_used": "4",
        "quota_free": "2",
        "quota_limit": "6",
        "total_usage": "4",
        "total_capacity": "8",
        "total_free": "4",
    }
    assert use["resource_sum"]["total_capacity"] == "8"
    nodes = (await api.get("/api/resources", params={"pools": POOL})).json()["resources"]
    assert [(each["backend"], each["hostname"]) for each in nodes] == [(EAST, "n"), (WEST, "n")]
    assert nodes[0]["config_fields"][POOL]["robot"]["allowed_mounts"] == ["/data"]
    assert nodes[0]["taints"] == [{"key": "a", "value": "b", "effect": "NoExecute"}]


async def test_a_submission_is_checked_against_all_clusters(
    api: httpx.AsyncClient, two: Harness
) -> None:
    assert await judged(api, asking("cpu: 8")) == ""
    assert await judged(api, asking("gpu: 6", privileged="true", volumeMounts="[/data/x]")) == ""
    assert "gpu 16 <= 8" in await judged(api, asking("gpu: 16"))
    assert "does not allow mount: /opt" in await judged(
        api, asking("gpu: 1", volumeMounts="[/opt]")
    )
    assert "tasks on the host network are not executed" in await judged(
        api, asking("cpu: 1", hostNetwork="true")
    )
    assert "Platform nope does not exist" in await judged(api, asking("platform: nope"))


async def test_draining_resuming_and_removing(
    servers: Servers, api: httpx.AsyncClient, two: Harness
) -> None:
    text = asking("gpu: 1")
    answer = await api.post(f"/api/pool/{POOL}/workflow", json={"file": text})
    name = answer.json()["name"]
    shown = await until(api, f"/api/clusters/{EAST}", lambda each: each["tasks"] == {"RUNNING": 1})
    assert (shown["state"], shown["status"], shown["gpu"]) == ("ACTIVE", "ONLINE", 8)
    refused = await api.delete(f"/api/clusters/{EAST}")
    assert refused.status_code == 400
    assert "1 tasks are open in cluster" in refused.json()["message"]
    for cluster in (EAST, WEST):
        drained = await api.post(f"/api/clusters/{cluster}/drain")
        assert drained.json()["state"] == "DRAINING"
    path = f"/api/pool?pools={POOL}"
    await until(api, path, lambda each: each["pools"][POOL]["status"] == "MAINTENANCE")
    assert (await api.post(f"/api/clusters/{EAST}/resume")).json()["state"] == "ACTIVE"
    await until(api, path, lambda each: each["pools"][POOL]["status"] == "ONLINE")
    assert (await api.delete(f"/api/clusters/{WEST}")).status_code == 200
    await until(api, "/api/clusters", lambda answer: WEST not in _names(answer))
    assert (await api.get(f"/api/clusters/{WEST}")).json()["error_code"] == "NOTFOUND"
    await until(api, path, lambda each: each["pools"][POOL]["backend"] == EAST)
    # An API that starts now knows no more of it, although its last word is still in the stream.
    async with serving(servers) as other:
        pools = (await other.get(path)).json()["pools"]
        assert pools[POOL]["backend"] == EAST
    assert (await api.post(f"/api/workflow/{name}/cancel")).status_code == 200


async def test_a_cluster_that_nobody_knows(api: httpx.AsyncClient, engine: None) -> None:
    for answer in (
        await api.get("/api/clusters/nope"),
        await api.post("/api/clusters/nope/drain"),
        await api.delete("/api/clusters/nope"),
    ):
        assert answer.json()["message"] == "Cluster nope is not found."
