"""KAI Scheduler is real: it places gangs, holds them back with a reason, and preempts."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from kubernetes_asyncio.client import ApiClient
from testcluster.cluster import Cluster
from testcluster.kai import GROUP_ANNOTATION, ROOT_QUEUE, priority_class, queue
from testcluster.kubeapi import create_all, request, until
from testcluster.nodes import RACK
from testcluster.reached import Reached
from testcluster.workloads import gang, pod

FOREVER = {"run": "forever"}


async def pods_of(api: ApiClient, namespace: str, group: str = "") -> list[dict[str, Any]]:
    found = (await request(api, "GET", f"/api/v1/namespaces/{namespace}/pods"))["items"]
    return [one for one in found if one["metadata"]["name"].startswith(group)]


async def group_of(api: ApiClient, namespace: str, name: str) -> dict[str, Any]:
    path = f"/apis/scheduling.run.ai/v2alpha2/namespaces/{namespace}/podgroups/{name}"
    return dict(await request(api, "GET", path))


async def placed(api: ApiClient, namespace: str, group: str, count: int) -> list[dict[str, Any]]:
    """The group's pods, once all have a node."""

    async def probe() -> list[dict[str, Any]] | None:
        pods = await pods_of(api, namespace, group)
        bound = [one for one in pods if one["spec"].get("nodeName")]
        return pods if len(bound) == count else None

    return await until(probe, f"all {count} pods of {group} are placed")


async def reason(api: ApiClient, namespace: str, group: str) -> Mapping[str, Any]:
    """Why the group waits: KAI's condition on its PodGroup."""

    async def probe() -> Mapping[str, Any] | None:
        status = (await group_of(api, namespace, group)).get("status") or {}
        conditions = status.get("schedulingConditions") or [None]
        return conditions[0]

    return await until(probe, f"KAI says why {group} waits")


async def events(api: ApiClient, namespace: str, why: str) -> list[dict[str, Any]]:
    found = await request(
        api,
        "GET",
        f"/api/v1/namespaces/{namespace}/events",
        query={"fieldSelector": f"reason={why}"},
    )
    return list(found["items"])


@pytest.fixture
async def api(north: Reached) -> AsyncIterator[ApiClient]:
    async with north.api() as client:
        yield client


@asynccontextmanager
async def made_queue(api: ApiClient, **gpu: int) -> AsyncIterator[str]:
    """A queue below the root queue, once KAI counts it among the root's children."""
    name = f"test-{secrets.token_hex(3)}"
    await create_all(api, [queue(name, gpu=gpu)])

    async def known() -> bool:
        root = await request(api, "GET", f"/apis/scheduling.run.ai/v2/queues/{ROOT_QUEUE}")
        return name in ((root.get("status") or {}).get("childQueues") or [])

    await until(known, f"KAI knows the queue {name}")
    try:
        yield name
    finally:
        await request(api, "DELETE", f"/apis/scheduling.run.ai/v2/queues/{name}")


@pytest.fixture
async def eight_gpus(api: ApiClient) -> AsyncIterator[str]:
    """A queue that may use 8 GPUs, and is guaranteed them."""
    async with made_queue(api, quota=8, limit=8) as name:
        yield name


@pytest.fixture
def group() -> str:
    """The name of a group. KAI knows groups by their names alone, whatever their namespaces."""
    return f"gang-{secrets.token_hex(3)}"


async def test_a_gang_is_placed_and_runs(api: ApiClient, namespace: str, group: str) -> None:
    await create_all(api, gang(namespace, group, 4, cpu="50m", memory="16Mi"))
    await placed(api, namespace, group, 4)

    async def succeeded() -> bool:
        pods = await pods_of(api, namespace, group)
        return all(one["status"]["phase"] == "Succeeded" for one in pods)

    await until(succeeded, "the gang ran", seconds=120)


async def test_nothing_is_placed_before_the_gang_is_complete(
    api: ApiClient, namespace: str, group: str
) -> None:
    first, *pods = gang(namespace, group, 3, cpu="50m", memory="16Mi")
    await create_all(api, [first, *pods[:2]])

    async def told() -> list[dict[str, Any]]:
        return await events(api, namespace, "NotReady")

    [event, *_] = await until(told, "KAI says that pods are missing")
    assert "Waiting for 3 pods" in event["message"]
    assert all("nodeName" not in one["spec"] for one in await pods_of(api, namespace))
    await create_all(api, pods[2:])
    await placed(api, namespace, group, 3)


