"""A private view of the machine's file system for one task.

Everything of the machine can be read, nothing of it can be changed: the task writes into layers
of its own (overlayfs), has its own /tmp, /var/tmp and /dev/shm, its own /osmo, and sees no other
task's. It is called by the first process of new PID and mount namespaces, see `process`.

A folder that is checkpointed is one of the task's own, too, and hides what the machine has at its
path. So it can be read without this view, which is gone when the last checkpoint is made.

Two ways lead there, because a user namespace may not put an overlay over a tree that has mounts
below it ("locked" mounts: it could uncover what they cover):

- As root: one overlay over /, then one over each mount below it.
- As an ordinary user: a bare folder as the new root, and in it an overlay of each top-level
  folder; a folder that has mounts below is gone into until nothing of it has.

What refuses to be a lower layer (FAT, some FUSE) is shown as it is, read-only.
"""

from __future__ import annotations

import base64
import contextlib
import os
import stat
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cairn_runtime import libc
from cairn_runtime.room import File, Room, Task

_SPECIAL = ("/proc", "/sys", "/dev")
_PRIVATE = {"/osmo": "osmo", "/tmp": "tmp", "/var/tmp": "vartmp"}  # noqa: S108
_READ_ONLY_PROC = ("sys", "sysrq-trigger", "irq", "bus")
_NO_UPPER_LAYER = ("overlay", "nfs", "fuse", "9p", "vfat", "exfat", "ecryptfs", "cifs", "smb")
"""File systems that cannot hold the layer that a task writes to; memory holds it then."""


_SYSTEM = frozenset({"bin", "boot", "etc", "lib", "media", "run", "sbin", "snap", "usr", "var"})
"""Where an ordinary user can write next to nothing: a layer in memory costs it less than one on
the disk, which is a dozen files to make and remove."""


@dataclass(frozen=True, slots=True)
class _Mount:
    point: str
    kind: str


def build_root(room: Room, task: Task, *, privileged: bool) -> None:
    """Builds the view, enters it, and stands in the task's working folder.

    Raises:
        OSError: the kernel refused something that nothing stands in for.
    """
    libc.mount("none", "/", None, libc.MS_REC | libc.MS_SLAVE)
    os.chdir(room.path)
    _View(room, task, privileged).build()
    os.chdir("root")
    libc.pivot_root(".", ".")
    libc.detach(".")
    os.chdir("/osmo/work")


