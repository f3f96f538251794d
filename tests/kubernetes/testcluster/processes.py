"""The processes of a test cluster: started so that they cannot outlive the tests, stopped by pid.

Each gets SIGKILL from the kernel when the thread that started it ends, however that happens, and is
the leader of its own session, so that what it started itself ends with it. A test cluster's data is
thrown away, so nobody is asked politely first.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from cairn_standalone.logs import open_log, tail
from cairn_standalone.process import describe_exit, wrapped


class StartError(RuntimeError):
    """A part ended or did not become ready; the message holds the end of its log."""


class Process:
    """One running part."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        folder: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start it with its output in `<folder>/<name>.log`; from the main thread only.

        Raises:
            OSError: it could not be started.
        """
        self.name = name
        self.log = folder / f"{name}.log"
        output = open_log(self.log)
        try:
            self._popen = subprocess.Popen(
                wrapped(command, signal.SIGKILL, "plain"),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=folder,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )
        finally:
            os.close(output)
        self.pid = self._popen.pid

    @property
    def ended(self) -> bool:
        """Whether it is gone."""
        return self._popen.poll() is not None

    def check(self) -> None:
        """Complain when it is gone.

        Raises:
            StartError: with the end of its log.
        """
        code = self._popen.poll()
        if code is not None:
            lines = "\n".join(tail(self.log, 30))
            raise StartError(f"{self.name} {describe_exit(code)}:\n{lines}")

    def stop(self) -> None:
        """End it and what it started. The second call does nothing."""
        if self._popen.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self._popen.wait()

    def pause(self) -> None:
        """Make it hang (SIGSTOP), until `resume`."""
        self._popen.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after `pause`."""
        self._popen.send_signal(signal.SIGCONT)


def free_port() -> int:
    """A free TCP port of the loopback address.

    Below the range from which the kernel takes ports for outgoing connections: none of those can
    take it between now and its use.
    """
    while True:
        port = random.randint(10_000, 30_000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


async def run_tool(*command: str) -> str:
    """Run a short command to its end and return its output.

    Raises:
        StartError: it failed.
    """
    process = await asyncio.create_subprocess_exec(
        *command, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    output, errors = await process.communicate()
    if process.returncode != 0:
        raise StartError(f"{' '.join(command)} failed: {errors.decode(errors='replace')}")
    return output.decode()
