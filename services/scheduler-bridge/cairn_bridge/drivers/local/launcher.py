"""The bridge's side of `cairn_runtime.launcher`: has shims started, one message each."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import cairn_runtime

_SCRIPT = Path(cairn_runtime.__file__).with_name("launcher.py")
_PROBE_SECONDS = 30.0


class Launcher:
    """A launcher process; started when it is needed, and again when it has died.

    Its methods block for a moment and may be called from any thread.
    """

    def __init__(self, errors: Path, lifeline: int | None) -> None:
        self._errors = errors  # where tracebacks of shims go: nobody else could read them
        self._lifeline = lifeline
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    def launch(self, directory: Path) -> socket.socket:
        """Has a shim started for an attempt's directory; returns our end of its connection.

        Raises:
            OSError: there is no launcher and none can be started.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._send(os.fsencode(directory), [theirs.fileno()])
            except OSError:
                ours.close()
                raise
        return ours

    def probe(self, directory: Path) -> str:
        """Why tasks cannot have namespaces here; empty when they can."""
        self._send(b"probe " + os.fsencode(directory), [])
        assert self._socket is not None
        self._socket.settimeout(_PROBE_SECONDS)
        try:
            return self._socket.recv(4096).decode()
        finally:
            self._socket.settimeout(None)

    def close(self) -> None:
        """Ends the launcher; its shims live on."""
        with self._lock:
            self._end()

    def _send(self, message: bytes, descriptors: list[int]) -> None:
        with self._lock:
            for attempt in (1, 2):
                connection = self._socket or self._start()
                try:
                    socket.send_fds(connection, [message], descriptors)
                except (BrokenPipeError, ConnectionResetError):
                    self._end()
                    if attempt == 2:
                        raise
                else:
                    return

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, "-I", "-S", str(_SCRIPT)]
        kept = []
        if self._lifeline is not None:
            command.append(str(self._lifeline))
            kept.append(self._lifeline)
        with theirs, self._errors.open("ab") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=errors,
                cwd="/",
                env={},
                pass_fds=kept,
                start_new_session=True,
            )
        self._socket = ours
        return ours

    def _end(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._process is not None:
            self._process.wait()
            self._process = None
