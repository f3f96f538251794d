"""The life of pods as facts, and every failure provoked in a real control plane."""

from __future__ import annotations

import asyncio

import pytest
from driver_harness import World, keys_of, next_attempt

from cairn_bridge.cluster import Phase, PlacementError
from cairn_common.events import FinishReason, InjectedFile, Resources


async def test_a_task_goes_through_all_phases_and_leaves_nothing(world: World) -> None:
    async with world.driver() as (driver, told):
        group = world.group(sim={"run": "0.3s"})
        (key,) = keys_of(group)
        await driver.place(group, None)
        (outcome,) = await told.until_ended(key)
        assert told.phases(key) == list(Phase)
        assert (outcome.reason, outcome.exit_code) == (FinishReason.EXITED, 0)
        assert outcome.started_at is not None
        node = {fact.node for fact in told.facts if fact.phase is Phase.STARTED}
        assert node
        assert None not in node
        assert driver.known() == {key}
        await driver.settle([key])
        assert driver.known() == frozenset()
        await world.until_gone(world.pods, world.pod_groups)


async def test_a_gang_with_files_and_hosts_is_made_and_removed_whole(world: World) -> None:
    async with world.driver() as (driver, told):
        group = world.group(
            3,
            sim={"run": "0.3s"},
            files=[InjectedFile(path="/tmp/run.sh", contents="echo {{host:t1}}")],
        )
        keys = keys_of(group)
        await driver.place(group, None)
        assert len(await world.all(world.secrets)) == 3
        assert len(await world.all(world.services)) == 1
        await told.until_ended(*keys)
        await driver.settle(keys)
        await world.until_gone(world.pods, world.pod_groups, world.secrets, world.services)


@pytest.mark.parametrize(
    ("sim", "reason", "code"),
    [
        ({"run": "0.2s", "exit_code": 7}, FinishReason.EXITED, 7),
        ({"run": "0.2s", "end": "OOMKilled"}, FinishReason.OUT_OF_MEMORY, 137),
        ({"run": "0.2s", "end": "Evicted"}, FinishReason.EVICTED, None),
    ],
)
async def test_failures_of_the_container(
    world: World, sim: dict[str, str], reason: FinishReason, code: int | None
) -> None:
    async with world.driver() as (driver, told):
        group = world.group(sim=sim)
        await driver.place(group, None)
        (outcome,) = await told.until_ended(*keys_of(group))
        assert (outcome.reason, outcome.exit_code) == (reason, code)


async def test_an_image_that_never_comes_ends_the_attempt_after_a_patience(world: World) -> None:
    async with world.driver() as (driver, told):
        group = world.group(image="missing/image:1")
        await driver.place(group, None)
        (outcome,) = await told.until_ended(*keys_of(group))
        assert outcome.reason is FinishReason.IMAGE_PULL
        assert "missing/image:1" in (outcome.message or "")


async def test_a_start_that_takes_too_long_is_ended(world: World) -> None:
    async with world.driver() as (driver, told):
        group = world.group(sim={"start_after": "60s"}, start_timeout=1.0)
        await driver.place(group, None)
        (outcome,) = await told.until_ended(*keys_of(group))
        assert outcome.reason is FinishReason.START_TIMEOUT


async def test_a_start_that_takes_its_time_says_what_it_waits_for(world: World) -> None:
    async with world.driver() as (driver, told):
        slow = world.group(sim={"start_after": "4s", "run": "0.1s"})
        await driver.place(slow, None)
        (outcome,) = await told.until_ended(*keys_of(slow))
        assert outcome.exit_code == 0
        said = [(fact.phase, fact.message) for fact in told.facts if fact.message]
        assert (Phase.SCHEDULED, "waiting: the node pulls image ubuntu:24.04") in said
        never = world.group(image="missing/image:1", sim={})
        await driver.place(never, None)
        await told.until(lambda: any("missing/image:1" in (f.message or "") for f in told.facts))


async def test_a_stop_ends_what_runs_and_says_why(world: World) -> None:
    async with world.driver() as (driver, told):
        group = world.group(sim={"run": "forever", "stop": "1s"})
        keys = keys_of(group)
        await driver.place(group, None)
        await told.until(lambda: told.reached(keys, Phase.STARTED))
        await driver.stop(keys, "canceled by ada", 5)
        await asyncio.sleep(0.3)
        assert not told.reached(keys, Phase.FINISHED), "it still runs"
        (outcome,) = await told.until_ended(*keys)
        assert (outcome.reason, outcome.message) == (FinishReason.STOPPED, "canceled by ada")


