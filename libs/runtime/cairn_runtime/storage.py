"""Where inputs come from and outputs go: one small interface, and folders as its first driver.

What a task leaves is hostile, and so is what an earlier copy of it left in the store: neither is
followed, see `copying`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from cairn_runtime.copying import FOLDER, Copied, Copy, Live, MissingError, StorageError
from cairn_runtime.room import sync_folder


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

    def update(
        self,
        source: int,
        prefix: str,
        regex: str | None,
        seen_as: str,
        check: Callable[[], None],
    ) -> Copied:
        """Copies what of an open folder, which is in use, is not at `prefix` already.

        Readers see each file as it was or as it is, and none of them changes before all that is
        new has been copied. What has been deleted from the folder stays at `prefix`. `check` is
        called now and then; what it raises ends the copy and leaves `prefix` as it was.

        Raises:
            StorageError: something could not be copied.
        """


class FileStorage:
    """Keys are paths below a folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def fetch(self, prefix: str, destination: Path, regex: str | None) -> Copied:
        source = self._path(prefix)
        with _explaining():
            try:
                kind = source.stat().st_mode
            except FileNotFoundError as error:
                raise MissingError(f"there is nothing at {source}") from error
            if stat.S_ISDIR(kind):
                with _opened(source, follow=True) as folder:
                    return Copy(folder, destination, regex, confined=False).run()
            if stat.S_ISREG(kind):
                with _opened(source.parent, follow=True) as folder:
                    return Copy(folder, destination, None, confined=False).single(source.name)
        raise StorageError(f"{source} is neither a folder nor a file")

    def persist(self, source: Path, prefix: str, regex: str | None, seen_as: str = "") -> Copied:
        """As the protocol says; where `prefix` exists, files are added and replaced one by one.

        That is what object storage does, and an attempt's own location never exists before.
        """
        with _explaining(), _opened(source) as folder:
            return _bring(
                self._path(prefix),
                lambda stage: Copy(folder, stage, regex, seen_as=seen_as, durable=True),
            )

    def update(
        self,
        source: int,
        prefix: str,
        regex: str | None,
        seen_as: str,
        check: Callable[[], None],
    ) -> Copied:
        """As the protocol says."""
        target = self._path(prefix)
        with _explaining(), contextlib.ExitStack() as held:
            present = None
            with contextlib.suppress(FileNotFoundError):
                present = held.enter_context(_opened(target, follow=True))
            live = Live(present, check)
            return _bring(
                target,
                lambda stage: Copy(source, stage, regex, seen_as=seen_as, durable=True, live=live),
            )

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


def _bring(target: Path, copy: Callable[[Path], Copy]) -> Copied:
    """Copies to a stage beside the target, and what is whole to the target."""
    folder = target.parent / f".cairn-{secrets.token_hex(8)}"
    stage = folder / "new"
    stage.mkdir(parents=True)
    try:
        copied = copy(stage).run()
        _install(stage, target, folder / "replaced")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return copied


def _install(stage: Path, target: Path, replaced: Path) -> None:
    """Moves a finished stage to its place; merges where there is something already."""
    try:
        stage.rename(target)
    except OSError as error:
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}:
            raise
        if not target.is_dir():
            raise StorageError(f"{target} exists and is no folder") from error
        replaced.mkdir()
        with _opened(stage) as new, _opened(target, follow=True) as old, _opened(replaced) as aside:
            _merge(new, old, aside)
    sync_folder(target.parent)


def _merge(new: int, old: int, aside: int) -> None:
    """Moves what is in one folder into another, file by file: each is the old one or the new one.

    What is in the way, and of another kind, is set aside. Links are replaced and never followed:
    an earlier copy of a task's folder may have left them.
    """
    moved = False
    with os.scandir(new) as entries:
        names = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)
    for name, is_folder in names:
        if is_folder:
            with _opened(name, new) as inner, _made(name, old) as into:
                _merge(inner, into, aside)
            continue
        try:
            os.replace(name, name, src_dir_fd=new, dst_dir_fd=old)
        except IsADirectoryError:
            os.rename(name, secrets.token_hex(8), src_dir_fd=old, dst_dir_fd=aside)
            os.replace(name, name, src_dir_fd=new, dst_dir_fd=old)
        moved = True
    if moved:
        os.fsync(old)


@contextlib.contextmanager
def _opened(
    folder: Path | str, within: int | None = None, *, follow: bool = False
) -> Iterator[int]:
    flags = FOLDER & ~os.O_NOFOLLOW if follow else FOLDER
    descriptor = os.open(folder, flags, dir_fd=within)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _made(name: str, within: int) -> Iterator[int]:
    """A folder of this name, in place of whatever else has it."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, dir_fd=within)
    if not stat.S_ISDIR(os.stat(name, dir_fd=within, follow_symlinks=False).st_mode):
        os.unlink(name, dir_fd=within)
        os.mkdir(name, dir_fd=within)
    with _opened(name, within) as descriptor:
        yield descriptor


@contextlib.contextmanager
def _explaining() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        place = error.filename2 or error.filename
        words = f"{place}: {error.strerror}" if place else str(error.strerror)
        raise StorageError(words) from error
