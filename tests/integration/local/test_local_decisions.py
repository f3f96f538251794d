"""The pure parts of the local driver: who may start, and what a task is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from local_cluster import shell

from cairn_bridge.drivers.local.admission import PATIENCE, Admission, Slots
from cairn_bridge.drivers.local.briefing import Local, brief, expand
from cairn_common.events import Checkpoint, InjectedFile, InputSource
from cairn_runtime.room import NO_ISOLATION, Room, Task
from cairn_runtime.room import Checkpoint as Order


def test_first_come_first_served_within_a_priority() -> None:
    line = Admission(Slots(cpus=1))
    for gang, priority in enumerate(["LOW", "NORMAL", "HIGH", "NORMAL"]):
        line.join(gang, Slots(cpus=1), priority)
    order = []
    while admitted := line.admit(0.0):
        order += admitted
        line.release(Slots(cpus=1))
    assert order == [2, 1, 3, 0]


def test_small_gangs_pass_a_big_one_but_not_for_ever() -> None:
    line = Admission(Slots(cpus=4))
    line.join(1, Slots(cpus=1), "NORMAL")
    line.join(2, Slots(cpus=4), "NORMAL")
    line.join(3, Slots(cpus=1), "NORMAL")
    assert line.admit(0.0) == [1, 3]
    line.join(4, Slots(cpus=1), "NORMAL")
    assert line.admit(PATIENCE) == []
    line.release(Slots(cpus=1))
    assert line.admit(PATIENCE) == []
    line.release(Slots(cpus=1))
    assert line.admit(PATIENCE) == [2]


def test_a_gang_that_shrinks_may_leave() -> None:
    line = Admission(Slots(cpus=2))
    line.take(Slots(cpus=2))
    line.join(1, Slots(cpus=2), "NORMAL")
    line.shrink(1, Slots())
    line.release(Slots(cpus=2))
    assert line.admit(0.0) == []


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 3)), max_size=30))
def test_never_more_than_there_is_and_everybody_in_the_end(
    wishes: list[tuple[int, int]],
) -> None:
    line = Admission(Slots(cpus=5, memory=3))
    needs = [Slots(cpus, memory) for cpus, memory in wishes]
    for gang, need in enumerate(needs):
        line.join(gang, need, "NORMAL")
    running: list[int] = []
    seen: list[int] = []
    for moment in range(2 * len(needs) + 1):
        running += line.admit(float(moment))
        assert line.taken.within(line.capacity)
        if running:
            seen.append(running.pop(0))
            line.release(needs[seen[-1]])
    assert sorted(seen) == list(range(len(needs)))
    assert line.taken == Slots()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("$(A)-$(B)", "1-$(B)"),
        ("$$(A) $$", "$(A) $"),
        ("$A ${A} $(A", "$A ${A} $(A"),
        ("x$", "x$"),
    ],
)
def test_variables_of_kubernetes(text: str, expected: str) -> None:
    assert expand(text, {"A": "1"}) == expected


def test_without_namespaces_paths_of_files_are_replaced(tmp_path: Path) -> None:
    room = Room(tmp_path)
    local = Local(tmp_path / "store", tmp_path / "tools", "/bin", NO_ISOLATION, 0, ())
    task = shell(
        "sh /tmp/run.sh /tmp/run.sh.conf {{input:up}} {{input:1}} {{host:x}} {{uuid}}",
        files=[
            InjectedFile(path="/tmp/run.sh", contents="cat /tmp/run.sh.conf"),
            InjectedFile(path="/tmp/run.sh.conf", contents="{{output}}"),
        ],
        inputs=[InputSource(url="file:///x"), InputSource(task="up", location="l")],
        environment={"PATH": "/mine"},
    )
    told = brief(room, "flow-1", task, None, local, wait=False)
    files = tmp_path / "files"
    one = tmp_path / "osmo/data/input/1"
    assert told.argv[2] == (
        f"sh {files}/tmp/run.sh {files}/tmp/run.sh.conf {one} {one} 127.0.0.1 {{{{uuid}}}}"
    )
    assert [file.path for file in told.files] == [
        f"{files}/tmp/run.sh",
        f"{files}/tmp/run.sh.conf",
    ]
    assert told.files[0].contents == f"cat {files}/tmp/run.sh.conf"
    assert told.files[1].contents == f"{tmp_path}/osmo/data/output"
    assert told.environment["PATH"] == f"/mine:{tmp_path}/tools"
    assert told.inputs[1].url == f"file://{tmp_path}/store/l"


def test_without_namespaces_paths_of_checkpoints_are_replaced_as_a_whole(tmp_path: Path) -> None:
    room = Room(tmp_path)
    local = Local(tmp_path / "store", tmp_path / "tools", "/bin", NO_ISOLATION, 0, ())
    script = "a --to=/data /data/x '/data'; ls /database /big/data /data.old {{output}} /tmp/x"
    task = shell(
        script,
        files=[InjectedFile(path="/data/run.sh", contents="")],
        checkpoints=[
            Checkpoint(path="/data/", url="file:///k/{{workflow_id}}", frequency=1),
            Checkpoint(path="/data/in", url="file:///in", frequency=2, regex="x"),
            Checkpoint(path="{{output}}/ck", url="file:///out", frequency=3),
            Checkpoint(path="/tmp", url="file:///tmp", frequency=4),
        ],
    )
    told = brief(room, "flow-1", task, None, local, wait=False)
    files, output = tmp_path / "files", tmp_path / "osmo/data/output"
    assert told.argv[2] == (
        f"a --to={files}/data {files}/data/x '{files}/data'; ls /database /big/data /data.old"
        f" {output} {files}/tmp/x"
    )
    assert told.files[0].path == f"{files}/data/run.sh"
    first, second, third, fourth = told.checkpoints
    assert first == Order(f"{files}/data", f"{files}/data", "", "file:///k/flow-1", 1.0)
    assert second == Order(f"{files}/data/in", f"{files}/data", "in", "file:///in", 2.0, "x")
    assert third == Order(f"{output}/ck", str(output), "ck", "file:///out", 3.0)
    assert (fourth.path, fourth.base) == (f"{files}/tmp", f"{files}/tmp")


def test_what_an_earlier_bridge_wrote_for_a_shim_is_still_read(tmp_path: Path) -> None:
    local = Local(tmp_path / "store", tmp_path / "tools", "/bin", NO_ISOLATION, 0, ())
    told = brief(Room(tmp_path), "flow-1", shell("true"), None, local, wait=False)
    raw = json.loads(told.encode())
    del raw["checkpoints"]
    assert Task.decode(json.dumps(raw).encode()) == told
