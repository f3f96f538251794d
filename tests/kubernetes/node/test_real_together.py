"""What stands beside a real task: the barrier, evictions, credentials, bridges that change."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
from driver_harness import Recorder, World, keys_of
from real_harness import Real, run, script, text

from cairn_bridge.cluster import Phase
from cairn_common.events import Checkpoint, FinishReason, InputSource
from cairn_common.pools import Credential

pytestmark = pytest.mark.simulator

STEPS = """
    trap 'echo done > /workspace/saved/last; exit 0' TERM
    for step in $(seq 1 1000); do echo $step > /workspace/saved/step; sleep 0.1; done
"""


def saving(place: str, frequency: float = 1.0) -> Any:
    """What a task says that has checkpoints of its folder."""
    url = f"file:///cairn/store/{place}"
    return [Checkpoint(path="/workspace/saved", url=url, frequency=frequency)]


async def test_a_task_whose_inputs_fail_holds_nobody_at_the_barrier(world: World) -> None:
    async with world.driver() as (driver, told):
        group = script(world, "echo started", size=2)
        broken = group.tasks[1].model_copy(
            update={"inputs": [InputSource(url="file:///cairn/store/nothing/here")]}
        )
        group = group.model_copy(update={"tasks": [group.tasks[0], broken]})
        waiting, failed = keys_of(group)
        await driver.place(group, None)
        await told.until_ended(waiting, failed)
        assert told.outcome(failed).reason is FinishReason.INPUT_FAILED
        assert told.outcome(waiting).reason is FinishReason.START_ERROR
        assert told.outcome(waiting).exit_code == 2024
        assert "started" not in text(told, waiting)
        await driver.settle([waiting, failed])


@pytest.mark.parametrize("ignores", [False, True])
async def test_an_eviction_leaves_a_last_checkpoint_and_takes_no_hour(
    world: World, real: Real, ignores: bool
) -> None:
    words = STEPS.replace("exit 0' TERM", "' TERM") if ignores else STEPS
    place = f"evicted-{ignores}"
    site = replace(world.site, eviction_grace=4)
    async with world.driver(site=site) as (driver, told):
        group = script(world, words, checkpoints=saving(place, 3600))
        (key,) = keys_of(group)
        await driver.place(group, None)
        await told.until(lambda: told.reached([key], Phase.STARTED))
        began = time.monotonic()
        name = world.pod_of(key, group)
        eviction = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": name, "namespace": world.site.namespace},
        }
        await world.api._write("POST", world.pods.at(name, "eviction"), eviction)
        (outcome,) = await told.until_ended(key)
        assert outcome.reason is FinishReason.EVICTED
        assert time.monotonic() - began < 30
        assert (real.store / place / "last").read_text() == "done\n"
        await driver.settle([key])


async def test_credentials_are_there_and_masked(world: World) -> None:
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "team-maps", "namespace": world.site.namespace},
        "stringData": {"user": "ada", "password": "swordfish", "other": "not for tasks"},
    }
    await world.create(secret, "secrets")
    pool = world.site.pools.pools["default"].model_copy(
        update={"credentials": {"maps": Credential(secret="team-maps", keys=["user", "password"])}}
    )
    pools = world.site.pools.model_copy(update={"pools": {"default": pool}})
    async with world.driver(site=replace(world.site, pools=pools)) as (driver, told):
        use = {"maps": "/run/maps"}
        group = script(
            world, "ls /run/maps; cat /run/maps/user /run/maps/password", credentials=use
        )
        key, outcome = await run(driver, told, group)
        assert outcome.exit_code == 0, text(told, key)
        assert text(told, key) == ["password", "user", "ada[MASKED]"]
        by_variable = {"maps": {"MAPS_PASSWORD": "password"}}
        words = "test $MAPS_PASSWORD = swordfish && echo $MAPS_PASSWORD && exit 3"
        group = script(world, words, credentials=by_variable)
        key, outcome = await run(driver, told, group)
        assert outcome.exit_code == 3
        assert text(told, key) == ["[MASKED]"]
        assert "swordfish" not in (outcome.message or "")


async def test_a_credential_that_is_nowhere_is_a_start_error(world: World) -> None:
    pool = world.site.pools.pools["default"].model_copy(
        update={"credentials": {"maps": Credential(secret="nowhere", keys=["user"])}}
    )
    pools = world.site.pools.model_copy(update={"pools": {"default": pool}})
    async with world.driver(site=replace(world.site, pools=pools)) as (driver, told):
        group = script(world, "true", credentials={"maps": {"MAPS_USER": "user"}})
        _, outcome = await run(driver, told, group)
        assert outcome.reason is FinishReason.START_ERROR
        assert "nowhere" in (outcome.message or "")


async def test_a_bridge_that_comes_anew_tells_of_a_real_task_as_if_it_had_been_there(
    world: World,
) -> None:
    group = script(world, "for n in $(seq 1 60); do echo line $n; sleep 0.1; done; exit 4")
    (key,) = keys_of(group)
    async with world.driver() as (driver, told):
        await driver.place(group, None)
        await told.until(lambda: len(text(told, key)) > 5)
    told = Recorder()
    async with world.driver(told) as (driver, _):
        (outcome,) = await told.until_ended(key)
        assert outcome.exit_code == 4
        assert text(told, key) == [f"line {n}" for n in range(1, 61)]
        await driver.settle([key])
        await world.until_gone(world.pods, world.pod_groups)
