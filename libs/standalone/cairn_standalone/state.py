"""What a running supervisor tells about itself: `<home>/run/state.json`, and who reads it.

The file is replaced atomically at every change, so `cairn status` needs no connection to the
supervisor and works when it hangs. A pid alone says nothing after a crash (the kernel uses numbers
again), so a process is named by its pid, the moment it started (in the kernel's ticks since boot)
and the boot: a file that a crash left behind names no innocent process.

All times are seconds: `started_at` since the epoch, for people; `*_ticks` are the kernel's.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cairn_standalone.home import Home, write_atomically


@dataclass(frozen=True, slots=True)
class Identity:
    """One process of one boot, for ever."""

    pid: int
    ticks: int
    boot: str

    @classmethod
    def of(cls, pid: int) -> Identity | None:
        """The process that has this pid now; None: there is none, or it is a zombie."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return None
        # The name of the program, in parentheses, may hold anything; what follows it does not.
        fields = stat.rpartition(")")[2].split()
        if fields[0] in {"Z", "X"}:
            return None
        return cls(pid, int(fields[19]), boot_id())

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return Identity.of(self.pid) == self

    def send(self, number: signal.Signals) -> None:
        """Send it a signal; nothing happens when it is gone, whoever has its pid now."""
        with self._handle() as handle:
            if handle is not None:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(handle, number)

    def wait(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for its end. Returns whether it is gone."""
        with self._handle() as handle:
            if handle is not None:
                select.select([handle], [], [], max(timeout, 0.0))
        return not self.alive

    @contextlib.contextmanager
    def _handle(self) -> Iterator[int | None]:
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            yield None
            return
        try:
            # Only after opening: from here on the pid cannot come to mean another process.
            yield handle if self.alive else None
        finally:
            os.close(handle)


def boot_id() -> str:
    """The kernel's name for this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@dataclass(frozen=True, slots=True)
class PartState:
    """One part, as `cairn status` shows it."""

    name: str
    phase: str
    process: Identity | None
    started_at: float | None
    restarts: int
    last_exit: str | None
    log: str


@dataclass(frozen=True, slots=True)
class State:
    """One supervisor and its parts."""

    supervisor: Identity
    phase: str
    """starting, ready, degraded (not every part is ready) or stopping."""
    url: str
    started_at: float
    sockets: str
    parts: tuple[PartState, ...]

    @property
    def running(self) -> bool:
        """Whether the supervisor that wrote this still lives."""
        return self.supervisor.alive

    def for_people(self, now: float) -> dict[str, Any]:
        """The documented JSON of `cairn status`: plain pids, and uptimes in seconds at `now`."""
        return {
            "phase": self.phase,
            "url": self.url,
            "pid": self.supervisor.pid,
            "uptime": round(now - self.started_at, 1),
            "parts": [
                {
                    "name": part.name,
                    "phase": part.phase,
                    "pid": part.process.pid if part.process else None,
                    "uptime": round(now - part.started_at, 1) if part.started_at else None,
                    "restarts": part.restarts,
                    "last_exit": part.last_exit,
                    "log": part.log,
                }
                for part in self.parts
            ],
        }


def store(home: Home, state: State) -> None:
    """Replace the state file."""
    write_atomically(home.state_file, json.dumps(asdict(state), indent=1) + "\n")


def load(home: Home) -> State | None:
    """The state that was stored last, whether or not its supervisor lives; None: none readable."""
    try:
        found = json.loads(home.state_file.read_text())
        return State(
            supervisor=Identity(**found["supervisor"]),
            phase=str(found["phase"]),
            url=str(found["url"]),
            started_at=float(found["started_at"]),
            sockets=str(found["sockets"]),
            parts=tuple(
                PartState(
                    **{
                        **part,
                        "process": Identity(**part["process"]) if part["process"] else None,
                    }
                )
                for part in found["parts"]
            ),
        )
    except (OSError, ValueError, KeyError, TypeError):
        # A file of another version, or half a file system after a crash: as good as none.
        return None


def running(home: Home) -> State | None:
    """The state of the supervisor that runs on this home; None: none runs."""
    state = load(home)
    return state if state is not None and state.running else None


def end_strays(home: Home, patience: float) -> int:
    """End the parts that a dead supervisor left; returns how many there were.

    They have been told already, by their death signal and the lifeline; so wait up to `patience`
    seconds for all of them together, then kill.
    """
    state = load(home)
    if state is None or state.running:
        return 0
    strays = [p.process for p in state.parts if p.process is not None and p.process.alive]
    end(strays, patience)
    return len(strays)


def end(processes: Iterable[Identity], patience: float) -> None:
    """Wait up to `patience` seconds for these processes to end, then kill what is left."""
    deadline = time.monotonic() + patience
    for process in processes:
        if not process.wait(deadline - time.monotonic()):
            process.send(signal.SIGKILL)
            process.wait(5.0)
