"""What really ran: a log to which each attempt appends, as it begins and as it ends.

A task may change nothing of the machine's files, which is right, but it shares its network. So it
tells its lines to this server over a connection that it keeps while it lives. The server appends
each to a file that is open O_APPEND before it answers, and the task goes on only then: what ran
is in the file. That a connection closes without a last line tells when a process that was stopped
was gone.

One line is one event: `S|E|X <seconds> <workflow> <task> <attempt> <nonce> [<exit code>]`, in the
order in which the events happened. The nonce is drawn by the process itself.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple


class Attempt(NamedTuple):
    """Names an attempt of a task."""

    workflow: str
    task: str
    attempt: int


@dataclass(slots=True)
class Run:
    """One process that ran an attempt. Times in seconds of the journal's clock."""

    nonce: str
    began: float
    ended: float | None = None
    code: int | None = None
    gone: float | None = None
    """When it was gone without having come to its end."""


class Journal:
    """The server and its file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._server: asyncio.Server | None = None
        self.open: dict[str, Attempt] = {}
        """The attempts that run now, by nonce."""
        self.ends = 0
        """How many attempts have come to their end."""

    async def start(self) -> int:
        """Listen; returns the port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1024)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()
        os.close(self._file)

    def read(self) -> dict[Attempt, list[Run]]:
        """All runs of each attempt."""
        return parse(self._path.read_text().splitlines())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonce = ""
        try:
            while line := (await reader.readline()).decode():
                kind, *words = line.split()
                nonce = words[3]
                self._append(kind, *words)
                if kind == "S":
                    self.open[nonce] = Attempt(words[0], words[1], int(words[2]))
                else:
                    self.open.pop(nonce, None)
                    self.ends += 1
                writer.write(b"ok\n")
                await writer.drain()
        except (ConnectionError, ValueError, IndexError):
            pass  # the task was killed, perhaps in the middle of a line
        finally:
            attempt = self.open.pop(nonce, None)
            if attempt is not None:
                self._append("X", *map(str, attempt), nonce)
            writer.close()

    def _append(self, kind: str, *words: str) -> None:
        os.write(self._file, f"{kind} {time.monotonic():.3f} {' '.join(words)}\n".encode())


def parse(lines: Iterable[str]) -> dict[Attempt, list[Run]]:
    """The runs that a journal tells of."""
    runs: dict[Attempt, list[Run]] = {}
    by_nonce: dict[str, Run] = {}
    for line in lines:
        kind, at, workflow, task, attempt, nonce, *code = line.split()
        if kind == "S":
            run = by_nonce[nonce] = Run(nonce, float(at))
            runs.setdefault(Attempt(workflow, task, int(attempt)), []).append(run)
        elif kind == "E":
            by_nonce[nonce].ended = float(at)
            by_nonce[nonce].code = int(code[0])
        else:
            by_nonce[nonce].gone = float(at)
    return runs