class _View:
    """The tree below `root` in the attempt's directory, which is the current one.

    Layers are named by paths relative to it: the options of a mount must fit a page.
    """

    def __init__(self, room: Room, task: Task, privileged: bool) -> None:
        self._room = room
        self._task = task
        self._privileged = privileged
        self._mounts = _mounts()
        self._layers: dict[str, str] = {}  # where in the task's view -> the folder written to
        self._late: list[File] = []
        self._own = dict(sorted((_PRIVATE | _checkpointed(room, task)).items()))

    def build(self) -> None:
        Path("root").mkdir(exist_ok=True)
        places = self._plan()
        in_memory = self._held_by_memory(places)
        if in_memory:
            Path("memory").mkdir(exist_ok=True)
            libc.mount("tmpfs", "memory", "tmpfs", libc.MS_NOSUID | libc.MS_NODEV, "mode=0700")
        for number, place in enumerate(places):
            store = "memory" if place in in_memory else "disk"
            self._layers[place] = f"{store}/{number}/upper"
            # There already when the command runs again: it finds what it wrote.
            Path(self._layers[place]).mkdir(parents=True, exist_ok=True)
        for place in places:
            _copy_attributes(place, Path(self._layers[place]), self._privileged)
        self._inject()
        for place in self._own:
            if place not in _PRIVATE and (point := self._reach(place, holders=_PRIVATE)):
                point.mkdir(exist_ok=True)
        if not self._privileged:
            libc.bind("root", "root")
            self._recreate("/")
        for place in places:
            self._overlay(place)
        self._mount_special()
        for place, folder in self._own.items():  # outer ones first
            self._show(folder, place)
        if self._task.tools:
            self._show(self._task.tools, "/osmo/tools")
        for folder in self._task.hidden:
            self._hide(folder)
        for file in self._late:
            write_file(Path(f"root{file.path}"), file)

    # --- what is where ---

    def _held_by_memory(self, places: list[str]) -> frozenset[str]:
        """Of which places memory, and not the disk, holds what the task writes."""
        holder = max(
            (each for each in self._mounts if _below(str(self._room.path), each.point)),
            key=lambda each: len(each.point),
        )
        if holder.kind.startswith(_NO_UPPER_LAYER):
            return frozenset(places)
        if self._privileged:
            return frozenset()
        return frozenset(place for place in places if place.split("/")[1] in _SYSTEM)

    def _relevant(self) -> list[str]:
        """Mount points of the machine that the task should see, outer ones first."""
        covered = (*_SPECIAL, *_PRIVATE, *self._task.hidden)
        points = {each.point for each in self._mounts}
        return sorted(
            point for point in points if not any(_below(point, other) for other in covered)
        )

    def _plan(self) -> list[str]:
        """The places that get an overlay of their own."""
        points = self._relevant()
        if self._privileged:
            return points
        return list(self._leaves("/", [point for point in points if point != "/"]))

    def _leaves(self, folder: str, points: list[str]) -> Iterable[str]:
        """The largest folders below `folder` that have no mount below them."""
        covered = (*_SPECIAL, *_PRIVATE)
        try:
            places = sorted(str(each) for each in Path(folder).iterdir())
        except PermissionError:
            return
        for place in places:
            if place in covered or Path(place).is_symlink() or not Path(place).is_dir():
                continue
            if not os.access(place, os.R_OK | os.X_OK):
                continue  # /root, for one: the task gets an empty folder of its own
            inside = [point for point in points if _below(point, place) and point != place]
            if inside:
                yield from self._leaves(place, inside)
            else:
                yield place

    # --- files of the specification ---

    def _inject(self) -> None:
        """Puts files into the layers before they are mounted.

        A file is so found in /etc without anybody needing the right to write to /etc.
        """
        for file in self._task.files:
            target = self._reach(os.path.normpath(file.path), holders=self._own)
            if target is None:
                self._late.append(file)
            else:
                write_file(target, file)

    def _reach(self, path: str, *, holders: Mapping[str, str]) -> Path | None:
        """Where a path of the task's is, in a layer or in one of the folders of its own, with the
        folders above it made; None where nothing of that kind is (/dev, a bare root)."""
        place = _holder(path, holders)
        if place is None:
            path = str(Path(path).parent.resolve() / Path(path).name)
            place = _holder(path, holders) or self._layer(path)
        if place is None:
            return None
        base, folder = place
        here = base
        for part in Path(os.path.relpath(path, base)).parts[:-1]:
            here, folder = f"{here}/{part}", f"{folder}/{part}"
            if not Path(folder).is_dir():
                Path(folder).mkdir()
                _copy_attributes(here, Path(folder), self._privileged)
        return Path(folder) / Path(path).name

    def _layer(self, path: str) -> tuple[str, str] | None:
        """The layer that a path is written to; None where no layer is (/dev, a bare root)."""
        if any(_below(path, place) for place in _SPECIAL):
            return None
        fitting = [place for place in self._layers if _below(path, place) and path != place]
        if not fitting:
            return None
        place = max(fitting, key=len)
        return place, self._layers[place]

    # --- mounting ---

    def _overlay(self, place: str) -> None:
        target = f"root{place}"
        upper = self._layers[place]
        # A new one for each run: a volatile overlay takes no work directory that was used.
        work = tempfile.mkdtemp(prefix="work", dir=Path(upper).parent)
        if "," in place:
            self._show_as_is(place)
            return
        lower = place.replace("\\", "\\\\").replace(":", "\\:")
        options = f"lowerdir={lower},upperdir={upper},workdir={work}"
        if not self._privileged:
            options += ",userxattr"
        # Volatile: nothing of a task's scratch needs to survive a crash, and without it every
        # end of a task would flush the whole disk.
        for extra in (",volatile", ""):
            with contextlib.suppress(OSError):
                libc.mount("overlay", target, "overlay", 0, options + extra)
                return
        if place == "/":
            libc.mount("overlay", target, "overlay", 0, options)  # raises with the reason
        self._show_as_is(place)

    def _show_as_is(self, place: str) -> None:
        target = f"root{place}"
        libc.bind(place, target, recursive=True)
        with contextlib.suppress(OSError):
            libc.make_read_only(target)

    def _recreate(self, folder: str) -> None:
        """Makes, in the bare root, what overlays and binds need to be mounted on."""
        for entry in sorted(os.scandir(folder), key=lambda each: each.name):
            target = f"root{entry.path}"
            if entry.is_symlink():
                Path(target).symlink_to(Path(entry.path).readlink())
            elif entry.is_dir():
                Path(target).mkdir(exist_ok=True)
                if entry.path not in self._layers and any(
                    _below(place, entry.path) for place in self._layers
                ):
                    self._recreate(entry.path)
            elif entry.is_file():
                Path(target).touch()
                with contextlib.suppress(OSError):
                    self._show_as_is(entry.path)

    def _mount_special(self) -> None:
        flags = libc.MS_NOSUID | libc.MS_NODEV | libc.MS_NOEXEC
        try:
            libc.mount("proc", "root/proc", "proc", flags)
        except OSError:  # in a container that masks parts of /proc
            libc.bind("/proc", "root/proc", recursive=True)
        if self._privileged:
            for name in _READ_ONLY_PROC:
                with contextlib.suppress(OSError):
                    libc.bind(f"root/proc/{name}", f"root/proc/{name}")
                    libc.make_read_only(f"root/proc/{name}")
        libc.bind("/sys", "root/sys", recursive=True)
        with contextlib.suppress(OSError):
            libc.make_read_only("root/sys")
        libc.bind("/dev", "root/dev", recursive=True)
        with contextlib.suppress(OSError):
            libc.mount("tmpfs", "root/dev/shm", "tmpfs", flags & ~libc.MS_NOEXEC, "mode=1777")

    def _show(self, folder: str, place: str) -> None:
        target = f"root{place}"
        Path(target).mkdir(parents=True, exist_ok=True)
        libc.bind(folder, target)

    def _hide(self, folder: str) -> None:
        if Path(f"root{folder}").is_dir():
            flags = libc.MS_NOSUID | libc.MS_NODEV | libc.MS_NOEXEC
            libc.mount("tmpfs", f"root{folder}", "tmpfs", flags, "size=4k,mode=0755")


