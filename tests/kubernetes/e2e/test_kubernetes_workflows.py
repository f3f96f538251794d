"""Workflows that people submit run on two Kubernetes clusters, whatever happens there."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from stories import attempts, fates, gang, until_says
from testcluster import kwok
from whole_system import Cairn

from e2e.test_e2e_tutorials import TUTORIALS, needs_tutorials

ANYWHERE = (
    "combination_workflow_complex",
    "combination_workflow_simple",
    "group_tasks",
    "group_tasks_communication",
    "hello_world",
    "parallel_tasks",
    "resources_basic",
    "resources_multiple",
    "resources_platforms",
    "serial_workflow",
    "template_hello_world",
    "token_example",
)
ONLY_BETA = ("robot_simulation",)
"""It wants an edge node beside one with a GPU."""
CONTAINERS = 3
"""A task's own, and one each to fetch its inputs and to keep its outputs; each logs a line."""

pytestmark = [pytest.mark.simulator, pytest.mark.timeout(600)]


@needs_tutorials
def test_the_tutorials_run_on_both_clusters(cairn: Cairn) -> None:
    pools = [*((stem, pool) for stem in ANYWHERE for pool in ("alpha", "beta"))]
    pools += [(stem, "beta") for stem in ONLY_BETA]
    names = [
        (stem, pool, cairn.submit_file(TUTORIALS / f"{stem}.yaml", "--pool", pool))
        for stem, pool in pools
    ]
    for stem, pool, name in names:
        assert cairn.finish(name, 300) == "COMPLETED", f"{stem} in {pool}\n{cairn.story(name)}"
        assert "a simulated container" in cairn.logs(name), f"{stem} in {pool}"
    nodes = {
        pool: {task["node_name"] for task in cairn.tasks(name).values()}
        for stem, pool, name in names
        if stem == "robot_simulation"
    }
    assert {node.partition("-")[0] for node in nodes["beta"]} == {"gpu", "edge"}


async def test_what_a_pod_logs_is_read_by_the_command(cairn: Cairn, tmp_path: Path) -> None:
    lines = [f"epoch {number}" for number in range(300)]
    log = tmp_path / "log"
    log.write_text(
        "".join(f"2026-01-01T00:00:00.{n:09d}Z stdout F {line}\n" for n, line in enumerate(lines))
    )
    name = await asyncio.to_thread(
        cairn.submit, gang("logging", start_after="4s", run="2s"), "--pool", "beta"
    )
    pod = await cairn.pod_of("south", name, "t0")
    await cairn.create("south", kwok.pod_log(cairn.namespace, pod["metadata"]["name"], log, "task"))
    text = await asyncio.to_thread(cairn.logs, name)
    shown = [line for line in text.splitlines() if "epoch" in line]
    assert [line.split("epoch ")[1] for line in shown] == [str(n) for n in range(300)], text
    assert cairn.status(name) == "COMPLETED"


@pytest.mark.parametrize(
    ("sim", "status"),
    [
        ({"exit_code": "7"}, "FAILED"),
        ({"end": "OOMKilled"}, "FAILED_EVICTED"),
        ({"end": "Evicted"}, "FAILED_EVICTED"),
        ({"image": "missing"}, "FAILED_IMAGE_PULL"),
    ],
)
def test_a_failure_in_a_cluster_is_the_workflows(
    cairn: Cairn, sim: dict[str, str], status: str
) -> None:
    name = cairn.submit(gang("failing", **sim), "--pool", "alpha")
    assert cairn.finish(name, 180) == status, cairn.story(name)


def test_a_low_group_gives_way_to_a_high_one_is_tried_again_and_completes(cairn: Cairn) -> None:
    low = cairn.submit(gang("low", 2, run="25s"), "--pool", "narrow", "--priority", "LOW")
    cairn.wait(low, lambda status: status == "RUNNING")
    high = cairn.submit(gang("high", 2, run="1s"), "--pool", "narrow", "--priority", "HIGH")
    assert cairn.finish(high) == "COMPLETED"
    assert cairn.finish(low, 180) == "COMPLETED", cairn.story(low)
    assert fates(cairn, low) == Counter(
        (task, number, status)
        for task in ("t0", "t1")
        for number, status in ((0, "RESCHEDULED"), (1, "COMPLETED"))
    )
    for attempt in attempts(cairn, low):
        if attempt["retry_id"] == 0:
            assert "preempted by higher priority" in attempt["failure_message"], attempt


RIGHTS: Mapping[str, Any] = {
    "privileged": True,
    "hostNetwork": True,
    "volumeMounts": ["/data/maps:/maps"],
    "credentials": {"maps": {"MAPS_USER": "user"}},
}
SITE: Mapping[str, Any] = {"gpu": 8, "nodesExcluded": ["gpu-0"], "topology": [{"key": "rack"}]}


async def test_what_a_pool_allows_is_in_the_pods_and_where_they_run(cairn: Cairn) -> None:
    name = await asyncio.to_thread(
        cairn.submit, gang("free", 2, SITE, RIGHTS, run="5s"), "--pool", "free"
    )
    pods = [await cairn.pod_of("north", name, task) for task in ("t0", "t1")]
    for pod in pods:
        spec = pod["spec"]
        (container,) = (each for each in spec["containers"] if each["name"] == "task")
        assert spec["hostNetwork"]
        assert container["securityContext"]["privileged"]
        assert container["resources"]["limits"]["nvidia.com/gpu"] == "8"
        (mount,) = (each for each in container["volumeMounts"] if each["mountPath"] == "/maps")
        (volume,) = (each for each in spec["volumes"] if each["name"] == mount["name"])
        assert volume["hostPath"]["path"] == "/data/maps"
        (variable,) = (each for each in container["env"] if each["name"] == "MAPS_USER")
        assert variable["valueFrom"] == {"secretKeyRef": {"name": "team-maps", "key": "user"}}
    assert await asyncio.to_thread(cairn.finish, name) == "COMPLETED", cairn.story(name)
    # Of the two racks with two nodes each, one has an excluded node: two full nodes, one rack.
    assert {task["node_name"] for task in cairn.tasks(name).values()} == {"gpu-2", "gpu-3"}


