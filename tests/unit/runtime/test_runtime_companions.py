"""Telling a pod's task from its sidecars."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cairn_runtime import companions

OWN, MINE, THEIRS = "0::/", "0::/../task", "0::/../mesh"


def process(proc: Path, pid: int, cgroup: str, started: int, state: str = "S") -> None:
    folder = proc / str(pid)
    folder.mkdir(exist_ok=True)
    (folder / "cgroup").write_text(cgroup)
    fields = [state, *["0"] * 18, str(started), *["0"] * 30]
    (folder / "stat").write_text(f"{pid} (a) name) {' '.join(fields)}")


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    process(tmp_path, os.getpid(), OWN, 5)
    process(tmp_path, 1, "0::/../pause", 1)
    (tmp_path / "self").mkdir()
    found = companions.others
    monkeypatch.setattr(companions, "others", lambda: found(tmp_path))
    return tmp_path


def test_containers_are_told_apart_by_their_cgroups_and_ordered_by_their_start(proc: Path) -> None:
    process(proc, 10, MINE, 50)
    process(proc, 11, MINE, 60)
    process(proc, 12, THEIRS, 20)
    process(proc, 13, OWN, 70)
    process(proc, 14, "0::/../gone", 90, "Z")
    assert [(each.started, sorted(each.processes)) for each in companions.others()] == [
        (20, [12]),
        (50, [10, 11]),
    ]


def test_a_sidecar_is_not_taken_for_the_task(proc: Path) -> None:
    process(proc, 12, THEIRS, 20)
    assert not companions.task_runs(sidecars=1)
    process(proc, 10, MINE, 50)
    assert companions.task_runs(sidecars=1)
    assert companions.task_runs(sidecars=0)


def test_the_task_is_killed_after_its_grace_and_a_sidecar_is_not(
    proc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = "import signal, time; signal.signal(15, lambda *_: None); time.sleep(60)"
    started = [subprocess.Popen([sys.executable, "-c", waiting]) for _ in range(2)]
    task, mesh = started
    try:
        process(proc, task.pid, MINE, 50)
        process(proc, mesh.pid, THEIRS, 20)

        look = companions.others

        def others() -> list[companions.Container]:
            if task.poll() is not None:
                process(proc, task.pid, MINE, 50, "Z")
            return look()

        monkeypatch.setattr(companions, "others", others)
        began = time.monotonic()
        companions.end_task(sidecars=1, within=0.5)
        assert time.monotonic() - began >= 0.5
        assert task.wait(timeout=20) == -signal.SIGKILL
        assert mesh.poll() is None
    finally:
        for each in started:
            each.kill()
            each.wait()
