"""What a task sees, says and leaves, with and without namespaces."""

from __future__ import annotations

import base64
import os
import sys
from pathlib import Path

import pytest
from local_cluster import Cluster, group, keys_of, shell

from cairn_bridge.cluster import Phase, PlacementError
from cairn_common.events import (
    FinishReason,
    InjectedFile,
    InputSource,
    OutputTarget,
    Resources,
)

needs_namespaces = pytest.mark.parametrize("isolation", ["namespaces"], indirect=True)


async def test_facts_come_in_order_and_the_log_before_the_end(cluster: Cluster) -> None:
    key, outcome = await cluster.one("echo out; echo err >&2; exit 3")
    assert (outcome.reason, outcome.exit_code) == (FinishReason.EXITED, 3)
    story = [what for who, what in cluster.recorder.story if who == key]
    assert story == ["accepted", "scheduled", "started", "log", "finished"]
    assert sorted(cluster.recorder.texts(key)) == ["err", "out"]
    assert cluster.recorder.texts(key, "stderr") == ["err"]
    assert outcome.log_lines == 2
    assert outcome.started_at is not None
    assert sorted(cluster.recorder.lines[key]) == [0, 1]


async def test_a_signal_is_reported_as_the_shell_does(cluster: Cluster) -> None:
    _, outcome = await cluster.one("kill -9 $(exec sh -c 'echo $PPID')")
    assert (outcome.reason, outcome.exit_code) == (FinishReason.EXITED, 137)


async def test_a_missing_program_is_127_and_says_so(cluster: Cluster) -> None:
    ((key, outcome),) = await cluster.run(shell("").model_copy(update={"command": ["nvidia-smo"]}))
    assert outcome.exit_code == 127
    assert not cluster.recorder.reached(key, Phase.STARTED)
    (line,) = cluster.recorder.texts(key, "cairn")
    assert "`nvidia-smo` is not on this machine" in line
    assert "does not use image ubuntu:24.04" in line


