"""One pool over two clusters: where work goes, and what becomes of it when a cluster leaves.

In `wide` the north has more room, so what fits both goes there; its queue lets two GPUs of it run
at a time, and the engine does not know how long the queue is.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import pytest
from stories import attempts, fates, gang, until_says
from testcluster.kubeapi import until
from testcluster.reached import Reached
from whole_system import EDGE, GPU, Cairn, Pools, running_cairn

from cairn_bridge.cluster import AttemptKey, Fact
from cairn_bridge.drivers.kubernetes import Api, KubernetesDriver, Site
from cairn_common.events import GroupPlacement, LogLine, TaskPlacement
from cairn_common.pools import ClusterPools

POOLS: Pools = {
    "north": {
        "wide": {
            "queue": {"gpu": {"guarantee": 2, "maximum": 2}},
            "platforms": {"any": GPU},
            "default_platform": "any",
        }
    },
    "south": {
        "wide": {"platforms": {"any": EDGE, "jetson": EDGE}, "default_platform": "any"},
    },
}
ONE_GPU = {"gpu": 1}
LOST_SECONDS = 18.0
ORPHAN_SECONDS = 4.0

pytestmark = [pytest.mark.simulator, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def cairn(clusters: Sequence[Reached], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cairn]:
    """A system that calls a cluster silent after eight seconds."""
    with running_cairn(
        clusters,
        tmp_path_factory.mktemp("spanning"),
        POOLS,
        CAIRN_HEARTBEAT_SECONDS="1",
        CAIRN_MISSED_BEATS="8",
        CAIRN_CLUSTER_LOST_SECONDS=f"{LOST_SECONDS:g}",
        CAIRN_ORPHAN_SECONDS=f"{ORPHAN_SECONDS:g}",
    ) as cairn:
        yield cairn


@contextlib.asynccontextmanager
async def made_pods(cairn: Cairn) -> AsyncIterator[list[str]]:
    """The pods that are made in both clusters; attempts that are the same have the same name."""
    made: list[str] = []
    async with cairn.made_pods("north", made), cairn.made_pods("south", made):
        yield made


async def both_busy(cairn: Cairn, run: str) -> tuple[str, str]:
    """A workflow that runs in the north, and one that is queued there behind it."""
    running = await asyncio.to_thread(cairn.submit, gang("running", 2, ONE_GPU, run=run))
    await asyncio.to_thread(cairn.wait, running, lambda status: status == "RUNNING")
    await in_cluster(cairn, "north", running)
    queued = await asyncio.to_thread(cairn.submit, gang("queued", 1, ONE_GPU))
    await asyncio.to_thread(until_says, cairn, queued, "waiting: queue wide at its limit")
    await in_cluster(cairn, "north", queued)
    return running, queued


async def in_cluster(cairn: Cairn, cluster: str, workflow: str, task: str = "t0") -> dict[str, Any]:
    """The pod of a task, which is in this cluster."""
    return await cairn.pod_of(cluster, workflow, task)


async def empty(cairn: Cairn, cluster: str) -> None:
    """Returns once no pod of Cairn's is in a cluster."""

    async def gone() -> bool:
        return not await cairn.pods(cluster)

    await until(gone, f"no pod is left in {cluster}", seconds=60, pause=0.5)


def nodes_of(cairn: Cairn, workflow: str) -> set[str]:
    """The kinds of node on which the newest attempts of a workflow's tasks were."""
    return {task["node_name"].partition("-")[0] for task in cairn.tasks(workflow).values()}


def state_of(cairn: Cairn, cluster: str) -> str | None:
    """What is wanted of a cluster; None if it is not registered."""
    found = cairn.json("cluster", "list")["clusters"]
    return next((each["state"] for each in found if each["name"] == cluster), None)


def until_state(cairn: Cairn, cluster: str, state: str) -> None:
    """Returns once a cluster is in this state and heard of."""
    deadline = time.monotonic() + 60
    while True:
        found = cairn.json("cluster", "list")["clusters"]
        if any((each["name"], each["state"]) == (cluster, state) for each in found):
            return
        assert time.monotonic() < deadline, found
        time.sleep(0.2)