async def test_a_stop_of_what_never_ran_or_is_unknown(world: World) -> None:
    async with world.driver() as (driver, told):
        waiting = world.group(resources=Resources(cpu=1000))
        await driver.place(waiting, None)
        unknown = world.group()
        keys = [*keys_of(waiting), *keys_of(unknown)]
        await driver.stop(keys, "no", 5)
        for outcome in await told.until_ended(*keys):
            assert outcome.reason is FinishReason.STOPPED
        await driver.place(unknown, None)  # the stop had overtaken it
        await driver.settle(keys_of(waiting))
        await world.until_gone(world.pods, world.pod_groups)


async def test_a_stop_waits_for_the_placement_that_is_under_way(world: World) -> None:
    async with world.driver() as (driver, told):
        group = world.group(40, sim={"run": "forever"})
        placing = asyncio.create_task(driver.place(group, None))
        await asyncio.sleep(0)
        await driver.stop(keys_of(group)[:20], "no", 5)
        assert placing.done(), "nobody could say what to stop"
        for outcome in await told.until_ended(*keys_of(group)[:20]):
            assert outcome.reason is FinishReason.STOPPED
        await told.until(lambda: told.reached(keys_of(group)[20:], Phase.STARTED))
        await driver.stop(keys_of(group)[20:], "done", 1)
        await told.until_ended(*keys_of(group))


async def test_a_pod_that_is_deleted_by_hand_is_reported(world: World) -> None:
    async with world.driver() as (driver, told):
        group = world.group(sim={"run": "forever"})
        (key,) = keys_of(group)
        await driver.place(group, None)
        await told.until(lambda: told.reached([key], Phase.STARTED))
        await world.api.delete(world.pods, world.pod_of(key, group))
        (outcome,) = await told.until_ended(key)
        assert outcome.reason is FinishReason.BACKEND_ERROR
        assert "not by Cairn" in (outcome.message or "")


async def test_a_pod_that_vanishes_with_its_finalizer_is_reported(world: World) -> None:
    async with world.driver() as (driver, told):
        group = world.group(sim={"run": "forever"})
        (key,) = keys_of(group)
        await driver.place(group, None)
        await told.until(lambda: told.reached([key], Phase.STARTED))
        pod = world.pod_of(key, group)
        await world.api.patch(world.pods, pod, {"metadata": {"finalizers": None}})
        await world.api.delete(world.pods, pod, grace=0)
        (outcome,) = await told.until_ended(key)
        assert outcome.reason is FinishReason.BACKEND_ERROR
        await driver.settle([key])
        await world.until_gone(world.pods, world.pod_groups)


async def test_deleting_the_parent_deletes_all(world: World) -> None:
    async with world.driver() as (driver, told):
        group = world.group(2, sim={"run": "forever"})
        keys = keys_of(group)
        await driver.place(group, None)
        await told.until(lambda: told.reached(keys, Phase.STARTED))
        await world.api.delete(world.pod_groups, f"cairn-{group.group_uuid}")
        for outcome in await told.until_ended(*keys):
            assert outcome.reason is FinishReason.BACKEND_ERROR
            assert "PodGroup" in (outcome.message or "")


async def test_a_deletion_while_no_bridge_runs_is_not_lost(world: World) -> None:
    group = world.group(2, sim={"run": "forever"})
    first, second = keys_of(group)
    async with world.driver() as (driver, told):
        await driver.place(group, None)
        await told.until(lambda: told.reached([first, second], Phase.STARTED))
    await world.api.delete(world.pods, world.pod_of(first, group))
    await asyncio.sleep(0.5)
    async with world.driver() as (driver, told):
        (outcome,) = await told.until_ended(first)
        assert outcome.reason is FinishReason.BACKEND_ERROR
        assert driver.known() == {first, second}
        assert not told.phases(second), "nothing new about it"
        await driver.report_all()
        assert told.phases(second) == [Phase.STARTED]


async def test_a_retry_joins_its_gang(world: World) -> None:
    async with world.driver() as (driver, told):
        group = world.group(2, sim={"run": "forever"})
        keys = keys_of(group)
        await driver.place(group, None)
        await told.until(lambda: told.reached(keys, Phase.STARTED))
        await driver.stop(keys[:1], "restart", 1)
        await told.until_ended(keys[0])
        again = next_attempt(group, 0)
        await driver.place(again, None)
        (key,) = keys_of(again)
        await told.until(lambda: told.reached([key], Phase.STARTED))
        await driver.settle(keys[:1])
        assert driver.known() == {keys[1], key}
        assert len(await world.all(world.pod_groups)) == 1


async def test_what_the_api_server_refuses_is_refused_with_its_words(world: World) -> None:
    async with world.driver() as (driver, _):
        group = world.group(environment={"not a name=": "x"})
        with pytest.raises(PlacementError, match="env"):
            await driver.place(group, None)
        assert await world.all(world.pods) == []
        assert driver.known() == frozenset()
