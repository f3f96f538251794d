"""Starting, stopping, gangs, restarts and crashes of the local cluster."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import textwrap
from pathlib import Path

from local_cluster import Cluster, Recorder, group, keys_of, shell

from cairn_bridge.cluster import AttemptKey, Phase
from cairn_bridge.drivers.local import LocalDriver
from cairn_common.events import FinishReason, InputSource, Resources
from cairn_runtime.room import Room


def room_of(cluster: Cluster, key: AttemptKey) -> Room:
    return Room(cluster.root / "attempts" / key.workflow / f"{key.index}-{key.attempt}")


def shim_of(cluster: Cluster, key: AttemptKey) -> int:
    return int(room_of(cluster, key).pid.read_text().split()[0])


async def gone(pid: int) -> None:
    """Until a process has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(descriptor, ended.set)
    try:
        await asyncio.wait_for(ended.wait(), 20)
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


async def running(cluster: Cluster, script: str) -> AttemptKey:
    placement = group(shell(script))
    await cluster.driver.place(placement, None)
    (key,) = keys_of(placement)
    await cluster.recorder.started(key)
    return key


# --- stopping ---


async def test_stop_asks_first(cluster: Cluster) -> None:
    key = await running(
        cluster, "trap 'echo bye; exit 5' TERM; echo up; while :; do sleep 0.1; done"
    )
    await cluster.recorder.line(key, "up")
    await cluster.driver.stop([key], "canceled by somebody", 20)
    outcome = await cluster.recorder.outcome(key)
    assert (outcome.reason, outcome.exit_code) == (FinishReason.STOPPED, 5)
    assert outcome.message == "canceled by somebody"
    assert cluster.recorder.texts(key)[-1] == "bye"


async def test_stop_insists_after_the_grace(cluster: Cluster) -> None:
    key = await running(cluster, "trap '' TERM; echo up; while :; do sleep 0.1; done")
    await cluster.recorder.line(key, "up")
    await cluster.driver.stop([key], "canceled", 0.2)
    outcome = await cluster.recorder.outcome(key)
    assert (outcome.reason, outcome.exit_code) == (FinishReason.STOPPED, 137)


async def test_stop_reaches_children_in_sessions_of_their_own(cluster: Cluster) -> None:
    key = await running(
        cluster, "setsid sh -c 'trap \"\" TERM; echo up; exec sleep 1000' & sleep 1000"
    )
    await cluster.recorder.line(key, "up")
    shim = shim_of(cluster, key)
    before = descendants(shim)
    assert len(before) >= 3
    await cluster.driver.stop([key], "canceled", 0.3)
    await cluster.recorder.outcome(key)
    for pid in before:
        await gone(pid)


async def test_what_a_command_leaves_running_ends_with_it(cluster: Cluster) -> None:
    key, outcome = await cluster.one("setsid sleep 1000 & echo done")
    assert (outcome.exit_code, cluster.recorder.texts(key)) == (0, ["done"])


async def test_stopping_what_waits_or_is_unknown(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, isolation="none", cpus=1)
    await cluster.driver.start(cluster.recorder)
    first = await running(cluster, "sleep 1000")
    waiting = group(shell("echo never"))
    await cluster.driver.place(waiting, None)
    unheard = group(shell("echo never"))
    keys = [*keys_of(waiting), *keys_of(unheard)]
    await cluster.driver.stop(keys, "canceled", 1)
    for key in keys:
        outcome = await cluster.recorder.outcome(key)
        assert (outcome.reason, outcome.exit_code) == (FinishReason.STOPPED, None)
    # The placement that the stop has overtaken is not run when it comes.
    await cluster.driver.place(unheard, None)
    await cluster.again()
    await cluster.driver.place(unheard, None)
    await cluster.recorder.outcome(keys[1])
    assert not cluster.recorder.reached(keys[1], Phase.SCHEDULED)
    await cluster.driver.stop([first], "over", 0)
    await cluster.recorder.outcome(first)
    await cluster.driver.report_all()
    await cluster.empty()
    assert list((cluster.root / "attempts").iterdir()) == []
    await cluster.driver.close()


# --- gangs ---


async def test_a_gang_starts_together_and_its_lead_first(cluster: Cluster, tmp_path: Path) -> None:
    big = tmp_path / "input"
    big.mkdir()
    (big / "file").write_bytes(b"x" * 10_000_000)
    inputs = [InputSource(url=f"file://{big}")]
    clock = "date +%s.%N"
    lead = shell(clock, name="lead", lead=True)
    slow = shell(f"{clock}; test -s {{{{input:0}}}}/file", name="slow", inputs=inputs)
    results = await cluster.run(lead, slow, shell(clock, name="third"))
    assert [outcome.exit_code for _, outcome in results] == [0, 0, 0]
    first, *others = [float(cluster.recorder.texts(key, "stdout")[0]) for key, _ in results]
    assert all(first < other for other in others)