def test_a_group_goes_to_the_cluster_that_has_room_for_it(cairn: Cairn) -> None:
    large = cairn.submit(gang("large", 2, {"cpu": 16}))  # an edge node has 12 cores
    jetson = cairn.submit(gang("jetson", 1, {"platform": "jetson", "gpu": 1}))
    for name, node in ((large, "gpu"), (jetson, "edge")):
        assert cairn.finish(name) == "COMPLETED", cairn.story(name)
        assert nodes_of(cairn, name) == {node}, cairn.story(name)


def test_what_fits_neither_cluster_is_refused_with_the_reason_of_each(cairn: Cairn) -> None:
    file = cairn.home / "neither.yaml"
    file.write_text(gang("neither", 1, {"cpu": 16, "platform": "jetson"}))
    words = cairn.cairn("workflow", "submit", str(file), code=1)
    assert "cpu 16 <= 12" in words, words


async def test_a_draining_cluster_ends_what_runs_and_gives_up_what_is_queued(
    cairn: Cairn,
) -> None:
    running, queued = await both_busy(cairn, run="forever")
    text = await asyncio.to_thread(cairn.cairn, "cluster", "drain", "north")
    assert "State: DRAINING" in text
    assert await asyncio.to_thread(cairn.finish, queued) == "COMPLETED", cairn.story(queued)
    assert fates(cairn, queued) == Counter([("t0", 0, "RESCHEDULED"), ("t0", 1, "COMPLETED")])
    assert nodes_of(cairn, queued) == {"edge"}
    moved = next(each for each in attempts(cairn, queued) if each["retry_id"] == 0)
    assert moved["failure_message"] == "moved from cluster north to cluster south"
    later = await asyncio.to_thread(cairn.submit, gang("later", 2))
    assert await asyncio.to_thread(cairn.finish, later) == "COMPLETED", cairn.story(later)
    assert nodes_of(cairn, later) == {"edge"}
    assert fates(cairn, running) == Counter([("t0", 0, "RUNNING"), ("t1", 0, "RUNNING")])
    words = await asyncio.to_thread(cairn.cairn, "cluster", "remove", "north", code=2)
    assert "2 tasks are open in cluster north" in words
    await asyncio.to_thread(cairn.cairn, "workflow", "cancel", running)
    assert await asyncio.to_thread(cairn.finish, running) == "FAILED_CANCELED"
    await empty(cairn, "north")
    cairn.cairn("cluster", "resume", "north")
    back = await asyncio.to_thread(cairn.submit, gang("back"))
    assert await asyncio.to_thread(cairn.finish, back) == "COMPLETED"
    assert nodes_of(cairn, back) == {"gpu"}


async def test_what_a_silent_cluster_has_moves_or_is_lost_in_time_and_is_dropped_when_it_returns(
    cairn: Cairn,
) -> None:
    async with made_pods(cairn) as made:
        running, queued = await both_busy(cairn, run="forever")
        cairn.stop_service("bridge-north")
        killed = time.monotonic()
        assert await asyncio.to_thread(cairn.finish, queued) == "COMPLETED", cairn.story(queued)
        assert nodes_of(cairn, queued) == {"edge"}
        if time.monotonic() - killed < LOST_SECONDS:  # else this machine is too slow to see it
            assert fates(cairn, running) == Counter([("t0", 0, "RUNNING"), ("t1", 0, "RUNNING")])
        lost = Counter((task, 0, "RESCHEDULED") for task in ("t0", "t1"))
        again = Counter((task, 1, "RUNNING") for task in ("t0", "t1"))
        while (seen := fates(cairn, running)) != lost + again:
            assert time.monotonic() - killed < 120, seen
            await asyncio.sleep(0.2)
        assert time.monotonic() - killed > LOST_SECONDS
        assert nodes_of(cairn, running) == {"edge"}
        for attempt in attempts(cairn, running):
            if attempt["retry_id"] == 0:
                assert "cluster north is lost" in attempt["failure_message"]
        # The pods there run on, since nobody can stop them; when the bridge is back, they go.
        assert (await in_cluster(cairn, "north", running))["status"]["phase"] == "Running"
        cairn.start_bridge("north")
        await empty(cairn, "north")
        assert fates(cairn, running) == lost + again
        await asyncio.to_thread(cairn.cairn, "workflow", "cancel", running)
        assert await asyncio.to_thread(cairn.finish, running) == "FAILED_CANCELED"
        await empty(cairn, "south")
    assert len(made) == len(set(made)) == 6, made  # three tasks, each with two attempts