def _checkpointed(room: Room, task: Task) -> dict[str, str]:
    """Where in the task's view its checkpointed folders go, and the folders of the room."""
    found = {}
    for each in task.checkpoints:
        base = Path(each.base)
        if base.is_relative_to(room.files):
            inner = base.relative_to(room.files)
            place = f"/{inner}"
            if _holder(place, _PRIVATE) is None:
                place = str(Path(place).resolve())
            found[place] = f"files/{inner}"
    return found


def _holder(path: str, holders: Mapping[str, str]) -> tuple[str, str] | None:
    """The innermost of some folders that a path lies in, and what is shown there."""
    fitting = [place for place in holders if _below(path, place)]
    if not fitting:
        return None
    place = max(fitting, key=len)
    return place, holders[place]


def write_file(path: Path, file: File) -> None:
    """Puts an injected file at a path; a script may be run, anything else may be read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = base64.b64decode(file.contents) if file.base64 else file.contents.encode()
    path.write_bytes(data)
    path.chmod(0o755 if data.startswith(b"#!") else 0o644)


def _copy_attributes(place: str, folder: Path, privileged: bool) -> None:
    """Makes a layer's folder look like the machine's; an ordinary user becomes its owner."""
    with contextlib.suppress(FileNotFoundError):
        details = Path(place).stat()
        mode = stat.S_IMODE(details.st_mode)
        if privileged:
            os.chown(folder, details.st_uid, details.st_gid)
        else:
            mode |= 0o700
        folder.chmod(mode)


def _mounts() -> list[_Mount]:
    """This process's mounts, from /proc/self/mountinfo (see proc(5))."""
    found = []
    text = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    for line in text.splitlines():
        fields, _, rest = line.partition(" - ")
        point = fields.split(" ")[4]
        for code, character in (("\\040", " "), ("\\011", "\t"), ("\\134", "\\")):
            point = point.replace(code, character)
        found.append(_Mount(point, rest.split(" ")[0]))
    return found


def _below(path: str, folder: str) -> bool:
    """Whether a path is a folder or lies in it."""
    return folder in {path, "/"} or path.startswith(folder + "/")
