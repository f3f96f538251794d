"""Copies what lies in a folder, without following anything in it.

A task's folder is hostile: it may hold links to what the task itself could not read, sockets, or
devices. Links are copied as links and only when they stay inside the folder, and what is neither
file, folder nor link is left out; both are said.

A checkpoint copies while the task runs, so a name may mean something else from one moment to the
next. Every folder and file is therefore opened by its name in the open folder above it, never
through a link, and what the open file is decides. In this *live* copy what vanishes on the way is
no error, a file is read to the length that it had when it was opened (a log that grows would have
no end), and a file that is at its target already is not copied again, see `_unchanged`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from cairn_runtime.room import sync_folder

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DEPTH = 256  # folders within folders; each holds a descriptor open
_CHUNK = 1 << 24  # bytes that one copy_file_range is asked for
_YOUNG = 2_000_000_000  # nanoseconds: more than the steps of any clock that dates files
_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
_ANOTHER_NOW = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.EINVAL})
"""What the system says of a name that was something else, or nothing yet, a moment ago."""


class StorageError(Exception):
    """What could not be copied, and why."""


class MissingError(StorageError):
    """There is nothing at this place."""


class Copied(NamedTuple):
    """What a copy brought: files, their bytes, words about what was left out, and how many files
    were at the target already."""

    files: int
    size: int
    skipped: list[str]
    unchanged: int = 0


class Live(NamedTuple):
    """How to copy a folder that is being written to.

    `present` is the open folder where the copy will be installed, if an earlier one made it.
    `check` is called between files and between pieces of them; what it raises ends the copy.
    """

    present: int | None
    check: Callable[[], None]


def open_folder(base: Path, inner: str) -> int:
    """Opens a folder below one that is trusted, through no link. The caller closes it.

    Raises:
        MissingError: there is nothing at this place.
        StorageError: something on the way is no folder.
    """
    descriptor = os.open(base, FOLDER)
    for part in Path(inner).parts:
        outer = descriptor
        try:
            descriptor = os.open(part, FOLDER, dir_fd=outer)
        except FileNotFoundError as error:
            raise MissingError(f"there is nothing at {base}/{inner}") from error
        except OSError as error:
            if error.errno in {errno.ENOTDIR, errno.ELOOP}:
                raise StorageError(f"{part} is no folder, and links are not followed") from error
            raise
        finally:
            os.close(outer)
    return descriptor


class Copy:
    """One copy of a folder's contents. `regex` is searched for in each file's relative path.

    Args:
        source: the open folder; it stays the caller's.
        destination: a folder that is ours alone.
        regex: only files whose path matches; all, and empty folders too, without one.
        seen_as: where the folder stands for who fills it: absolute links below that become
            relative ones.
        durable: files and folders are on the disk at the end.
        confined: links must stay inside.
        live: the folder is being written to.

    Raises:
        StorageError: the regular expression is none.
    """

    def __init__(
        self,
        source: int,
        destination: Path,
        regex: str | None,
        *,
        seen_as: str = "",
        durable: bool = False,
        confined: bool = True,
        live: Live | None = None,
    ) -> None:
        self._source = source
        self._destination = destination
        try:
            self._wanted = re.compile(regex) if regex else None
        except re.error as error:
            raise StorageError(f"the regular expression {regex!r}: {error}") from error
        self._seen_as = seen_as.rstrip("/")
        self._durable = durable
        self._confined = confined
        self._live = live
        self._files = 0
        self._size = 0
        self._unchanged = 0
        self._skipped: list[str] = []

    def run(self) -> Copied:
        """Copies all of it.

        Raises:
            StorageError: it cannot be copied.
            OSError: the system refused something.
        """
        self._folder(self._source, self._live.present if self._live else None, "", 0)
        if self._durable:
            for folder, _, _ in os.walk(self._destination):
                sync_folder(Path(folder))
        return self._copied()

    def single(self, name: str) -> Copied:
        """Copies one file; raises as `run`."""
        self._entry(self._source, None, name, name)
        return self._copied()

    def _copied(self) -> Copied:
        return Copied(self._files, self._size, self._skipped, self._unchanged)

    def _folder(self, folder: int, there: int | None, relative: str, depth: int) -> None:
        """`there`: the same folder at the target, if it is known and has one."""
        if depth > _DEPTH:
            raise StorageError(f"{relative[:80]}...: folders are more than {_DEPTH} deep")
        with os.scandir(folder) as entries:
            names = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)
        for name, is_folder in names:
            path = f"{relative}/{name}" if relative else name
            if is_folder:
                self._descend(folder, there, name, path, depth)
            elif self._wanted is None or self._wanted.search(path):
                self._entry(folder, there, name, path)

    def _descend(self, folder: int, there: int | None, name: str, path: str, depth: int) -> None:
        inner = self._open(name, folder, FOLDER, path)
        if inner is None:
            return
        inner_there = None
        try:
            if there is not None:
                with contextlib.suppress(OSError):
                    inner_there = os.open(name, FOLDER, dir_fd=there)
            if self._wanted is None:
                (self._destination / path).mkdir(parents=True, exist_ok=True)
            self._folder(inner, inner_there, path, depth + 1)
        finally:
            os.close(inner)
            if inner_there is not None:
                os.close(inner_there)

    def _entry(self, folder: int, there: int | None, name: str, path: str) -> None:
        self._check()
        try:
            mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
            goal = os.readlink(name, dir_fd=folder) if stat.S_ISLNK(mode) else None
        except OSError as error:
            if self._live is not None and error.errno in _ANOTHER_NOW:
                return
            raise
        if goal is not None:
            self._link(there, name, path, goal)
        elif not stat.S_ISREG(mode):
            self._skipped.append(f"{path} is no file, folder or link: left out")
        elif (reading := self._open(name, folder, _FILE, path)) is not None:
            try:
                self._file(there, name, path, reading)
            finally:
                os.close(reading)

    def _open(self, name: str, folder: int, flags: int, path: str) -> int | None:
        """None for what a live copy saw a moment ago and is not there any more."""
        try:
            return os.open(name, flags, dir_fd=folder)
        except OSError as error:
            if self._live is not None and error.errno in _ANOTHER_NOW:
                return None
            error.filename = path
            raise

    def _target(self, path: str) -> Path:
        target = self._destination / path
        if self._wanted is not None:
            target.parent.mkdir(parents=True, exist_ok=True)
        return target

    def _link(self, there: int | None, name: str, path: str, goal: str) -> None:
        depth = path.count("/")
        if self._seen_as and goal.startswith(f"{self._seen_as}/"):
            goal = "../" * depth + goal[len(self._seen_as) + 1 :]
        if self._confined and _leaves(goal, depth):
            self._skipped.append(f"{path} is a link out of the folder ({goal}): left out")
            return
        if there is not None and _leads_there(there, name, goal):
            self._unchanged += 1
            return
        target = self._target(path)
        target.unlink(missing_ok=True)
        target.symlink_to(goal)
        self._files += 1

    def _file(self, there: int | None, name: str, path: str, reading: int) -> None:
        now = time.time_ns()
        details = os.fstat(reading)
        if not stat.S_ISREG(details.st_mode):  # it was one when it was looked at
            return
        if there is not None and _unchanged(there, name, details):
            self._unchanged += 1
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        writing = os.open(self._target(path), flags, 0o600)
        try:
            self._size += self._pump(reading, writing, details.st_size)
            os.fchmod(writing, details.st_mode & 0o777)
            os.utime(writing, ns=(details.st_atime_ns, self._date(details, now)))
            if self._durable:
                os.fsync(writing)
        finally:
            os.close(writing)
        self._files += 1

    def _date(self, details: os.stat_result, opened: int) -> int:
        """What a copy is dated, in nanoseconds.

        Clocks go in steps: a file that was written to just before it was opened may be written to
        again without its date changing. Its copy is dated a little off, so that the next one does
        not pass for the same (git does so with its index).
        """
        young = self._live is not None and opened - details.st_mtime_ns < _YOUNG
        return details.st_mtime_ns - int(young)

    def _pump(self, reading: int, writing: int, size: int) -> int:
        """Copies to the end; within the kernel, sharing blocks, where the file system can."""
        total = 0
        most = size if self._live is not None else None
        try:
            while count := os.copy_file_range(reading, writing, _left(most, total, _CHUNK)):
                total += count
                self._check()
        except OSError as error:
            if error.errno not in {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}:
                raise
        # Also after an early 0, with which files that have no size (of /proc) answer.
        while data := os.read(reading, _left(most, total, 1 << 20)):
            view = memoryview(data)
            while view:
                view = view[os.write(writing, view) :]
            total += len(data)
            self._check()
        return total

    def _check(self) -> None:
        if self._live is not None:
            self._live.check()


def _left(most: int | None, total: int, piece: int) -> int:
    return piece if most is None else min(piece, most - total)


def _unchanged(there: int, name: str, details: os.stat_result) -> bool:
    """Whether a file lies at its target already: the same size, and the date that a copy of it
    was given. Needs no memory, so it also holds for the next attempt and after a restart."""
    try:
        present = os.stat(name, dir_fd=there, follow_symlinks=False)
    except OSError:
        return False
    return stat.S_ISREG(present.st_mode) and (present.st_size, present.st_mtime_ns) == (
        details.st_size,
        details.st_mtime_ns,
    )


def _leads_there(there: int, name: str, goal: str) -> bool:
    """Whether a link lies at its target already."""
    try:
        return os.readlink(name, dir_fd=there) == goal
    except OSError:
        return False


def _leaves(goal: str, depth: int) -> bool:
    """Whether a link `depth` folders deep points above the tree."""
    if goal.startswith("/"):
        return True
    for part in goal.split("/"):
        if part == "..":
            depth -= 1
            if depth < 0:
                return True
        elif part not in {"", "."}:
            depth += 1
    return False