async def test_a_cluster_that_is_removed_by_force_loses_what_runs_there_at_once(
    cairn: Cairn,
) -> None:
    running = await asyncio.to_thread(cairn.submit, gang("removed", 2, ONE_GPU, run="forever"))
    await asyncio.to_thread(cairn.wait, running, lambda status: status == "RUNNING")
    await in_cluster(cairn, "north", running)
    cairn.stop_service("bridge-north")
    cairn.cairn("cluster", "remove", "north", "--force")
    assert state_of(cairn, "north") in {None, "REMOVED"}
    lost = Counter((task, 0, "RESCHEDULED") for task in ("t0", "t1"))
    again = Counter((task, 1, "RUNNING") for task in ("t0", "t1"))
    async with asyncio.timeout(60):
        while fates(cairn, running) != lost + again:
            await asyncio.sleep(0.2)
    assert nodes_of(cairn, running) == {"edge"}
    cairn.cairn("workflow", "cancel", running)
    assert await asyncio.to_thread(cairn.finish, running) == "FAILED_CANCELED"
    cairn.start_bridge("north")  # registers it anew, and drops what was lost
    await asyncio.to_thread(until_state, cairn, "north", "ACTIVE")
    await empty(cairn, "north")


class Deaf:
    """A reporter of a bridge that nobody hears."""

    async def fact(self, fact: Fact) -> None:
        """Say nothing."""

    async def log(self, key: AttemptKey, lines: Sequence[LogLine], *, final: bool) -> None:
        """Say nothing."""


async def place_unheard(cairn: Cairn, cluster: str, workflow: str) -> None:
    """A group that no engine knows, made in the north by a bridge for a cluster of this name."""
    reached = cairn.clusters["north"]
    pools = ClusterPools.model_validate({"pools": POOLS["north"]})
    site = Site(cluster=cluster, namespace=cairn.namespace, pools=pools)
    driver = KubernetesDriver(lambda: Api.connect(reached.kubeconfig, reached.context), site)
    await driver.start(Deaf())
    try:
        tasks = [
            TaskPlacement(
                index=index,
                name=f"t{index}",
                uuid=f"{workflow}-t{index}",
                image="ubuntu:24.04",
                command=["true"],
                environment={"SIM_RUN": "forever"},
            )
            for index in range(2)
        ]
        group = GroupPlacement(
            workflow=workflow,
            workflow_uuid=workflow,
            group="g",
            group_index=0,
            group_uuid=f"{workflow}-g",
            pool="wide",
            tasks=tasks,
        )
        await driver.place(group, None)
    finally:
        await driver.close()


async def test_what_no_engine_knows_is_removed_after_a_while_and_nothing_of_others(
    cairn: Cairn,
) -> None:
    await empty(cairn, "north")
    cairn.stop_service("bridge-north")
    await place_unheard(cairn, "north", "ghost-1")
    await place_unheard(cairn, "elsewhere", "stranger-1")
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "somebody", "namespace": cairn.namespace},
        "spec": {"containers": [{"name": "c", "image": "x"}]},
    }
    await cairn.create("north", pod)

    async def names() -> Counter[str]:
        return Counter(
            (each["metadata"].get("annotations") or {}).get("cairn/workflow", "somebody")
            for each in await cairn.pods("north")
        )

    others = Counter({"stranger-1": 2, "somebody": 1})
    assert await names() == others + Counter({"ghost-1": 2})
    began = time.monotonic()
    cairn.start_bridge("north")

    async def ghost_gone() -> bool:
        return "ghost-1" not in await names()

    await until(ghost_gone, "the unknown workflow's pods are gone", seconds=90, pause=0.5)
    assert time.monotonic() - began > ORPHAN_SECONDS
    await asyncio.sleep(2 * ORPHAN_SECONDS)
    assert await names() == others