@pytest.mark.parametrize(
    ("pool", "resource", "task", "words"),
    [
        ("alpha", {"platform": "ovx-l40"}, {"privileged": True}, "does not have privileged flag"),
        ("alpha", {"platform": "ovx-l40"}, {"hostNetwork": True}, "not have hostNetwork flag"),
        ("free", {}, {"volumeMounts": ["/etc"]}, "does not allow mount: /etc"),
        ("alpha", {"topology": [{"key": "rack"}]}, {}, 'Topology key "rack" of task "t0" is not'),
        ("free", {"nodesExcluded": ["gpu-0", "gpu-1", "gpu-2", "gpu-3"]}, {}, "leave no node"),
        ("alpha", {"gpu": 16}, {}, "gpu 16 <= 8"),
        ("narrow", {"cpu": 3}, {}, "asks for cpu 3, more than the guarantee 2 of pool narrow"),
        ("alpha", {}, {"credentials": {"maps": "/m"}}, "Could not find the credential: maps"),
        ("free", {}, {"credentials": {"maps": {"T": "token"}}}, "maps has no key token"),
        ("alpha", {"platform": "agx"}, {}, "Platform agx does not exist in pool alpha!"),
    ],
)
def test_what_a_pool_does_not_allow_is_refused_with_the_reason(
    cairn: Cairn, pool: str, resource: dict[str, Any], task: dict[str, Any], words: str
) -> None:
    file = cairn.home / "refused.yaml"
    file.write_text(gang("refused", 1, resource, task))
    assert words in cairn.cairn("workflow", "submit", str(file), "--pool", pool, code=1)


async def test_a_quota_that_is_used_up_holds_a_group_and_says_so(cairn: Cairn) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "small", "namespace": cairn.namespace},
        "spec": {"hard": {"requests.cpu": "4"}},
    }
    await cairn.create("south", quota)
    try:
        await cairn.until_quota("south", "small")
        first = await asyncio.to_thread(
            cairn.submit, gang("first", 2, run="forever"), "--pool", "beta"
        )
        await asyncio.to_thread(cairn.wait, first, lambda status: status == "RUNNING")
        large = await asyncio.to_thread(cairn.submit, gang("large", 8), "--pool", "beta")
        assert await asyncio.to_thread(cairn.finish, large) == "FAILED_SERVER_ERROR"
        assert "the namespace's quota can never hold it" in cairn.story(large)
        second = await asyncio.to_thread(cairn.submit, gang("second", 3), "--pool", "beta")
        story = await asyncio.to_thread(until_says, cairn, second, "exceeded quota: small")
        assert "waiting: " in story
        await asyncio.to_thread(cairn.cairn, "workflow", "cancel", first)
        assert await asyncio.to_thread(cairn.finish, second) == "COMPLETED", cairn.story(second)
        assert "exceeded quota" not in cairn.story(second)
    finally:
        await cairn.delete("south", quota)


def test_what_waits_says_what_for(cairn: Cairn) -> None:
    first = cairn.submit(gang("first", 2, run="forever"), "--pool", "narrow", "--priority", "LOW")
    cairn.wait(first, lambda status: status == "RUNNING")
    second = cairn.submit(gang("second"), "--pool", "narrow", "--priority", "LOW")
    until_says(cairn, second, "waiting: queue narrow at its limit")
    cairn.cairn("workflow", "cancel", first)
    assert cairn.finish(second) == "COMPLETED"
    assert cairn.finish(first) == "FAILED_CANCELED"


async def test_a_bridge_that_is_killed_loses_nothing_and_doubles_nothing(cairn: Cairn) -> None:
    tasks = [
        {
            "name": f"t{index}",
            "image": "ubuntu:24.04",
            "command": ["true"],
            "environment": {"SIM_RUN": f"{1 + index % 5}s"},
            "inputs": [{"task": f"t{index - 10}"}] if index >= 10 else [],
        }
        for index in range(30)
    ]
    text = json.dumps({"workflow": {"name": "killed", "tasks": tasks}})
    async with cairn.made_pods("north") as made:
        name = await asyncio.to_thread(cairn.submit, text, "--pool", "alpha")
        for pause in (0.5, 2.0, 3.0, 4.0):
            await asyncio.sleep(pause)
            cairn.stop_service("bridge-north")
            await asyncio.sleep(0.5)
            cairn.start_bridge("north")
        assert await asyncio.to_thread(cairn.finish, name, 240) == "COMPLETED", cairn.story(name)
        logs = await asyncio.to_thread(cairn.logs, name)
    assert logs.count("a simulated container") == 30 * CONTAINERS, logs
    assert fates(cairn, name) == Counter({(f"t{index}", 0, "COMPLETED"): 1 for index in range(30)})
    assert len(made) == len(set(made)) == 30


async def test_what_is_settled_is_gone_from_the_clusters(cairn: Cairn) -> None:
    async with asyncio.timeout(60):
        for cluster in ("north", "south"):
            while await cairn.pods(cluster):
                await asyncio.sleep(0.5)
