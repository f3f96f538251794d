"""Starting programs so that they cannot outlive the supervisor, and learning of their end.

The end is learnt from a pidfd, which the event loop watches like a socket: no thread waits and no
SIGCHLD handler is shared. Processes are made in the thread of the event loop, which must be
the main thread: the kernel sends the death signal when the *thread* ends that made the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cairn_standalone import launch
from cairn_standalone.logs import open_log
from cairn_standalone.state import Identity


@dataclass(frozen=True, slots=True)
class Program:
    """What to run."""

    command: tuple[str, ...]
    environment: Mapping[str, str]
    folder: Path
    """Its working directory."""
    stop_signal: signal.Signals = signal.SIGTERM
    """Asks it to end; also sent by the kernel when the supervisor dies."""
    identity: str = "plain"
    """As whom: see `launch.py`."""
    keep_fds: tuple[int, ...] = ()


def wrapped(command: Sequence[str], stop_signal: signal.Signals, identity: str) -> list[str]:
    """The command line that runs `command` tied to this process."""
    return [
        sys.executable,
        *("-I", "-S", launch.__file__),
        *("--parent", str(os.getpid())),
        *("--death-signal", str(int(stop_signal))),
        *("--as", identity),
        "--",
        *command,
    ]


def describe_exit(code: int) -> str:
    """An exit code as `subprocess` gives it, in words."""
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


class Running:
    """One process, from its start until its end has been told."""

    def __init__(self, program: Program, log: Path, on_exit: Callable[[int], None]) -> None:
        """Start `program` with its output appended to `log`; `on_exit` gets its exit code.

        Raises:
            OSError: it could not be started.
        """
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("processes are started from the main thread: see the module")
        self._program = program
        self._on_exit = on_exit
        output = open_log(log)
        try:
            self._popen = subprocess.Popen(
                wrapped(program.command, program.stop_signal, program.identity),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=program.folder,
                env=dict(program.environment),
                pass_fds=program.keep_fds,
                # Ctrl-C reaches the supervisor alone, which then stops the parts in order.
                start_new_session=True,
            )
        finally:
            os.close(output)
        self.pid = self._popen.pid
        self.identity = Identity.of(self.pid)
        self._handle: int | None = os.pidfd_open(self.pid)
        asyncio.get_running_loop().add_reader(self._handle, self._ended)

    def ask_to_end(self) -> None:
        """Send its stop signal."""
        self._send(self._program.stop_signal)

    def kill(self) -> None:
        """End it without asking."""
        self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        if self._handle is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, number)

    def _ended(self) -> None:
        if self._handle is None:
            return
        asyncio.get_running_loop().remove_reader(self._handle)
        os.close(self._handle)
        self._handle = None
        self._on_exit(self._popen.wait())


async def run_briefly(program: Program, log: Path) -> int:
    """Run a program to its end and return its exit code; it is killed when the wait is cancelled.

    Raises:
        OSError: it could not be started.
    """
    ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    process = Running(program, log, ended.set_result)
    try:
        return await asyncio.shield(ended)
    except asyncio.CancelledError:
        process.kill()
        await ended
        raise