async def test_the_environment_is_clean_and_its_own(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_PASSWORD", "secret")
    task = shell("env; cd; pwd >&2", environment={"FROM": "$HOME {{workflow_id}}"})
    placement = group(task)
    await cluster.driver.place(placement, "00-trace-01")
    (key,) = keys_of(placement)
    await cluster.recorder.outcome(key)
    said = dict(line.split("=", 1) for line in cluster.recorder.texts(key, "stdout"))
    assert "DATABASE_PASSWORD" not in said
    assert said["CAIRN_WORKFLOW_ID"] == placement.workflow
    assert (said["CAIRN_TASK"], said["CAIRN_ATTEMPT"]) == ("task", "0")
    assert said["TRACEPARENT"] == "00-trace-01"
    assert said["FROM"] == f"$HOME {placement.workflow}"
    assert cluster.recorder.texts(key, "stderr") == [said["HOME"]]


async def test_kubernetes_variables_are_expanded(cluster: Cluster) -> None:
    key, _ = await cluster.one("echo $(GREETING) $(date +x)", environment={"GREETING": "hi"})
    assert cluster.recorder.texts(key) == ["hi x"]


async def test_injected_files_at_one_path_never_meet(cluster: Cluster) -> None:
    script = "sh {{output}}/../../../nothing 2>/dev/null; /tmp/run.sh; cat /workspace/x.py; ls /tmp"
    tasks = [
        shell(
            script,
            name=f"t{number}",
            files=[
                InjectedFile(path="/tmp/run.sh", contents=f"#!/bin/sh\necho run {number}\n"),
                InjectedFile(
                    path="/workspace/x.py",
                    contents=base64.b64encode(f"print({number})\n".encode()).decode(),
                    base64=True,
                ),
            ],
        )
        for number in range(3)
    ]
    results = await cluster.run(*tasks)
    for number, (key, outcome) in enumerate(results):
        assert outcome.exit_code == 0
        assert cluster.recorder.texts(key)[:2] == [f"run {number}", f"print({number})"]
    assert not Path("/workspace/x.py").exists()


@needs_namespaces
async def test_a_task_cannot_change_the_machine(cluster: Cluster, tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    witness.write_text("before")
    probe = Path("/var/tmp") / f"cairn-{os.getpid()}"
    key, outcome = await cluster.one(
        f"echo after > {witness}; cat /etc/cairn.conf; touch /etc/more /cairn-top {probe} "
        f"/dev/shm/cairn-{os.getpid()}; hostname; echo $$ $(ls /proc | grep -c '^[0-9]'); "
        f"ls -A {cluster.root} {cluster.store} 2>/dev/null | grep -v : | wc -w",
        name="alone",
        files=[InjectedFile(path="/etc/cairn.conf", contents="mine\n")],
    )
    assert outcome.exit_code == 0, cluster.recorder.texts(key)
    said = cluster.recorder.texts(key, "stdout")
    assert said[:2] == ["mine", "alone"]
    assert int(said[2].split()[1]) <= 6
    assert said[3:] == ["0"]
    if not str(tmp_path).startswith("/tmp"):  # which is private anyway
        assert witness.read_text() == "before"
    for path in ("/etc/cairn.conf", "/etc/more", "/cairn-top", probe):
        assert not Path(path).exists()


@needs_namespaces
async def test_a_task_has_no_rights_to_mount(cluster: Cluster) -> None:
    key, outcome = await cluster.one("mount -t tmpfs none /mnt && echo mounted")
    assert outcome.exit_code != 0
    assert "mounted" not in cluster.recorder.texts(key)


@needs_namespaces
async def test_archives_can_be_unpacked(cluster: Cluster) -> None:
    script = "mkdir a && echo x > a/b && tar cf a.tar a && rm -r a && tar xf a.tar && cat a/b"
    key, _ = await cluster.one(script)
    assert cluster.recorder.texts(key) == ["x"]


async def test_outputs_reach_the_next_task(cluster: Cluster, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    first = shell(
        "mkdir {{output}}/deep; echo data > {{output}}/deep/a.txt; echo no > {{output}}/b.bin; "
        "ln -s {{output}}/deep/a.txt {{output}}/inside; ln -s /etc/passwd {{output}}/outside; "
        "mkfifo {{output}}/pipe; chmod 750 {{output}}/b.bin; exit 4",
        name="first",
        location="flow/first/0",
        outputs=[OutputTarget(url=f"file://{elsewhere}/{{{{workflow_id}}}}", regex=r"\.txt$")],
    )
    ((key, outcome),) = await cluster.run(first)
    assert outcome.exit_code == 4  # and its outputs are kept all the same
    left = cluster.store / "flow/first/0"
    assert sorted(str(p.relative_to(left)) for p in left.rglob("*")) == [
        "b.bin",
        "deep",
        "deep/a.txt",
        "inside",
    ]
    assert (left / "inside").readlink() == Path("deep/a.txt")
    assert (left / "b.bin").stat().st_mode & 0o777 == 0o750
    notes = " ".join(cluster.recorder.texts(key, "cairn"))
    assert "outside is a link out of the folder" in notes
    assert "pipe is no file" in notes
    assert [p.name for p in (elsewhere / key.workflow).rglob("*.*")] == ["a.txt"]

    second = shell(
        "cat {{input:0}}/deep/a.txt {{input:first}}/inside; ls {{input:1}} {{input:2}}; "
        "echo more > {{input:0}}/own",
        name="second",
        inputs=[
            InputSource(task="first", location="flow/first/0"),
            InputSource(url=f"file://{left}", regex="bin"),
            InputSource(task="ghost", location="flow/ghost/0"),
        ],
    )
    ((key, outcome),) = await cluster.run(second)
    assert outcome.exit_code == 0, cluster.recorder.texts(key)
    said = cluster.recorder.texts(key, "stdout")
    assert said[:2] == ["data", "data"]
    assert "b.bin" in said
    assert any("ghost" in line and "is empty" in line for line in cluster.recorder.texts(key))
    assert not (left / "own").exists()


async def test_failed_transfers_say_what_and_where(cluster: Cluster, tmp_path: Path) -> None:
    source = InputSource(url=f"file://{tmp_path}/nothing")
    key, outcome = await cluster.one("echo never", inputs=[source])
    assert (outcome.reason, outcome.exit_code) == (FinishReason.INPUT_FAILED, 2010)
    assert f"there is nothing at {tmp_path}/nothing" in (outcome.message or "")
    assert "never" not in cluster.recorder.texts(key)

    (tmp_path / "file").write_text("in the way")
    target = OutputTarget(url=f"file://{tmp_path}/file/below")
    _, outcome = await cluster.one("echo x > {{output}}/x", outputs=[target])
    assert (outcome.reason, outcome.exit_code) == (FinishReason.OUTPUT_FAILED, 2012)
    assert f"{tmp_path}/file" in (outcome.message or "")

    _, outcome = await cluster.one("true", inputs=[InputSource(url="s3://bucket/x")])
    assert outcome.exit_code == 2010
    assert "s3://bucket/x" in (outcome.message or "")


async def test_memory_beyond_the_limit_ends_the_task(cluster: Cluster) -> None:
    python = Path(sys.executable).resolve()  # the link to it may lie below /tmp
    script = f"exec {python} -c 'import time; x = bytes(1) * 200_000_000; time.sleep(99)'"
    script = script.replace("bytes(1)", 'b"x"')  # zeros would not be resident
    key, outcome = await cluster.one(script, resources=Resources(memory=64 << 20))
    assert (outcome.reason, outcome.exit_code) == (FinishReason.OUT_OF_MEMORY, 137)
    assert "64 MiB" in (outcome.message or "")
    assert outcome.message in cluster.recorder.texts(key)[-1]


async def test_what_can_never_run_is_refused(cluster: Cluster) -> None:
    with pytest.raises(PlacementError, match="GPUs"):
        await cluster.driver.place(group(shell("", resources=Resources(gpu=1))), None)
    with pytest.raises(PlacementError, match="CPU slots"):
        await cluster.driver.place(group(shell("", resources=Resources(cpu=10_000))), None)
    with pytest.raises(PlacementError, match="memory"):
        await cluster.driver.place(group(shell("", resources=Resources(memory=1 << 60))), None)
    assert not cluster.driver.known()


async def test_the_fallback_netcat_waits_for_the_server(cluster: Cluster) -> None:
    port = 20_000 + os.getpid() % 20_000
    server = shell(
        f"sleep 0.5; echo hello > /tmp/h.txt; nc -w 20 -l -p {port} < /tmp/h.txt",
        name="server",
        lead=True,
    )
    client = shell(f"nc -w 20 {{{{host:server}}}} {port} < /dev/null", name="client")
    results = await cluster.run(server, client)
    assert [outcome.exit_code for _, outcome in results] == [0, 0]
    assert cluster.recorder.texts(results[1][0], "stdout") == ["hello"]


async def test_a_program_runs_beside_the_task(cluster: Cluster) -> None:
    placement = group(shell("echo mine > note; sleep 60"))
    (key,) = keys_of(placement)
    await cluster.driver.place(placement, None)
    await cluster.recorder.started(key)
    stream = await cluster.driver.exec(
        key, ["sh", "-c", "while ! cat note; do :; done; cat; exit 7"]
    )
    await stream.write(b"typed")
    await stream.write(b"")
    said = b"".join([data async for data in stream.read()])
    assert (said[-10:], await stream.wait()) == (b"mine\ntyped", 7)
    missing = await cluster.driver.exec(key, ["no-such-program"])
    said = b"".join([data async for data in missing.read()])
    assert b"no-such-program: No such file" in said
    assert await missing.wait() == 127
