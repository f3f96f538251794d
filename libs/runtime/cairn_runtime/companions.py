"""Ends a task from beside it, in a pod whose containers see each other's processes.

A container is told from another by its cgroup, which every process may read of every other;
process 1 holds the pod's namespaces. The task's is not known by name. But sidecars start before
it, so of more containers than there are sidecars the youngest is the task.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import NamedTuple

from cairn_runtime.process import signal_all

_PROC = Path("/proc")
_LOOK_SECONDS = 0.05
_STARTED, _STATE = 19, 0  # of /proc/<pid>/stat behind the name, see proc(5)


class Container(NamedTuple):
    """When the first of its processes started, in clock ticks, and all of them."""

    started: int
    processes: list[int]


def others(proc: Path = _PROC) -> list[Container]:
    """The pod's other containers in which something runs, the oldest first."""
    own = (proc / str(os.getpid()) / "cgroup").read_text(encoding="utf-8")
    found: dict[str, Container] = {}
    for folder in proc.iterdir():
        if not folder.name.isdigit() or folder.name == "1":
            continue
        try:
            cgroup = (folder / "cgroup").read_text(encoding="utf-8")
            words = (folder / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        if cgroup != own and words[_STATE] not in {"Z", "X"}:
            started = int(words[_STARTED])
            known = found.get(cgroup, Container(started, []))
            known.processes.append(int(folder.name))
            found[cgroup] = Container(min(started, known.started), known.processes)
    return sorted(found.values())


def task_runs(sidecars: int) -> bool:
    """Whether a container runs that is no sidecar; `sidecars` are those beside this one."""
    return len(others()) > sidecars


def end_task(sidecars: int, within: float) -> None:
    """Waits until the task has ended, and kills it after so many seconds."""
    deadline = time.monotonic() + within
    while left := others()[sidecars:]:
        if time.monotonic() >= deadline:
            for container in left:
                signal_all(container.processes, signal.SIGKILL)
        time.sleep(_LOOK_SECONDS)