async def test_a_gang_that_does_not_fit_waits_whole_and_says_why(
    api: ApiClient, namespace: str, group: str
) -> None:
    fits, *_ = pods = gang(namespace, group, 2, cpu="50m", memory="16Mi")
    pods[-1]["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "100k"}}
    await create_all(api, [fits, *pods[1:]])
    condition = await reason(api, namespace, group)
    assert condition["type"] == "UnschedulableOnNodePool"
    assert condition["status"] == "True"
    assert "2 are required for gang scheduling" in condition["message"]
    assert "CPU" in condition["message"]
    assert all("nodeName" not in one["spec"] for one in await pods_of(api, namespace))


async def test_a_queue_at_its_limit_is_named(
    api: ApiClient, namespace: str, group: str, eight_gpus: str
) -> None:
    await create_all(api, gang(namespace, group, 2, queue=eight_gpus, gpus=8))
    condition = await reason(api, namespace, group)
    [explanation] = condition["reasons"]
    assert explanation["reason"] == "OverLimit"
    assert explanation["details"]["queueDetails"]["name"] == eight_gpus
    assert eight_gpus in explanation["message"]


async def test_what_cannot_be_preempted_stays_within_the_quota(
    api: ApiClient, namespace: str, group: str
) -> None:
    async with made_queue(api, quota=0, limit=-1) as name:
        await create_all(
            api, gang(namespace, group, 1, queue=name, gpus=1, priority_class="inference")
        )
        condition = await reason(api, namespace, group)
    assert [one["reason"] for one in condition["reasons"]] == ["NonPreemptibleOverQuota"]


@pytest.mark.simulator
async def test_a_higher_priority_preempts_a_lower(
    api: ApiClient, namespace: str, group: str, eight_gpus: str
) -> None:
    await create_all(api, [priority_class("test-high", 90)])
    await create_all(api, gang(namespace, f"low-{group}", 2, queue=eight_gpus, gpus=4, sim=FOREVER))
    await placed(api, namespace, f"low-{group}", 2)
    high = gang(
        namespace,
        f"high-{group}",
        1,
        queue=eight_gpus,
        gpus=8,
        priority_class="test-high",
        sim=FOREVER,
    )
    await create_all(api, high)
    await placed(api, namespace, f"high-{group}", 1)
    assert await pods_of(api, namespace, f"low-{group}") == []
    evictions = await events(api, namespace, "Evict")
    assert {one["involvedObject"]["name"] for one in evictions} == {f"low-{group}"}
    assert {one["involvedObject"]["kind"] for one in evictions} == {"PodGroup"}
    told = evictions[0]["metadata"]["annotations"]
    assert told["evictor-action-type"] == "preempt"
    assert told["evictor-pod-group-name"] == f"high-{group}"


@pytest.mark.simulator
async def test_the_same_priority_preempts_nothing(
    api: ApiClient, namespace: str, group: str, eight_gpus: str
) -> None:
    await create_all(
        api, gang(namespace, f"first-{group}", 1, queue=eight_gpus, gpus=8, sim=FOREVER)
    )
    [first] = await placed(api, namespace, f"first-{group}", 1)
    await create_all(
        api, gang(namespace, f"second-{group}", 1, queue=eight_gpus, gpus=8, sim=FOREVER)
    )
    await reason(api, namespace, f"second-{group}")
    [still] = await pods_of(api, namespace, f"first-{group}")
    assert still["metadata"]["uid"] == first["metadata"]["uid"]


@pytest.mark.simulator
async def test_a_required_topology_level_holds_a_gang_together(
    simulated: Cluster, api: ApiClient, namespace: str, group: str
) -> None:
    await create_all(
        api,
        [
            {
                "apiVersion": "kai.scheduler/v1alpha1",
                "kind": "Topology",
                "metadata": {"name": "racks"},
                "spec": {"levels": [{"nodeLabel": RACK}, {"nodeLabel": "kubernetes.io/hostname"}]},
            }
        ],
    )
    together = {"topologyConstraint": {"topology": "racks", "requiredTopologyLevel": RACK}}
    await create_all(api, gang(namespace, group, 2, gpus=8, group_spec=together, sim=FOREVER))
    pods = await placed(api, namespace, group, 2)
    nodes = (await request(api, "GET", "/api/v1/nodes"))["items"]
    racks = {one["metadata"]["name"]: one["metadata"]["labels"].get(RACK) for one in nodes}
    assert len({one["spec"]["nodeName"] for one in pods}) == 2
    assert len({racks[one["spec"]["nodeName"]] for one in pods}) == 1


@pytest.mark.simulator
async def test_every_sub_group_must_reach_its_minimum(
    api: ApiClient, namespace: str, group: str
) -> None:
    sub_groups = [{"name": "actors", "minMember": 1}, {"name": "learners", "minMember": 2}]
    made_of, *_ = gang(namespace, group, 3, group_spec={"subGroups": sub_groups})
    await create_all(
        api,
        [
            made_of,
            pod(namespace, f"{group}-0", group=group, subgroup="actors"),
            pod(namespace, f"{group}-1", group=group, subgroup="learners"),
        ],
    )

    async def told() -> list[dict[str, Any]]:
        return await events(api, namespace, "NotReady")

    [event, *_] = await until(told, "KAI says that a sub-group is incomplete")
    assert "SubGroup learners" in event["message"]
    await create_all(api, [pod(namespace, f"{group}-2", group=group, subgroup="learners")])
    await placed(api, namespace, group, 3)


@pytest.mark.simulator
async def test_the_podgrouper_takes_an_owned_pod_out_of_its_gang(
    api: ApiClient, namespace: str, group: str
) -> None:
    """Why pods of a gang that we make must not carry owner references."""
    made_of, *_ = gang(namespace, group, 1)
    await create_all(api, [made_of])
    made = await group_of(api, namespace, group)
    owner = {
        "apiVersion": made["apiVersion"],
        "kind": made["kind"],
        "name": group,
        "uid": made["metadata"]["uid"],
    }
    await create_all(
        api,
        [
            pod(namespace, f"{group}-owned", group=group, owner=owner, sim=FOREVER),
            pod(namespace, f"{group}-free", group=group, sim=FOREVER),
        ],
    )

    async def regrouped() -> bool:
        by_name = {one["metadata"]["name"]: one for one in await pods_of(api, namespace)}
        return by_name[f"{group}-owned"]["metadata"]["annotations"][GROUP_ANNOTATION] != group

    await until(regrouped, "the podgrouper overwrites the group of the owned pod")
    by_name = {one["metadata"]["name"]: one for one in await pods_of(api, namespace)}
    assert by_name[f"{group}-free"]["metadata"]["annotations"][GROUP_ANNOTATION] == group
