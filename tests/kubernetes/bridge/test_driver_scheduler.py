"""KAI Scheduler, pools and the driver: what waits and why, who gives way, who lies close."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from driver_harness import PATIENCE, Recorder, World, keys_of, next_attempt
from testcluster import nodes
from testcluster.account import bridge_account
from testcluster.cluster import Cluster
from testcluster.reached import Reached

from cairn_bridge.cluster import ClusterError, NotNowError, Phase, PlacementError
from cairn_bridge.drivers.kubernetes import Api, KubernetesDriver, Site
from cairn_bridge.drivers.kubernetes.api import Kind
from cairn_common.events import FinishReason, GroupPlacement, Resources, Topology
from cairn_common.pools import ClusterPools, Platform, Pool, Queue, Share, TopologyKey


def of_share(**shares: Share) -> ClusterPools:
    return ClusterPools(pools={"default": Pool(queue=Queue(**shares))})


def waits(told: Recorder) -> str:
    return " ".join(fact.message or "" for fact in told.facts)


def nodes_of(told: Recorder, group: GroupPlacement) -> dict[str, str]:
    return {
        key.name: fact.node
        for fact in told.facts
        for key in fact.keys
        if fact.node and key in keys_of(group)
    }


async def test_what_cannot_be_placed_says_why(world: World) -> None:
    async with world.driver() as (driver, told):
        group = world.group(2, resources=Resources(cpu=1000))
        await driver.place(group, None)
        await told.until(lambda: "CPU" in waits(told))
        assert told.phases(keys_of(group)[0]) == [Phase.ACCEPTED]


@pytest.mark.parametrize("pools", [of_share(cpu=Share(guarantee=2, maximum=2))])
async def test_a_pool_at_its_limit_says_so_and_goes_on_when_there_is_room(world: World) -> None:
    async with world.driver() as (driver, told):
        first = world.group(2, sim={"run": "forever"}, priority="LOW")
        second = world.group(priority="LOW", sim={"run": "0.1s"})
        await driver.place(first, None)
        await told.until(lambda: told.reached(keys_of(first), Phase.STARTED))
        await driver.place(second, None)
        await told.until(lambda: "limit" in waits(told).lower())
        await driver.stop(keys_of(first), "done", 1)
        (outcome,) = await told.until_ended(*keys_of(second))
        assert outcome.exit_code == 0


@pytest.mark.parametrize("pools", [of_share(cpu=Share(guarantee=1))])
async def test_normal_work_keeps_within_the_guarantee_and_low_work_borrows(world: World) -> None:
    async with world.driver() as (driver, told):
        normal = world.group(2, sim={"run": "forever"})
        low = world.group(2, sim={"run": "forever"}, priority="LOW")
        await driver.place(normal, None)
        await driver.place(low, None)
        await told.until(lambda: told.reached(keys_of(low), Phase.STARTED))
        await told.until(lambda: "quota" in waits(told).lower())
        assert not told.reached(keys_of(normal), Phase.SCHEDULED)


@pytest.mark.parametrize("pools", [of_share(cpu=Share(guarantee=2, maximum=2))])
async def test_a_low_group_gives_way_to_a_high_one_and_comes_back(world: World) -> None:
    async with world.driver() as (driver, told):
        low = world.group(2, sim={"run": "forever"}, priority="LOW")
        high = world.group(2, sim={"run": "1s"}, priority="HIGH")
        await driver.place(low, None)
        await told.until(lambda: told.reached(keys_of(low), Phase.STARTED))
        await driver.place(high, None)
        for outcome in await told.until_ended(*keys_of(low)):
            assert outcome.reason is FinishReason.PREEMPTED
            assert "preempted by higher priority" in (outcome.message or "")
        again = next_attempt(low, 0, 1)
        await driver.settle(keys_of(low))
        await driver.place(again, None)
        assert [o.exit_code for o in await told.until_ended(*keys_of(high))] == [0, 0]
        await told.until(lambda: told.reached(keys_of(again), Phase.STARTED))


RACKS = [TopologyKey(key="host", label="kubernetes.io/hostname")]


@pytest.mark.parametrize("pools", [ClusterPools(pools={"default": Pool(topology_keys=RACKS)})])
async def test_tasks_of_one_topology_group_share_a_node(world: World) -> None:
    async with world.driver() as (driver, told):
        group = world.group(4, sim={"run": "forever"})
        tasks = [
            task.model_copy(update={"topology": [Topology(key="host", group=f"n{number // 2}")]})
            for number, task in enumerate(group.tasks)
        ]
        group = group.model_copy(update={"tasks": tasks})
        await driver.place(group, None)
        await told.until(lambda: told.reached(keys_of(group), Phase.STARTED))
        nodes = nodes_of(told, group)
        assert nodes["t0"] == nodes["t1"]
        assert nodes["t2"] == nodes["t3"]
        # One ends: its sub-group and gang go on; then it is tried again beside the others.
        await driver.stop(keys_of(group)[:2], "again", 1)
        await told.until_ended(*keys_of(group)[:2])
        again = next_attempt(group, 0, 1)
        await driver.place(again, None)
        await told.until(lambda: told.reached(keys_of(again), Phase.STARTED))


@pytest.mark.parametrize(
    "pools",
    [
        ClusterPools(
            pools={
                "default": Pool(
                    platforms={
                        "gpu": Platform(node_selector={"node.kubernetes.io/instance-type": "gpu"})
                    }
                )
            }
        )
    ],
)
async def test_platforms_and_excluded_nodes_choose_the_node(world: World) -> None:
    async with world.driver() as (driver, told):
        names = {info.name for info in await driver.inventory() if "gpu" in info.platforms}
        if len(names) < 2:
            pytest.skip(
                "to choose among nodes takes two; this cluster of yours has fewer that carry"
                " node.kubernetes.io/instance-type=gpu"
            )
        (wanted, *excluded) = sorted(names)
        group = world.group(
            sim={"run": "forever"},
            resources=Resources(cpu=1, gpu=2, platform="gpu"),
            nodes_excluded=excluded,
        )
        await driver.place(group, None)
        await told.until(lambda: told.reached(keys_of(group), Phase.STARTED))
        assert nodes_of(told, group) == {"t0": wanted}
        (info,) = [each for each in await driver.inventory() if each.name == wanted]
        assert (info.used_gpu, info.used_cpu) == (2, 1)


async def _placed_when_there_is_room(driver: KubernetesDriver, group: GroupPlacement) -> None:
    """The quota's controller takes a moment to see that pods are gone."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                await driver.place(group, None)
                return
            except NotNowError:
                await asyncio.sleep(0.5)


