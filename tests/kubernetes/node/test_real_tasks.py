"""Tasks in real containers: what they find there, what they leave, how they end."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import pytest
from driver_harness import PATIENCE, World, keys_of
from real_harness import Real, handed_on, run, script, text

from cairn_common.events import (
    Checkpoint,
    FinishReason,
    InjectedFile,
    InputSource,
    OutputTarget,
    Resources,
)
from cairn_common.pools import ClusterPools, Credential
from cairn_common.security import PassIssuer
from securing import secured_nats

pytestmark = pytest.mark.simulator


async def test_what_one_task_writes_another_reads(world: World, real: Real) -> None:
    async with world.driver() as (driver, told):
        first = script(
            world,
            "mkdir {{output}}/deep && seq 1 100000 > {{output}}/deep/numbers"
            " && ln -s deep/numbers {{output}}/link && echo written",
            location="w/first",
        )
        key, outcome = await run(driver, told, first)
        assert (outcome.reason, outcome.exit_code) == (FinishReason.EXITED, 0), told.lines
        assert "written" in text(told, key)
        numbers = real.store / "w/first/deep/numbers"
        assert numbers.read_text() == "".join(f"{n}\n" for n in range(1, 100_001))
        second = script(
            world,
            "wc -l < {{input:0}}/link && cat {{input:one}}/deep/numbers | head -n 1"
            " && cp -r {{input:0}}/. {{output}}/",
            inputs=[InputSource(task="one", location="w/first")],
            location="w/second",
        )
        key, outcome = await run(driver, told, second)
        assert (outcome.reason, outcome.exit_code) == (FinishReason.EXITED, 0), told.lines
        assert text(told, key)[-2:] == ["100000", "1"]
        assert (real.store / "w/second/deep/numbers").read_bytes() == numbers.read_bytes()


async def test_what_a_task_finds(world: World) -> None:
    files = [
        InjectedFile(path="/opt/run.sh", contents="#!/bin/sh\necho injected {{output}}\n"),
        InjectedFile(path="/etc/app/data.bin", contents="AAEC", base64=True),
    ]
    words = """
        set -e
        /opt/run.sh
        stat -Lc '%a %s' /opt/run.sh /etc/app/data.bin
        echo $GREETING $CAIRN_TASK $CAIRN_ATTEMPT
        ls -A {{input:0}} | wc -l
        if touch {{input:0}}/x 2>&1; then exit 1; fi
        touch {{output}}/y
    """
    async with world.driver() as (driver, told):
        group = script(
            world,
            words,
            files=files,
            environment={"GREETING": "hello {{workflow_id}}"},
            inputs=[InputSource(task="one", location="none/such")],
        )
        key, outcome = await run(driver, told, group)
        assert outcome.exit_code == 0, text(told, key)
        assert text(told, key) == [
            "input 0 (one) is empty: the task left no outputs",
            "injected /osmo/data/output",
            "755 42",
            "755 3",
            f"hello {group.workflow} t0 0",
            "0",
            "touch: cannot touch '/osmo/data/input/0/x': Read-only file system",
        ]


async def test_credentials_for_nats_are_a_file_that_any_user_reads(
    world: World, tmp_path: Path
) -> None:
    with secured_nats(tmp_path, ["north"]) as server:
        issuer = PassIssuer.from_file(server.folder / "tasks-north.json", 600)
        site = replace(world.site, nats_url=server.url)
        async with world.driver(site=site, issuer=issuer) as (driver, told):
            group = script(world, "stat -Lc %a $NATS_CREDS && head -n 1 $NATS_CREDS")
            key, outcome = await run(driver, told, group)
            assert outcome.exit_code == 0, text(told, key)
            assert text(told, key) == ["444", "-----BEGIN NATS USER JWT-----"]


async def test_credentials_are_variables_and_files(world: World) -> None:
    pool = world.site.pools.pools["default"].model_copy(
        update={"credentials": {"maps": Credential(secret="team-maps", keys=["user", "word"])}}
    )
    site = replace(world.site, pools=ClusterPools(pools={"default": pool}))
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "team-maps", "namespace": world.site.namespace},
        "stringData": {"user": "anna", "word": "oath"},
    }
    await world.create(secret, "secrets")
    async with world.driver(site=site) as (driver, told):
        words = "cat /run/maps/user /run/maps/word; stat -Lc %a /run/maps/word"
        as_files = script(world, words, credentials={"maps": "/run/maps"})
        key, _ = await run(driver, told, as_files)
        assert text(told, key) == ["annaoath444"]
        as_variables = script(world, "echo $WHO", credentials={"maps": {"WHO": "user"}})
        key, _ = await run(driver, told, as_variables)
        assert text(told, key) == ["anna"]


async def test_where_the_pool_names_a_user_nothing_needs_root(world: World, real: Real) -> None:
    strict = {"spec": {"securityContext": {"runAsNonRoot": True, "runAsUser": 1000}}}
    pools = world.site.pools.model_copy(update={"template": strict})
    write, read = "umask 077; id -u > {{output}}/who", "cat {{input:0}}/who"
    async with world.driver(site=replace(world.site, pools=pools)) as (driver, told):
        lines = await handed_on(world, driver, told, "strict/one", write, read)
    assert lines[-1] == "1000"
    assert (real.store / "strict/one/who").stat().st_uid == 1000


async def test_outputs_are_kept_also_when_the_command_fails(world: World, real: Real) -> None:
    async with world.driver() as (driver, told):
        group = script(world, "echo half > {{output}}/result; exit 7", location="w/failed")
        _, outcome = await run(driver, told, group)
        assert (outcome.reason, outcome.exit_code) == (FinishReason.EXITED, 7)
        assert (real.store / "w/failed/result").read_text() == "half\n"


async def test_what_only_its_own_user_may_read_is_kept_and_brought_too(world: World) -> None:
    write = "umask 077; mkdir {{output}}/own; echo secret > {{output}}/own/file"
    read = "stat -c %a {{input:0}}/own/file; cat {{input:0}}/own/file"
    async with world.driver() as (driver, told):
        lines = await handed_on(world, driver, told, "w/own", write, read)
    assert lines[-2:] == ["644", "secret"]


async def test_a_checkpoint_is_made_while_the_task_runs(world: World, real: Real) -> None:
    saved = real.store / "saved/model"
    saves = [Checkpoint(path="/train", url="file:///cairn/store/saved", frequency=1)]
    async with world.driver() as (driver, told):
        words = "umask 077; cd /train; echo half > model; echo up; sleep 600"
        group = script(world, words, checkpoints=saves)
        (key,) = keys_of(group)
        await driver.place(group, None)
        await told.until(lambda: "up" in text(told, key))
        async with asyncio.timeout(PATIENCE):
            while not saved.exists():
                await asyncio.sleep(0.1)
        assert saved.read_text() == "half\n"
        await driver.stop([key], "enough", 0)
        await told.until_ended(key)


async def test_a_stopped_task_has_its_last_checkpoint(world: World, real: Real) -> None:
    saves = [Checkpoint(path="/train", url="file:///cairn/store/last", frequency=3600)]
    words = "trap 'echo end > /train/model; exit' TERM; echo up; while true; do sleep 0.1; done"
    async with world.driver() as (driver, told):
        group = script(world, words, checkpoints=saves)
        (key,) = keys_of(group)
        await driver.place(group, None)
        await told.until(lambda: "up" in text(told, key))
        await driver.stop([key], "enough", 20)
        await told.until_ended(key)
    assert (real.store / "last/model").read_text() == "end\n"


async def test_tasks_of_a_group_start_together(world: World) -> None:
    async with world.driver() as (driver, told):
        group = script(world, "date +%s%N", size=2, barrier=True)
        keys = keys_of(group)
        await driver.place(group, None)
        for outcome in await told.until_ended(*keys):
            assert outcome.exit_code == 0
        first, second = (int(text(told, key)[-1]) for key in keys)
        assert abs(first - second) < 3e9
        await driver.settle(keys)


async def test_tasks_may_fill_a_node_to_the_last_core(world: World, real: Real) -> None:
    async with world.driver() as (driver, told):
        (node,) = [each for each in await driver.inventory() if each.name == real.machine.name]
        half = Resources(cpu=node.cpu // 2, memory=128 << 20)
        group = script(world, "true", size=2, resources=half)
        await driver.place(group, None)
        for outcome in await told.until_ended(*keys_of(group)):
            assert (outcome.reason, outcome.exit_code) == (FinishReason.EXITED, 0), outcome
        await driver.settle(keys_of(group))


async def test_outputs_that_cannot_be_kept_fail_a_task_that_succeeded(world: World) -> None:
    async with world.driver() as (driver, told):
        group = script(world, "touch {{output}}/x", outputs=[OutputTarget(url="s3://bucket/x")])
        key, outcome = await run(driver, told, group)
        assert outcome.reason is FinishReason.OUTPUT_FAILED, text(told, key)
        assert "file:///... only, not s3://bucket/x" in (outcome.message or "")


async def test_inputs_that_cannot_be_had_fail_a_task_before_it_starts(world: World) -> None:
    async with world.driver() as (driver, told):
        url = "file:///cairn/store/nothing/here"
        group = script(world, "echo started", inputs=[InputSource(url=url)])
        key, outcome = await run(driver, told, group)
        assert outcome.reason is FinishReason.INPUT_FAILED
        assert outcome.started_at is None
        assert "there is nothing at /cairn/store/nothing/here" in (outcome.message or "")
        assert "started" not in text(told, key)


async def test_a_stop_asks_first_and_kills_after_its_grace(world: World) -> None:
    async with world.driver() as (driver, told):
        for trap, grace in (("trap 'echo asked; exit 3' TERM", 30), ("trap '' TERM", 1)):
            group = script(world, f"{trap}; echo up; while true; do sleep 0.1; done")
            (key,) = keys_of(group)
            await driver.place(group, None)
            await told.until(lambda: "up" in text(told, key))  # noqa: B023
            began = time.monotonic()
            await driver.stop([key], "enough", grace)
            (outcome,) = await told.until_ended(key)
            assert outcome.reason is FinishReason.STOPPED
            assert time.monotonic() - began < 15
            assert ("asked" in text(told, key)) == (grace == 30)
            await driver.settle([key])
            await world.until_gone(world.pods)


async def test_a_task_that_takes_too_much_memory_says_so(world: World) -> None:
    async with world.driver() as (driver, told):
        group = script(
            world,
            "",
            command=["python3", "-c", "print('begin', flush=True); bytearray(1 << 30)"],
            resources=Resources(cpu=0, memory=64 << 20),
        )
        key, outcome = await run(driver, told, group)
        assert outcome.reason is FinishReason.OUT_OF_MEMORY, (outcome, text(told, key))
        assert outcome.exit_code == 137


async def test_an_image_that_is_nowhere_is_given_up(world: World) -> None:
    async with world.driver() as (driver, told):
        group = script(world, "", image="cairn.test/missing:1")
        _, outcome = await run(driver, told, group)
        assert outcome.reason is FinishReason.IMAGE_PULL
        assert "cairn.test/missing:1" in (outcome.message or "")


async def test_a_command_that_is_not_in_the_image_is_a_start_error(world: World) -> None:
    async with world.driver() as (driver, told):
        group = script(world, "", command=["no-such-program"])
        _, outcome = await run(driver, told, group)
        assert outcome.reason is FinishReason.START_ERROR, outcome
        assert "no-such-program" in (outcome.message or "")
