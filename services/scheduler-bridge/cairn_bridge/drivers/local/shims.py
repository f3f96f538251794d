"""What a shim leaves in its attempt's directory, and how to reach one that lives.

These functions block for a moment: they are called in threads.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import time
from pathlib import Path

from cairn_common.events import FinishReason
from cairn_runtime.room import Ending, Room

NODE_LOST, BACKEND_ERROR, START_ERROR = 3001, 3001, 3003  # exit codes of the user guide
_CONNECT_SECONDS = 5.0
_FLOCK = "hhqqi"  # struct flock of 64-bit Linux: type, whence, start, length, pid


def shim_pid(room: Room) -> int | None:
    """The process that has the attempt now; None when there is none.

    Asks who holds the lock rather than trying it, which could get in a shim's way.
    """
    try:
        descriptor = os.open(room.lock, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        query = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        answer = fcntl.fcntl(descriptor, fcntl.F_GETLK, query)
    finally:
        os.close(descriptor)
    kind, _, _, _, pid = struct.unpack(_FLOCK, answer)
    return None if kind == fcntl.F_UNLCK else pid


def connect(room: Room) -> socket.socket | None:
    """A connection to the shim that has the attempt; None when there is none."""
    until = time.monotonic() + _CONNECT_SECONDS
    while shim_pid(room) is not None and time.monotonic() < until:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        folder = os.open(room.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # The directory's own path may be too long for a socket's name.
            connection.connect(f"/proc/self/fd/{folder}/{room.socket.name}")
        except OSError:
            connection.close()
            time.sleep(0.01)  # between its lock and its socket, a shim needs some microseconds
        else:
            return connection
        finally:
            os.close(folder)
    return None


def read_ending(room: Room) -> Ending:
    """How an attempt ended whose shim has gone."""
    with contextlib.suppress(FileNotFoundError):
        return Ending.decode(room.ending.read_bytes())
    if not room.pid.exists():
        words = "no process could be started for the task"
        return Ending(FinishReason.START_ERROR, START_ERROR, words, None, time.time())
    started_at = None
    with contextlib.suppress(OSError, ValueError):
        started_at = float(room.started.read_text(encoding="ascii"))
    words = "the task's processes were lost: killed together with the local cluster or the machine"
    return Ending(FinishReason.NODE_LOST, NODE_LOST, words, started_at, time.time())


def remove_tree(path: Path) -> None:
    """Removes a directory whatever its modes: the kernel leaves an overlay's work folder at 000."""
    with contextlib.suppress(FileNotFoundError), os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                with contextlib.suppress(PermissionError):
                    Path(entry.path).chmod(0o700)
                remove_tree(Path(entry.path))
            else:
                Path(entry.path).unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):
        path.rmdir()