async def test_a_member_that_fails_before_the_barrier_fails_the_others(cluster: Cluster) -> None:
    bad = shell("true", name="bad", inputs=[InputSource(url="file:///nothing/here")])
    results = await cluster.run(shell("echo never", name="good", lead=True), bad)
    assert [outcome.exit_code for _, outcome in results] == [2024, 2010]
    assert "task bad ended before" in (results[0][1].message or "")
    assert cluster.recorder.texts(results[0][0], "stdout") == []


async def test_no_more_run_at_once_than_there_are_slots(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, isolation="none", cpus=2)
    await cluster.driver.start(cluster.recorder)
    marks = tmp_path / "marks"
    marks.mkdir()
    script = f"mkdir {marks}/$$; ls {marks} | wc -l; sleep 0.05; rmdir {marks}/$$"
    # `$$` means `$` in a command, as on Kubernetes.
    placements = [group(shell(script.replace("$", "$$$$"))) for _ in range(20)]
    await asyncio.gather(*(cluster.driver.place(each, None) for each in placements))
    keys = [key for each in placements for key in keys_of(each)]
    for key in keys:
        await cluster.recorder.outcome(key)
        assert int(cluster.recorder.texts(key, "stdout")[0]) <= 2
    (node,) = await cluster.driver.inventory()
    assert (node.cpu, node.used_cpu) == (2, 0)
    await cluster.empty()
    await cluster.driver.close()


async def test_the_time_to_start_is_limited(cluster: Cluster, tmp_path: Path) -> None:
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 33)  # a hole that takes seconds to copy
    task = shell("true", inputs=[InputSource(url=f"file://{tmp_path}/huge")])
    ((_, outcome),) = await cluster.run(task, start_timeout=0.2)
    assert (outcome.reason, outcome.exit_code) == (FinishReason.START_TIMEOUT, 3005)
    assert "0.2 s" in (outcome.message or "")


# --- placing again, telling again ---


async def test_placing_twice_is_placing_once(cluster: Cluster) -> None:
    placement = group(shell("echo once >> {{output}}/count", location="twice"))
    (key,) = keys_of(placement)
    await asyncio.gather(*(cluster.driver.place(placement, None) for _ in range(3)))
    await cluster.recorder.outcome(key)
    await cluster.driver.place(placement, None)
    assert (cluster.store / "twice/count").read_text() == "once\n"


async def test_everything_is_told_again_when_asked(cluster: Cluster) -> None:
    done, _ = await cluster.one("seq 1000")
    key = await running(cluster, "echo up; sleep 1000")
    await cluster.recorder.line(key, "up")
    cluster.recorder.facts.clear()
    cluster.recorder.lines.clear()
    await cluster.driver.report_all()
    await cluster.recorder.started(key)
    await cluster.recorder.line(key, "up")
    assert (await cluster.recorder.outcome(done)).log_lines == 1000
    assert len(cluster.recorder.lines[done]) == 1000
    cluster.recorder.lines.clear()
    await cluster.driver.resend_log(done, 990)
    assert sorted(cluster.recorder.lines[done]) == list(range(990, 1000))
    assert cluster.driver.known() == {done, key}


# --- restarts and crashes ---


async def test_a_new_bridge_finds_what_runs_waits_and_ended(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, cpus=1)
    await cluster.driver.start(cluster.recorder)
    done, _ = await cluster.one("echo done")
    key = await running(
        cluster, "echo one; trap 'echo two; exit 9' TERM; while :; do sleep 0.1; done"
    )
    await cluster.recorder.line(key, "one")
    waiting = group(shell("echo three"))
    await cluster.driver.place(waiting, None)
    shim = shim_of(cluster, key)
    await cluster.again()
    assert shim_of(cluster, key) == shim
    assert len(cluster.driver.known()) == 3
    assert cluster.recorder.facts == []  # nothing twice unless asked
    await cluster.driver.stop([key], "enough", 20)
    assert (await cluster.recorder.outcome(key)).exit_code == 9
    assert cluster.recorder.texts(key)[-1] == "two"
    (last,) = keys_of(waiting)
    assert (await cluster.recorder.outcome(last)).exit_code == 0
    await cluster.driver.report_all()
    assert (await cluster.recorder.outcome(done)).log_lines == 1
    await cluster.empty()
    await cluster.driver.close()


async def test_an_end_that_nobody_saw_is_told_by_the_next_bridge(cluster: Cluster) -> None:
    gate = "{{output}}/gate"
    key = await running(cluster, f"mkfifo {gate}; echo up; read x < {gate}; echo $x; exit 6")
    await cluster.recorder.line(key, "up")
    shim = shim_of(cluster, key)
    await cluster.driver.close()
    await asyncio.to_thread((room_of(cluster, key).output / "gate").write_text, "down\n")
    await gone(shim)
    cluster.recorder = Recorder()
    cluster.driver = LocalDriver(cluster.root, cluster.store, **cluster.options)
    await cluster.driver.start(cluster.recorder)
    outcome = await cluster.recorder.outcome(key)
    assert (outcome.reason, outcome.exit_code) == (FinishReason.EXITED, 6)
    assert outcome.log_lines == len(cluster.recorder.lines[key]) == 2


