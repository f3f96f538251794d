"""The logs of the processes: bounded on disk, their end for an error, their flow for `--verbose`.

A process writes straight into its file (opened for appending), not into a pipe of the supervisor:
so a busy, stopped or killed supervisor never blocks a part nor breaks its last words. The price is
that a file in use is rotated by copying and emptying it; lines written in the instant between the
two are lost. With a bound of 20 MB that is an instant in days.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

MAX_BYTES = 20_000_000
"""A log file is rotated when it is longer; one older file is kept."""

_TAIL_BYTES = 64_000


def open_log(path: Path) -> int:
    """A descriptor that appends to the log at `path` (0600)."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


def rotate(path: Path, max_bytes: int = MAX_BYTES) -> bool:
    """Move what is in the log to `<log>.1` if it is longer than `max_bytes`. True: it was."""
    try:
        if path.stat().st_size <= max_bytes:
            return False
    except FileNotFoundError:
        return False
    shutil.copyfile(path, path.with_name(path.name + ".1"))
    os.truncate(path, 0)
    return True


def size(path: Path) -> int:
    """Length in bytes; 0 for a file that does not exist."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def tail(path: Path, lines: int, start: int = 0) -> list[str]:
    """The last lines of a log, of what was written after the byte `start`."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(start if start <= end else 0, end - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return []
    return text.splitlines()[-lines:]


class Follower:
    """What is appended to several logs, as it comes."""

    def __init__(self, logs: Iterable[tuple[str, Path]]) -> None:
        self._logs = tuple(logs)
        self._seen = {path: size(path) for _, path in self._logs}
        self._rest: dict[Path, bytes] = {}

    def read(self) -> list[tuple[str, str]]:
        """The whole lines that are new since the last call, each with its process's name."""
        found: list[tuple[str, str]] = []
        for name, path in self._logs:
            length = size(path)
            if length < self._seen[path]:  # it was rotated
                self._seen[path] = 0
            if length == self._seen[path]:
                continue
            with path.open("rb") as file:
                file.seek(self._seen[path])
                data = self._rest.pop(path, b"") + file.read(1_000_000)
                self._seen[path] = file.tell()
            whole, newline, rest = data.rpartition(b"\n")
            if rest:
                self._rest[path] = rest
            if newline:
                found += [(name, line.decode(errors="replace")) for line in whole.split(b"\n")]
        return found
