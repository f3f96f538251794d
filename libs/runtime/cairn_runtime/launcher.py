"""Forks shims: one process with everything imported, from which each attempt takes a copy.

Starting an interpreter and its imports costs some 30 ms of CPU for each attempt; a fork of this
process costs one. It holds no state: when the bridge goes (its end of the socket closes) the
launcher ends, its shims live on, and the next bridge starts another.

Run by path, `python -I -S launcher.py [lifeline descriptor]`, with a SOCK_SEQPACKET socket as
standard input. Each message is an attempt's directory and, along with it, the shim's end of the
connection to its driver. The message `probe <directory>` is answered by an empty message when a
room in namespaces can be built here, and else by the reason.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import sys
from pathlib import Path

if not __package__:  # run by path, isolated: nothing else puts this package on the path
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cairn_runtime import libc, process, shim
from cairn_runtime.room import NAMESPACES, Room, Task


def main() -> None:
    """Serves until the bridge has gone."""
    lifeline = int(sys.argv[1]) if len(sys.argv) > 1 else None
    bridge = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the supervisor's to interpret
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel buries the shims
    libc.set_process_name("cairn-launcher")
    os.umask(0o022)
    gc.collect()
    gc.freeze()  # what is never collected stays shared with the forks
    while True:
        message, descriptors, _, _ = socket.recv_fds(bridge, 65536, 1)
        if not message:
            return
        if message.startswith(b"probe "):
            bridge.send(_probe(Path(os.fsdecode(message[6:]))).encode())
            continue
        # Without a process to be had, the closed connection tells the driver that no shim came.
        with contextlib.suppress(OSError):
            _launch(bridge, Path(os.fsdecode(message)), descriptors, lifeline)
        for descriptor in descriptors:
            os.close(descriptor)


def _launch(
    bridge: socket.socket, directory: Path, descriptors: list[int], lifeline: int | None
) -> None:
    if os.fork():
        return
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        bridge.close()
        driver = socket.socket(fileno=descriptors[0]) if descriptors else None
        shim.main(directory, driver, lifeline)
    finally:
        sys.stderr.flush()
        os._exit(0)


def _probe(directory: Path) -> str:
    """Builds a room and throws it away; the words say what the kernel refused."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            libc.become_subreaper()
            os.write(write, _try_room(Room(directory)).encode())
        except OSError as error:
            os.write(write, str(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    try:
        return os.read(read, 4096).decode()
    finally:
        os.close(read)
        os.waitpid(pid, 0)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)


def _try_room(room: Room) -> str:
    room.furnish()
    task = Task("probe", "probe", 0, "", ["true"], {}, NAMESPACES)
    sandbox = process.start(room, task, lambda: None)
    words = process.decode_status(os.read(sandbox.status, 4096) or b'{"error": "it was killed"}')
    os.close(sandbox.word)
    os.waitpid(sandbox.pid, 0)
    return words.error or ""


if __name__ == "__main__":
    main()