async def test_a_shim_that_is_killed_takes_its_task_along(cluster: Cluster) -> None:
    key = await running(cluster, "echo up; exec sleep 1000")
    await cluster.recorder.line(key, "up")
    shim = shim_of(cluster, key)
    below = descendants(shim)
    os.kill(shim, signal.SIGKILL)
    outcome = await cluster.recorder.outcome(key)
    assert (outcome.reason, outcome.exit_code) == (FinishReason.NODE_LOST, 3001)
    assert outcome.log_lines == 1
    for pid in below:
        if cluster.driver.isolation == "namespaces" or pid == below[0]:
            await gone(pid)
        else:
            os.kill(pid, signal.SIGKILL)


BRIDGE = """
    import asyncio, sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[3])
    from local_cluster import Recorder, group, keys_of, shell
    from cairn_bridge.drivers.local import LocalDriver

    async def main():
        recorder = Recorder()
        lifeline = int(sys.argv[4]) if len(sys.argv) > 4 else None
        driver = LocalDriver(Path(sys.argv[1]), Path(sys.argv[2]), cpus=2, lifeline=lifeline)
        await driver.start(recorder)
        placements = [
            group(shell("echo up; sleep 1.5; echo down"), workflow=f"killed-{n}") for n in range(5)
        ]
        await asyncio.gather(*(driver.place(each, None) for each in placements))
        await asyncio.gather(*(recorder.started(keys_of(each)[0]) for each in placements[:2]))
        sys.stdout.write("placed\\n")
        sys.stdout.flush()
        await asyncio.sleep(1000)

    asyncio.run(main())
"""


async def bridge(
    tmp_path: Path, *more: str, fds: tuple[int, ...] = ()
) -> asyncio.subprocess.Process:
    """Another process that drives a cluster; returns once two of its five tasks run."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        textwrap.dedent(BRIDGE),
        str(tmp_path / "cluster"),
        str(tmp_path / "store"),
        str(Path(__file__).parent),
        *more,
        stdout=asyncio.subprocess.PIPE,
        pass_fds=fds,
    )
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readline(), 30) == b"placed\n"
    return process


async def test_a_bridge_that_is_killed_loses_nothing(tmp_path: Path) -> None:
    process = await bridge(tmp_path)
    process.kill()
    await process.wait()
    cluster = Cluster(tmp_path, cpus=2)
    await cluster.driver.start(cluster.recorder)
    await cluster.driver.report_all()
    keys = sorted(cluster.driver.known())
    assert len(keys) == 5
    for key in keys:
        outcome = await cluster.recorder.outcome(key)
        assert (outcome.reason, outcome.exit_code) == (FinishReason.EXITED, 0)
        assert cluster.recorder.texts(key) == ["up", "down"]
    await cluster.empty()
    await cluster.driver.close()


async def test_when_the_lifeline_breaks_everything_vanishes(tmp_path: Path) -> None:
    read, write = os.pipe()
    process = await bridge(tmp_path, str(read), fds=(read,))
    os.close(read)
    cluster = Cluster(tmp_path, cpus=2)
    keys = [AttemptKey(f"killed-{n}", 0, 0, "task") for n in range(2)]
    shims = [shim_of(cluster, key) for key in keys]
    processes = [pid for shim in shims for pid in (shim, *descendants(shim))]
    assert len(processes) >= 6
    os.close(write)
    for pid in processes:
        await gone(pid)
    process.kill()
    await process.wait()
    assert not any(room_of(cluster, key).ending.exists() for key in keys)
    await cluster.driver.start(cluster.recorder)
    await cluster.driver.report_all()
    for key in keys:
        assert (await cluster.recorder.outcome(key)).reason is FinishReason.NODE_LOST
    await cluster.empty()
    await cluster.driver.close()


# --- many and much ---


async def test_a_thousand_tasks_and_a_flood(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, cpus=8)
    await cluster.driver.start(cluster.recorder)
    placements = [group(shell("echo hi", resources=Resources(cpu=1))) for _ in range(60)]
    flood = group(shell("yes some words | head -300000", name="flood"))
    await asyncio.gather(*(cluster.driver.place(each, None) for each in [*placements, flood]))
    for placement in placements:
        (key,) = keys_of(placement)
        assert (await cluster.recorder.outcome(key, 100)).exit_code == 0
    (key,) = keys_of(flood)
    outcome = await cluster.recorder.outcome(key, 100)
    assert outcome.log_lines == len(cluster.recorder.lines[key]) == 300_000
    await cluster.empty()
    assert list((cluster.root / "attempts").iterdir()) == []
    await cluster.driver.close()


async def test_a_log_beyond_its_limit_is_cut_and_counted(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, log_limit=100_000)
    await cluster.driver.start(cluster.recorder)
    key, outcome = await cluster.one("seq 100000")
    texts = cluster.recorder.texts(key)
    assert outcome.exit_code == 0
    assert texts[:3] == ["1", "2", "3"]
    assert texts[-1] == f"{100_000 - len(texts) + 1} lines dropped: the log has reached its limit"
    await cluster.empty()
    await cluster.driver.close()


def descendants(pid: int) -> list[int]:
    """All processes below one, as they are now."""
    found: list[int] = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        for child in (thread / "children").read_text().split():
            found += [int(child), *descendants(int(child))]
    return found
