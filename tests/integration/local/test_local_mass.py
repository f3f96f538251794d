"""Many attempts at once, and failures of the driver itself that concern one of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import structlog
from local_cluster import Cluster, group, keys_of, shell

from cairn_bridge.cluster import AttemptKey, Fact, Phase
from cairn_bridge.drivers.local import driver as driver_module
from cairn_bridge.drivers.local import house, starting
from cairn_bridge.drivers.local.record import Record
from cairn_common.events import FinishReason
from cairn_runtime.room import Room


async def started(folder: Path, **options: Any) -> Cluster:
    cluster = Cluster(folder, isolation="none", **options)
    await cluster.driver.start(cluster.recorder)
    return cluster


async def running(cluster: Cluster) -> AttemptKey:
    placement = group(shell("exec sleep 1000"))
    await cluster.driver.place(placement, None)
    (key,) = keys_of(placement)
    await cluster.recorder.started(key)
    return key


async def test_what_is_stopped_while_it_waits_is_never_launched(tmp_path: Path) -> None:
    cluster = await started(tmp_path, cpus=2)
    runs = await running(cluster)
    # One slot is free and each gang needs two: a gang that lost a member would fit.
    gangs = [group(*(shell(f"touch {tmp_path}/ran") for _ in range(2))) for _ in range(3)]
    for each in gangs:
        await cluster.driver.place(each, None)
    keys = [key for each in gangs for key in keys_of(each)]
    with structlog.testing.capture_logs() as said:
        await cluster.driver.stop(keys, "canceled", 0)
        for key in keys:
            outcome = await cluster.recorder.outcome(key)
            assert (outcome.reason, outcome.message) == (FinishReason.STOPPED, "canceled")
        await cluster.driver.stop([runs], "canceled", 0)
        await cluster.recorder.outcome(runs)
        await cluster.driver.settle([runs, *keys])
    assert [entry for entry in said if entry["log_level"] == "error"] == []
    assert not any(cluster.recorder.reached(key, Phase.SCHEDULED) for key in keys)
    assert not (tmp_path / "ran").exists()
    assert list((cluster.root / "attempts").iterdir()) == []
    results = await cluster.run(shell("true"), shell("true"))  # all slots are free again
    assert [outcome.exit_code for _, outcome in results] == [0, 0]
    await cluster.empty()
    await cluster.driver.close()


async def test_stopping_while_slots_become_free(tmp_path: Path) -> None:
    cluster = await started(tmp_path, cpus=4)
    placements = [group(shell("true")) for _ in range(400)]
    await asyncio.gather(*(cluster.driver.place(each, None) for each in placements))
    keys = [key for each in placements for key in keys_of(each)]
    with structlog.testing.capture_logs() as said:
        await asyncio.gather(*(cluster.driver.stop([key], "canceled", 0) for key in keys))
        for key in keys:
            await cluster.recorder.outcome(key)
        await cluster.driver.settle(keys)
    assert [entry for entry in said if entry["log_level"] == "error"] == []
    assert cluster.driver.known() == frozenset()
    assert list((cluster.root / "attempts").iterdir()) == []
    await cluster.driver.close()


async def test_thousands_are_stopped_and_settled_in_one_go(tmp_path: Path) -> None:
    cluster = await started(tmp_path, cpus=1)
    runs = await running(cluster)
    placements = [group(shell("true")) for _ in range(5000)]
    await asyncio.gather(*(cluster.driver.place(each, None) for each in placements))
    keys = [key for each in placements for key in keys_of(each)]
    await cluster.driver.stop(keys, "canceled", 0)
    await cluster.recorder.until(lambda: len(cluster.recorder.finals) >= len(keys))
    await cluster.recorder.outcome(keys[-1])
    await cluster.driver.settle(keys)
    assert cluster.driver.known() == {runs}
    await cluster.empty()
    await cluster.driver.close()


async def test_an_end_that_is_being_told_while_others_are_settled_is_settled_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = await started(tmp_path)
    early, late = (group(shell("true")) for _ in range(2))
    heard, acknowledged = cluster.recorder.fact, asyncio.Event()

    async def fact(fact: Fact) -> None:
        await heard(fact)
        if fact.phase is Phase.FINISHED and set(fact.keys) <= set(keys_of(late)):
            await acknowledged.wait()  # the engine is faster than the bus is with its answer

    monkeypatch.setattr(cluster.recorder, "fact", fact)
    keys = [*keys_of(early), *keys_of(late)]
    for placement in (early, late):
        await cluster.driver.place(placement, None)
    for key in keys:
        await cluster.recorder.outcome(key)
    forget = Record.forget

    async def slowly(record: Record, keys: Sequence[AttemptKey]) -> None:
        acknowledged.set()
        await asyncio.sleep(0.2)
        await forget(record, keys)

    monkeypatch.setattr(Record, "forget", slowly)
    await cluster.driver.settle(keys)
    assert cluster.driver.known() == frozenset()
    await cluster.driver.close()


async def test_a_gang_of_hundreds_passes_its_barrier(tmp_path: Path) -> None:
    cluster = await started(tmp_path, cpus=300)
    results = await cluster.run(*(shell("true") for _ in range(300)), barrier=True)
    assert {outcome.exit_code for _, outcome in results} == {0}
    await cluster.empty()
    await cluster.driver.close()


async def test_what_was_settled_does_not_run_again(tmp_path: Path) -> None:
    cluster = await started(tmp_path)
    placement = group(shell(f"echo x >> {tmp_path}/runs"))
    (key,) = keys_of(placement)
    await cluster.driver.place(placement, None)
    await cluster.recorder.outcome(key)
    await cluster.driver.settle([key])
    for restart in (False, True):
        if restart:
            await cluster.again()
        cluster.recorder.facts.clear()
        await cluster.driver.place(placement, None)  # the bus has lost an acknowledgement
        assert (await cluster.recorder.outcome(key)).reason is FinishReason.NODE_LOST
        assert cluster.driver.known() == frozenset()
    assert (tmp_path / "runs").read_text() == "x\n"
    await cluster.driver.close()


async def test_a_task_that_cannot_be_briefed_fails_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = starting.brief

    def brief(room: Room, workflow: str, task: Any, *rest: Any, **options: Any) -> Any:
        if task.name == "bad":
            raise ValueError("no such thing")
        return genuine(room, workflow, task, *rest, **options)

    monkeypatch.setattr(starting, "brief", brief)
    cluster = await started(tmp_path, cpus=2)
    (_, bad), (_, good) = await cluster.run(
        shell("true", name="bad"), shell("true", name="good"), barrier=False
    )
    assert (bad.reason, good.exit_code) == (FinishReason.BACKEND_ERROR, 0)
    assert bad.message is not None
    assert "ValueError: no such thing" in bad.message
    assert (await cluster.one("true"))[1].exit_code == 0
    await cluster.empty()
    await cluster.driver.close()


async def test_an_attempt_that_cannot_be_followed_fails_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = await started(tmp_path, cpus=2)
    genuine = driver_module.shims.read_ending

    def read_ending(room: Room) -> Any:
        if room.path.name == "0-0":
            raise ValueError("unreadable")
        return genuine(room)

    monkeypatch.setattr(driver_module.shims, "read_ending", read_ending)
    (_, bad), (_, good) = await cluster.run(shell("true"), shell("true"), barrier=False)
    assert (bad.reason, good.exit_code) == (FinishReason.BACKEND_ERROR, 0)
    monkeypatch.undo()
    results = await cluster.run(shell("true"), shell("true"))  # its slot is free again
    assert [outcome.exit_code for _, outcome in results] == [0, 0]
    await cluster.empty()
    assert cluster.driver.known() == frozenset()
    await cluster.driver.close()


async def test_a_directory_that_cannot_be_removed_is_left_to_the_next_bridge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = await started(tmp_path)
    key, _ = await cluster.one("true")

    def refuse(path: Path) -> None:
        raise OSError(39, "Directory not empty", str(path))

    monkeypatch.setattr(house.shims, "remove_tree", refuse)
    await cluster.driver.settle([key])
    assert cluster.driver.known() == frozenset()
    assert list((cluster.root / "attempts").iterdir()) != []
    monkeypatch.undo()
    await cluster.again()
    assert list((cluster.root / "attempts").iterdir()) == []
    await cluster.driver.close()


async def test_the_end_of_a_log_always_comes_with_its_last_line(tmp_path: Path) -> None:
    cluster = await started(tmp_path)
    key, outcome = await cluster.one("echo one; echo two")
    assert outcome.log_lines == 2
    for from_seq in (1, 2):
        cluster.recorder.lines.clear()
        await cluster.driver.resend_log(key, from_seq)
        assert cluster.recorder.texts(key) == ["two"]
    await cluster.empty()
    await cluster.driver.close()
