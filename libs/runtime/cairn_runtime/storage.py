"""Where inputs come from and outputs go: one small interface, and folders as its first driver.

A task's output folder is hostile: it may hold links to what the task itself could not read,
sockets, or devices. So nothing in it is followed: links are copied as links and only when they
stay inside the folder, and what is neither file, folder nor link is left out; both are said.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from cairn_runtime.room import sync_folder

_CHUNK = 1 << 24  # bytes that one copy_file_range is asked for


class StorageError(Exception):
    """What could not be copied, and why."""


class MissingError(StorageError):
    """There is nothing at this place."""


class Copied(NamedTuple):
    """What a copy brought: files, their bytes, and words about what was left out."""

    files: int
    size: int
    skipped: list[str]


class Storage(Protocol):
    """A tree of files below keys. `regex` is searched for in each file's relative path."""

    def fetch(self, prefix: str, destination: Path, regex: str | None) -> Copied:
        """Copies all below `prefix` into an existing folder.

        Raises:
            MissingError: there is nothing at `prefix`.
            StorageError: something could not be copied.
        """

    def persist(self, source: Path, prefix: str, regex: str | None, seen_as: str = "") -> Copied:
        """Copies a folder to `prefix`, where readers see all of it or nothing.

        `seen_as` is where the folder stood for who filled it: absolute links below that become
        relative ones.

        Raises:
            StorageError: something could not be copied.
        """


class FileStorage:
    """Keys are paths below a folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def fetch(self, prefix: str, destination: Path, regex: str | None) -> Copied:
        source = self._path(prefix)
        try:
            kind = source.stat().st_mode
            if stat.S_ISDIR(kind):
                return _Copy(source, destination, regex, confined=False).run()
            if stat.S_ISREG(kind):
                return _Copy(source.parent, destination, None, confined=False).single(source.name)
        except FileNotFoundError as error:
            raise MissingError(f"there is nothing at {source}") from error
        except OSError as error:
            raise _explained(error) from error
        raise StorageError(f"{source} is neither a folder nor a file")

    def persist(self, source: Path, prefix: str, regex: str | None, seen_as: str = "") -> Copied:
        """As the protocol says; where `prefix` exists, files are added and replaced one by one.

        That is what object storage does, and an attempt's own location never exists before.
        """
        target = self._path(prefix)
        stage = target.parent / f".cairn-{secrets.token_hex(8)}"
        try:
            stage.mkdir(parents=True)
            try:
                copied = _Copy(source, stage, regex, seen_as=seen_as, durable=True).run()
                _install(stage, target)
            finally:
                shutil.rmtree(stage, ignore_errors=True)
        except OSError as error:
            raise _explained(error) from error
        return copied

    def _path(self, prefix: str) -> Path:
        parts = [part for part in prefix.split("/") if part not in {"", "."}]
        if ".." in parts:
            raise StorageError(f"{prefix!r} leaves the store")
        return self._root.joinpath(*parts)


def open_storage(url: str) -> tuple[Storage, str]:
    """The driver for a URL, and the prefix within it.

    Raises:
        StorageError: no driver knows this kind of URL.
    """
    scheme, separator, rest = url.partition("://")
    if separator and scheme == "file" and rest.startswith("/"):
        return FileStorage(Path("/")), rest
    raise StorageError(f"this cluster reads and writes file:///... only, not {url}")


def _install(stage: Path, target: Path) -> None:
    """Moves a finished stage to its place; merges where there is something already."""
    try:
        stage.rename(target)
    except OSError as error:
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}:
            raise
        if not target.is_dir():
            raise StorageError(f"{target} exists and is no folder") from error
        for folder, _, names in os.walk(stage):
            into = target / Path(folder).relative_to(stage)
            into.mkdir(exist_ok=True)
            for name in names:
                (Path(folder) / name).replace(into / name)
            sync_folder(into)
    sync_folder(target.parent)


class _Copy:
    """One copy of a folder's contents, without following anything in it."""

    def __init__(
        self,
        source: Path,
        destination: Path,
        regex: str | None,
        *,
        seen_as: str = "",
        durable: bool = False,
        confined: bool = True,
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
        self._files = 0
        self._size = 0
        self._skipped: list[str] = []

    def run(self) -> Copied:
        for relative in self._walk(""):
            self._copy(relative)
        if self._durable:
            for folder, _, _ in os.walk(self._destination):
                sync_folder(Path(folder))
        return Copied(self._files, self._size, self._skipped)

    def single(self, name: str) -> Copied:
        self._copy(name)
        return Copied(self._files, self._size, self._skipped)

    def _walk(self, folder: str) -> Iterator[str]:
        """Relative paths of all that is not a folder; empty folders are made as it goes."""
        with os.scandir(self._source / folder) as entries:
            names = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)
        for name, is_folder in names:
            relative = f"{folder}/{name}" if folder else name
            if not is_folder:
                if self._wanted is None or self._wanted.search(relative):
                    yield relative
                continue
            if self._wanted is None:
                (self._destination / relative).mkdir(parents=True, exist_ok=True)
            yield from self._walk(relative)

    def _copy(self, relative: str) -> None:
        source, target = self._source / relative, self._destination / relative
        details = source.lstat()
        if self._wanted is not None:
            target.parent.mkdir(parents=True, exist_ok=True)
        if stat.S_ISLNK(details.st_mode):
            self._copy_link(relative, source, target)
        elif stat.S_ISREG(details.st_mode):
            self._copy_file(source, target)
        else:
            self._skipped.append(f"{relative} is no file, folder or link: left out")

    def _copy_link(self, relative: str, source: Path, target: Path) -> None:
        goal = str(source.readlink())
        depth = relative.count("/")
        if self._seen_as and goal.startswith(f"{self._seen_as}/"):
            goal = "../" * depth + goal[len(self._seen_as) + 1 :]
        if self._confined and _leaves(goal, depth):
            self._skipped.append(f"{relative} is a link out of the folder ({goal}): left out")
            return
        target.unlink(missing_ok=True)
        target.symlink_to(goal)
        self._files += 1

    def _copy_file(self, source: Path, target: Path) -> None:
        flags = os.O_CLOEXEC | os.O_NOFOLLOW
        reading = os.open(source, os.O_RDONLY | os.O_NONBLOCK | flags)
        try:
            details = os.fstat(reading)
            writing = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | flags, 0o600)
            try:
                self._size += _pump(reading, writing)
                os.fchmod(writing, details.st_mode & 0o777)
                os.utime(writing, ns=(details.st_atime_ns, details.st_mtime_ns))
                if self._durable:
                    os.fsync(writing)
            finally:
                os.close(writing)
        finally:
            os.close(reading)
        self._files += 1


def _pump(reading: int, writing: int) -> int:
    """Copies to the end; within the kernel, sharing blocks, where the file system can."""
    total = 0
    try:
        while count := os.copy_file_range(reading, writing, _CHUNK):
            total += count
    except OSError as error:
        if error.errno not in {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}:
            raise
    # Also after an early 0, with which files that have no size (of /proc) answer.
    while data := os.read(reading, 1 << 20):
        view = memoryview(data)
        while view:
            view = view[os.write(writing, view) :]
        total += len(data)
    return total


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


def _explained(error: OSError) -> StorageError:
    place = error.filename2 or error.filename
    return StorageError(f"{place}: {error.strerror}" if place else str(error.strerror))
