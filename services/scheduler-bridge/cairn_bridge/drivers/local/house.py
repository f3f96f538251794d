"""The driver's own folder: who has it, what is in it, and keeping it clean.

`record.db` and `attempts/<workflow>/<index>-<attempt>/` are the driver's memory; `tools` has the
stand-ins that tasks may use; `launcher.log` has the tracebacks of what ran without a bridge.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import threading
from collections.abc import Sequence
from pathlib import Path

import structlog

from cairn_bridge.cluster import AttemptKey
from cairn_bridge.drivers.local import shims, tools
from cairn_bridge.drivers.local.launcher import Launcher
from cairn_bridge.drivers.local.record import Remembered
from cairn_runtime.room import Room, Stop, Task

log = structlog.get_logger(__name__)


class House:
    """The folder. Methods but `room` block and are called in threads."""

    def __init__(self, root: Path, store: Path) -> None:
        self.root = root
        self.store = store
        self.record = root / "record.db"
        self.errors = root / "launcher.log"
        self.tools = root / "tools"
        self.boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        self._attempts = root / "attempts"
        self._lock: int | None = None
        # A workflow's folder must not go between its making and its first entry's.
        self._shaping = threading.Lock()

    def open(self) -> None:
        """Takes the folder and puts it in order.

        Raises:
            RuntimeError: another process has it.
        """
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.store.mkdir(parents=True, exist_ok=True)
        lock = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            raise RuntimeError(f"another bridge drives the cluster in {self.root}") from error
        self._lock = lock
        self._attempts.mkdir(exist_ok=True)
        tools.install(self.tools)

    def close(self) -> None:
        """Lets others have the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def room(self, key: AttemptKey) -> Room:
        """The directory of an attempt."""
        return Room(self._attempts / key.workflow / f"{key.index}-{key.attempt}")

    def furnish(self, room: Room, task: Task) -> None:
        """Makes an attempt's directory, with what its shim is told in it."""
        shims.remove_tree(room.path)  # what a launch left that a crash cut short
        with self._shaping:
            room.path.mkdir(parents=True, mode=0o700)
        room.task.write_bytes(task.encode())

    def look(self, item: Remembered, room: Room) -> tuple[bool, socket.socket | None]:
        """Whether an attempt was launched, and a connection to its shim if that lives."""
        if item.ending is not None:
            return True, None
        if connection := shims.connect(room):
            return True, connection
        # A launch that never got as far as its process is made again, unless the machine went
        # down since: then the directory may be older than what it saw.
        begun = room.pid.exists() or room.ending.exists()
        return begun or item.boot not in {None, self.boot}, None

    def probe(self, launcher: Launcher) -> str:
        """Why tasks cannot have namespaces here; empty when they can."""
        folder = self.root / "probe"
        shims.remove_tree(folder)
        folder.mkdir()
        try:
            return launcher.probe(folder)
        finally:
            shims.remove_tree(folder)

    def sweep(self, known: set[Path]) -> None:
        """Removes directories that a crash left between being forgotten and being removed."""
        for folder in self._attempts.glob("*/*"):
            if folder in known:
                continue
            if connection := shims.connect(Room(folder)):
                # Nobody knows of it any more, so nobody could ever stop it.
                with connection, contextlib.suppress(OSError):
                    connection.send(Stop(0.0, "forgotten").encode())
                continue
            self.remove([folder])

    def remove(self, folders: Sequence[Path]) -> None:
        """Removes attempts' directories, and a workflow's when it is empty.

        What cannot be removed now (something still writes there) is swept by the next bridge.
        """
        for folder in folders:
            try:
                shims.remove_tree(folder)
            except OSError as error:
                log.warning("local_cluster.not_removed", folder=str(folder), error=str(error))
            with self._shaping, contextlib.suppress(OSError):  # not empty
                folder.parent.rmdir()
