"""A group that starts together: commands wait at the barrier, and the bridge may die meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from driver_harness import World, keys_of, next_attempt
from test_driver_crashes import kill_at

from cairn_bridge.cluster import Phase
from cairn_bridge.drivers.kubernetes import Site
from cairn_bridge.drivers.kubernetes.api import Document
from cairn_bridge.drivers.kubernetes.core import names
from cairn_bridge.drivers.kubernetes.core.observe import container
from cairn_common.events import FinishReason, GroupPlacement

# Only simulated nodes can be told how long inputs take, and have the runtime's image without it.
pytestmark = pytest.mark.simulator


@pytest.fixture
def site(world: World) -> Site:
    """With the containers of the runtime, as barriers need."""
    return replace(world.site, runtime_image="cairn:0.1.0")


def group_of(world: World, *sims: dict[str, Any]) -> GroupPlacement:
    """A group whose tasks' nodes do what each is told."""
    group = world.group()
    uuid = group.workflow_uuid
    tasks = [world.task(uuid, index, sim=sim) for index, sim in enumerate(sims)]
    return group.model_copy(update={"tasks": tasks})


async def at_barrier(world: World, group: GroupPlacement, indices: Sequence[int]) -> None:
    """Until these wait at the barrier."""
    keys = keys_of(group)
    async with asyncio.timeout(60):
        for index in indices:
            while not waits(await world.pod(keys[index], group)):
                await asyncio.sleep(0.1)


def waits(pod: Document) -> bool:
    """Whether a pod's container of the barrier runs."""
    gate = container(pod, names.BARRIER_CONTAINER, "initContainerStatuses")
    return "running" in (gate.get("state") or {})


async def test_no_command_starts_before_the_last_task_is_ready(world: World, site: Site) -> None:
    async with world.driver(site=site) as (driver, told):
        group = group_of(world, {"run": "0.3s"}, {"run": "0.3s"}, {"run": "0.3s", "init_run": "3s"})
        keys = keys_of(group)
        await driver.place(group, None)
        await at_barrier(world, group, (0, 1))
        assert not any(told.reached([key], Phase.STARTED) for key in keys)
        await told.until_ended(*keys)
        last = datetime.fromisoformat((await world.pod(keys[2], group))["status"]["startTime"])
        for key in keys:
            started = told.outcome(key).started_at
            assert started is not None
            assert started >= last + timedelta(seconds=2), "3 s for inputs; times are to the second"


async def test_what_fails_before_the_barrier_ends_those_who_wait(world: World, site: Site) -> None:
    async with world.driver(site=site) as (driver, told):
        group = group_of(world, {}, {"init_run": "2s", "init_exit_code": "1"})
        keys = keys_of(group)
        await driver.place(group, None)
        waiting, failed = await told.until_ended(*keys)
        assert failed.reason is FinishReason.INPUT_FAILED
        assert (waiting.reason, waiting.exit_code) == (FinishReason.START_ERROR, 2024)
        assert waiting.message == "the barrier cannot open: task t1 ended before it did"
        await driver.settle(keys)
        await world.until_gone(world.pods, world.pod_groups)


async def test_what_is_taken_away_before_the_barrier_is_tried_again_with_all(
    world: World, site: Site
) -> None:
    async with world.driver(site=site) as (driver, told):
        group = group_of(world, {}, {"init_run": "1000s"})
        keys = keys_of(group)
        await driver.place(group, None)
        await at_barrier(world, group, [0])
        eviction = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": world.pod_of(keys[1], group), "namespace": site.namespace},
        }
        path = world.pods.at(world.pod_of(keys[1], group), "eviction")
        await world.api._write("POST", path, eviction)
        for outcome in await told.until_ended(*keys):
            assert outcome.reason is FinishReason.EVICTED
        assert "task t1 ended before" in (told.outcome(keys[0]).message or "")


async def test_a_bridge_that_dies_while_it_opens_the_barrier(world: World, site: Site) -> None:
    group = group_of(world, *[{"run": "forever"}] * 4, {"run": "forever", "init_run": "3s"})
    keys = keys_of(group)
    async with world.driver(site=site) as (driver, told):
        await driver.place(group, None)
        await at_barrier(world, group, range(4))
        kill_at(driver._api, 3)  # two pods are let through
        await told.until(lambda: sum(told.reached([key], Phase.STARTED) for key in keys) == 2)
        await asyncio.sleep(0.5)
        assert not told.reached(keys, Phase.STARTED)
    async with world.driver(told, site=site) as (_, told):
        await told.until(lambda: told.reached(keys, Phase.STARTED))


async def test_the_barrier_opens_when_all_came_while_no_bridge_ran(
    world: World, site: Site
) -> None:
    group = group_of(world, *[{"run": "forever", "init_run": "1s"}] * 3)
    async with world.driver(site=site) as (driver, _):
        await driver.place(group, None)
    await at_barrier(world, group, range(3))
    async with world.driver(site=site) as (_, told):
        await told.until(lambda: told.reached(keys_of(group), Phase.STARTED))


async def test_a_retried_task_does_not_wait_for_those_that_run(world: World, site: Site) -> None:
    async with world.driver(site=site) as (driver, told):
        group = group_of(world, {"run": "forever"}, {"run": "forever"})
        keys = keys_of(group)
        await driver.place(group, None)
        await told.until(lambda: told.reached(keys, Phase.STARTED))
        await driver.stop(keys[:1], "again", 1)
        await told.until_ended(keys[0])
        again = next_attempt(group, 0)
        await driver.place(again, None)
        await told.until(lambda: told.reached(keys_of(again), Phase.STARTED))
        assert not told.reached(keys[1:], Phase.FINISHED)