async def test_a_quota_that_is_full_is_not_now_and_one_too_small_is_never(world: World) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "q", "namespace": world.site.namespace},
        "spec": {"hard": {"requests.cpu": "4"}},
    }
    await world.create(quota, "resourcequotas")
    async with asyncio.timeout(PATIENCE):
        kind = Kind("v1", "resourcequotas", world.site.namespace)
        while not ((await world.api.get(kind, "q")) or {}).get("status", {}).get("hard"):
            await asyncio.sleep(0.1)
    async with world.driver() as (driver, told):
        with pytest.raises(PlacementError, match="can never hold it"):
            await driver.place(world.group(5), None)
        running = world.group(3, sim={"run": "forever"})
        await _placed_when_there_is_room(driver, running)
        await told.until(lambda: told.reached(keys_of(running), Phase.STARTED))
        gang = world.group(2, sim={"run": "0.1s"})
        with pytest.raises(NotNowError, match="exceeded quota"):
            await driver.place(gang, None)
        assert len(await world.all(world.pods)) == 3, "half a gang would hold the quota"
        async with asyncio.timeout(PATIENCE):
            while driver.known() != set(keys_of(running)):
                await asyncio.sleep(0.05)
        await driver.stop(keys_of(running), "done", 1)
        await told.until_ended(*keys_of(running))
        await driver.settle(keys_of(running))
        await _placed_when_there_is_room(driver, gang)
        await told.until_ended(*keys_of(gang))


