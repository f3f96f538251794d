"""Checkpoints of real processes: while they run, after each kind of end, and when storage fails."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from local_cluster import Cluster, group, keys_of, shell

from cairn_bridge.cluster import AttemptKey
from cairn_common.events import (
    Checkpoint,
    FinishReason,
    InjectedFile,
    OutputTarget,
    Resources,
    RestartPolicy,
    TaskPlacement,
)

needs_namespaces = pytest.mark.parametrize("isolation", ["namespaces"], indirect=True)
MI = 1 << 20


def saving(script: str, path: str, target: Path, **fields: object) -> TaskPlacement:
    """A task whose folder `path` is checkpointed every second."""
    entry = Checkpoint(path=path, url=f"file://{target}", frequency=1)
    return shell(script, **{"checkpoints": [entry], **fields})


async def place(cluster: Cluster, task: TaskPlacement) -> AttemptKey:
    placement = group(task)
    await cluster.driver.place(placement, None)
    (key,) = keys_of(placement)
    return key


async def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    "path",
    ["/ckpt", "{{output}}/ckpt", "/tmp/deep/ckpt", "/var/run/ckpt", "/usr/share/{{workflow_id}}"],
)
async def test_the_store_has_it_while_the_task_runs_and_the_rest_at_its_end(
    cluster: Cluster, tmp_path: Path, path: str
) -> None:
    target = tmp_path / "kept"
    script = (
        f"mkdir -p {path}; for i in $(seq 30); do echo $i > {path}/$i; sleep 0.1; done;"
        f" echo end > {path}/last"
    )
    key = await place(cluster, saving(script, path, target))
    await until((target / "3").exists)
    await until((target / "15").exists)  # of a later turn
    assert not (target / "last").exists()
    outcome = await cluster.recorder.outcome(key)
    assert (outcome.reason, outcome.exit_code) == (FinishReason.EXITED, 0)
    assert (target / "last").read_text() == "end\n"
    assert [each.name for each in tmp_path.glob(".cairn-*")] == []
    notes = cluster.recorder.texts(key, "cairn")
    assert any("checkpointing" in line and f"to file://{target}" in line for line in notes)
    assert any("finished:" in line and " bytes" in line for line in notes)
    assert any(" 0 files unchanged" not in line for line in notes if "unchanged" in line)
    assert outcome.log_lines == len(notes)


async def test_a_command_that_fails_leaves_its_last_checkpoint(
    cluster: Cluster, tmp_path: Path
) -> None:
    _, outcome = (
        await cluster.run(saving("echo 7 > /ckpt/step; exit 3", "/ckpt", tmp_path / "kept"))
    )[0]
    assert (outcome.reason, outcome.exit_code) == (FinishReason.EXITED, 3)
    assert (tmp_path / "kept/step").read_text() == "7\n"


async def test_a_stop_leaves_what_the_command_saved_on_the_signal(
    cluster: Cluster, tmp_path: Path
) -> None:
    script = "trap 'echo saved > /ckpt/state; exit 0' TERM; echo up; sleep 60 & wait"
    key = await place(cluster, saving(script, "/ckpt", tmp_path / "kept", location="out"))
    await cluster.recorder.line(key, "up")
    await cluster.driver.stop([key], "enough", 10)
    outcome = await cluster.recorder.outcome(key)
    assert (outcome.reason, outcome.message) == (FinishReason.STOPPED, "enough")
    assert (tmp_path / "kept/state").read_text() == "saved\n"
    assert not (cluster.store / "out").exists()  # outputs are not kept then


async def test_a_command_that_has_to_be_killed_leaves_one_too(
    cluster: Cluster, tmp_path: Path
) -> None:
    script = "trap '' TERM; echo 1 > /ckpt/state; echo up; while true; do sleep 0.1; done"
    key = await place(
        cluster, saving(script, "/ckpt", tmp_path / "kept").model_copy(update={"outputs": []})
    )
    await cluster.recorder.line(key, "up")
    await cluster.driver.stop([key], "enough", 0.5)
    assert (await cluster.recorder.outcome(key)).reason is FinishReason.STOPPED
    assert (tmp_path / "kept/state").read_text() == "1\n"


async def test_without_grace_there_is_none(cluster: Cluster, tmp_path: Path) -> None:
    entry = Checkpoint(path="/ckpt", url=f"file://{tmp_path}/kept", frequency=600)
    task = shell("echo 1 > /ckpt/state; echo up; sleep 60", checkpoints=[entry])
    key = await place(cluster, task)
    await cluster.recorder.line(key, "up")
    await cluster.driver.stop([key], "at once", 0)
    assert (await cluster.recorder.outcome(key)).reason is FinishReason.STOPPED
    assert not (tmp_path / "kept").exists()


@needs_namespaces
async def test_one_that_takes_longer_than_the_grace_leaves_nothing_half(
    cluster: Cluster, tmp_path: Path
) -> None:
    entry = Checkpoint(path="/ckpt", url=f"file://{tmp_path}/kept", frequency=600)
    # A file that has holes is long to read and takes no room while the task has it.
    task = shell("truncate -s 1000G /ckpt/huge; echo up; exec sleep 60", checkpoints=[entry])
    key = await place(cluster, task)
    await cluster.recorder.line(key, "up")
    before = time.monotonic()
    await cluster.driver.stop([key], "enough", 0.2)
    assert (await cluster.recorder.outcome(key)).reason is FinishReason.STOPPED
    assert 1.5 < time.monotonic() - before < 8
    assert any("grace period" in line for line in cluster.recorder.texts(key, "cairn"))
    assert not (tmp_path / "kept").exists()
    assert not list(tmp_path.glob(".cairn-*"))


@needs_namespaces
async def test_a_stop_without_grace_ends_a_copy_at_once_and_tidily(
    cluster: Cluster, tmp_path: Path
) -> None:
    key = await place(
        cluster, saving("truncate -s 1000G /ckpt/huge; exec sleep 60", "/ckpt", tmp_path / "kept")
    )
    await until(lambda: any(tmp_path.glob(".cairn-*/new/huge")))
    before = time.monotonic()
    await cluster.driver.stop([key], "at once", 0)
    assert (await cluster.recorder.outcome(key)).reason is FinishReason.STOPPED
    assert time.monotonic() - before < 1.5
    assert not list(tmp_path.glob(".cairn-*"))


async def test_storage_that_is_away_is_tried_again_and_fails_only_the_end(
    cluster: Cluster, tmp_path: Path
) -> None:
    (tmp_path / "away").write_text("a file where the folder should be")
    script = "echo 1 > /ckpt/x; echo 2 > {{output}}/y; sleep 2.5"
    target = tmp_path / "away" / "kept"
    task = saving(script, "/ckpt", target, location="out")
    key = await place(cluster, task)
    outcome = await cluster.recorder.outcome(key)
    assert (outcome.reason, outcome.exit_code) == (FinishReason.OUTPUT_FAILED, 2012)
    assert outcome.message is not None
    assert outcome.message.startswith("the last checkpoint of ")
    assert str(target) in outcome.message
    again = [line for line in cluster.recorder.texts(key, "cairn") if "tried again" in line]
    assert len(again) == 2
    assert (cluster.store / "out/y").exists()  # outputs are kept all the same


async def test_storage_that_comes_back_is_used(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "away").write_text("")
    key = await place(
        cluster, saving("echo 1 > /ckpt/x; sleep 4", "/ckpt", tmp_path / "away" / "kept")
    )
    await cluster.recorder.until(
        lambda: any("again" in line for line in cluster.recorder.texts(key, "cairn"))
    )
    (tmp_path / "away").unlink()
    await until((tmp_path / "away/kept/x").exists)
    assert (await cluster.recorder.outcome(key)).reason is FinishReason.EXITED


async def test_nothing_yet_is_said_once_and_is_no_failure(cluster: Cluster, tmp_path: Path) -> None:
    task = saving("sleep 2.5", "{{output}}/later", tmp_path / "kept")
    ((key, outcome),) = await cluster.run(task)
    assert outcome.exit_code == 0
    (line,) = cluster.recorder.texts(key, "cairn")
    assert "there is nothing yet" in line
    assert not (tmp_path / "kept").exists()


async def test_a_command_that_runs_again_finds_its_folder_and_goes_on(
    cluster: Cluster, tmp_path: Path
) -> None:
    script = "echo x >> /ckpt/runs; test $(wc -l < /ckpt/runs) = 3 || exit 5"
    task = saving(
        script,
        "/ckpt",
        tmp_path / "kept",
        restart=RestartPolicy(exit_codes=[(5, 5)], limit=5, backoff_seconds=0.1),
    )
    _, outcome = (await cluster.run(task))[0]
    assert (outcome.exit_code, outcome.restarts) == (0, 2)
    assert (tmp_path / "kept/runs").read_text() == "x\n" * 3


async def test_folders_in_one_another_each_go_where_they_should(
    cluster: Cluster, tmp_path: Path
) -> None:
    entries = [
        Checkpoint(path="/train/run", url=f"file://{tmp_path}/all", frequency=60),
        Checkpoint(path="/train/run/best", url=f"file://{tmp_path}/best", frequency=60),
        Checkpoint(path="/train/run", url=f"file://{tmp_path}/logs", frequency=60, regex=r"\.log$"),
    ]
    script = "mkdir -p /train/run/best; cd /train/run; echo 1 > best/model; echo 2 > a.log"
    _, outcome = (await cluster.run(shell(script, checkpoints=entries)))[0]
    assert outcome.exit_code == 0
    assert (tmp_path / "all/best/model").exists()
    assert (tmp_path / "all/a.log").exists()
    assert [path.name for path in (tmp_path / "best").iterdir()] == ["model"]
    assert [path.name for path in (tmp_path / "logs").iterdir()] == ["a.log"]


@needs_namespaces
async def test_the_folder_is_the_tasks_own_and_injected_files_are_in_it(
    cluster: Cluster, tmp_path: Path
) -> None:
    machine = Path("/etc/ssl")
    assert any(machine.iterdir())
    task = saving(
        "ls -A /etc/ssl; cat /etc/ssl/sub/a.txt",
        "/etc/ssl",
        tmp_path / "kept",
        files=[InjectedFile(path="/etc/ssl/sub/a.txt", contents="injected\n")],
    )
    ((key, _),) = await cluster.run(task)
    assert cluster.recorder.texts(key, "stdout") == ["sub", "injected"]
    assert (tmp_path / "kept/sub/a.txt").read_text() == "injected\n"
    assert not (machine / "sub").exists()


@needs_namespaces
async def test_out_of_memory_leaves_the_last_checkpoint(cluster: Cluster, tmp_path: Path) -> None:
    script = "echo 1 > /ckpt/x; python3 -c 'x = bytes([1]) * (200 << 20); input()' < /dev/zero"
    task = saving(script, "/ckpt", tmp_path / "kept", resources=Resources(cpu=1, memory=60 * MI))
    _, outcome = (await cluster.run(task))[0]
    assert outcome.reason is FinishReason.OUT_OF_MEMORY
    assert (tmp_path / "kept/x").exists()


async def test_a_new_bridge_changes_nothing_for_checkpoints(
    cluster: Cluster, tmp_path: Path
) -> None:
    script = "for i in $(seq 40); do echo $i > /ckpt/$i; sleep 0.1; done"
    key = await place(cluster, saving(script, "/ckpt", tmp_path / "kept"))
    await until((tmp_path / "kept").exists)
    await cluster.again()
    seen = len(list((tmp_path / "kept").iterdir()))
    await until(lambda: len(list((tmp_path / "kept").iterdir())) > seen)
    assert (await cluster.recorder.outcome(key)).reason is FinishReason.EXITED


async def test_outputs_have_their_own_way(cluster: Cluster, tmp_path: Path) -> None:
    task = saving(
        "mkdir {{output}}/ck; echo 1 > {{output}}/ck/a",
        "{{output}}/ck",
        tmp_path / "kept",
        outputs=[OutputTarget(url=f"file://{tmp_path}/out")],
    )
    await cluster.run(task)
    assert (tmp_path / "kept/a").exists()
    assert (tmp_path / "out/ck/a").exists()


async def test_when_its_process_is_killed_the_last_checkpoint_is_still_made(
    cluster: Cluster, tmp_path: Path
) -> None:
    script = "echo 1 > /ckpt/a; sleep 3; echo 2 > /ckpt/b"
    key = await place(cluster, saving(script, "/ckpt", tmp_path / "kept"))
    await until((tmp_path / "kept/a").exists)
    shim = (cluster.root / f"attempts/{key.workflow}/0-0/pid").read_text().split()[0]
    children = Path(f"/proc/{shim}/task/{shim}/children").read_text().split()
    # The init has its own PID namespace, or children; the one that makes checkpoints has threads.
    (keeper,) = [pid for pid in children if len(list(Path(f"/proc/{pid}/task").iterdir())) > 1]
    os.kill(int(keeper), signal.SIGKILL)
    assert (await cluster.recorder.outcome(key)).exit_code == 0
    assert (tmp_path / "kept/b").exists()
    assert any("only the last one" in line for line in cluster.recorder.texts(key, "cairn"))


async def test_a_stop_between_two_runs_of_the_command_leaves_the_last_checkpoint(
    cluster: Cluster, tmp_path: Path
) -> None:
    restart = RestartPolicy(exit_codes=[(5, 5)], limit=5, backoff_seconds=60)
    entry = Checkpoint(path="/ckpt", url=f"file://{tmp_path}/kept", frequency=600)
    task = shell("echo 1 > /ckpt/a; exit 5", checkpoints=[entry], restart=restart)
    key = await place(cluster, task)
    await cluster.recorder.until(
        lambda: any("restart 1 begins" in line for line in cluster.recorder.texts(key))
    )
    await cluster.driver.stop([key], "enough", 5)
    assert (await cluster.recorder.outcome(key)).reason is FinishReason.STOPPED
    assert (tmp_path / "kept/a").exists()