async def test_what_others_run_on_a_node_counts_as_used(world: World) -> None:
    async with world.driver() as (driver, _):
        node = min(info.name for info in await driver.inventory())
        before = await used(driver, node)
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "others", "namespace": world.site.namespace},
            "spec": {
                "nodeName": node,
                "containers": [
                    {
                        "name": "it",
                        "image": "ubuntu:24.04",
                        "command": ["sleep", "infinity"],
                        "env": [{"name": "SIM_RUN", "value": "forever"}],
                        "resources": {"requests": {"cpu": "1500m"}},
                    }
                ],
            },
        }
        await world.create(pod, "pods")
        async with asyncio.timeout(PATIENCE):
            while await used(driver, node) == before:
                await asyncio.sleep(0.1)
            assert await used(driver, node) == before + 2
            await world.api.delete(world.pods, "others", grace=1)
            while await used(driver, node) != before:
                await asyncio.sleep(0.1)


async def test_who_may_not_see_what_others_run_goes_on_without(
    world: World, north: Reached, tmp_path: Path
) -> None:
    file = tmp_path / "kubeconfig"
    blind = bridge_account(north, world.site.namespace, file, without=("ClusterRole", "pods"))
    async with blind:
        driver = KubernetesDriver(lambda: Api.connect(file, None), world.site)
        told = Recorder()
        try:
            await driver.start(told)
            assert await driver.inventory()
            group = world.group(sim={"run": "0.1s"})
            await driver.place(group, None)
            (outcome,) = await told.until_ended(*keys_of(group))
            assert outcome.exit_code == 0
        finally:
            await driver.close()


async def used(driver: KubernetesDriver, node: str) -> int:
    (info,) = [each for each in await driver.inventory() if each.name == node]
    return info.used_cpu


@pytest.mark.simulator
async def test_what_runs_on_a_node_that_is_lost_is_lost_after_a_while(
    world: World, simulated: Cluster
) -> None:
    async with world.driver() as (driver, told):
        group = world.group(sim={"run": "forever"})
        (key,) = keys_of(group)
        await driver.place(group, None)
        await told.until(lambda: told.reached([key], Phase.STARTED))
        (node,) = nodes_of(told, group).values()
        await simulated.lose_node(node)
        try:
            (outcome,) = await told.until_ended(key, seconds=60)
            assert outcome.reason is FinishReason.NODE_LOST
            assert node in (outcome.message or "")
            assert not any(each.ready for each in await driver.inventory() if each.name == node)
            again = next_attempt(group, 0)
            await driver.place(again, None)
            await told.until(lambda: told.reached(keys_of(again), Phase.STARTED))
            await driver.settle([key])
        finally:
            await simulated.find_node(node)


async def test_a_cluster_without_a_way_to_it_is_a_cluster_error(tmp_path: Path) -> None:
    async def connect() -> Any:
        return await Api.connect(tmp_path / "none", None)

    driver = KubernetesDriver(connect, Site("c"))
    with pytest.raises(ClusterError):
        await driver.start(Recorder())
    await driver.close()


@pytest.mark.simulator
async def test_what_is_drained_from_a_node_is_evicted(world: World, simulated: Cluster) -> None:
    async with world.driver() as (driver, told):
        group = world.group(sim={"run": "forever"})
        (key,) = keys_of(group)
        await driver.place(group, None)
        await told.until(lambda: told.reached([key], Phase.STARTED))
        (node,) = nodes_of(told, group).values()
        try:
            await simulated.drain(node)
            (outcome,) = await told.until_ended(key)
            assert outcome.reason is FinishReason.EVICTED
            again = next_attempt(group, 0)
            await driver.place(again, None)
            await told.until(lambda: told.reached(keys_of(again), Phase.STARTED))
            assert node not in nodes_of(told, again).values()
        finally:
            await simulated.cordon(node, False)


@pytest.mark.simulator
async def test_what_runs_on_a_node_that_is_removed_is_lost(
    world: World, simulated: Cluster
) -> None:
    (name,) = await simulated.add(nodes.CPU.but(name="shaky"), 1)
    async with world.driver() as (driver, told):
        others = [info.name for info in await driver.inventory() if info.name != name]
        group = world.group(sim={"run": "forever"}, nodes_excluded=others)
        (key,) = keys_of(group)
        await driver.place(group, None)
        await told.until(lambda: told.reached([key], Phase.STARTED))
        await simulated.remove_nodes([name])
        (outcome,) = await told.until_ended(key, seconds=60)
        assert outcome.reason is FinishReason.NODE_LOST
        await driver.settle([key])
        await world.until_gone(world.pods, world.pod_groups)
