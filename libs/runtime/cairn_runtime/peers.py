"""The shim's side of its socket: who is connected, what they say, and what they send along."""

from __future__ import annotations

import contextlib
import os
import socket

from cairn_runtime.room import Room


class Peer:
    """One connection: a driver, or somebody who asks for an exec."""

    def __init__(self, peer: socket.socket) -> None:
        self._peer = peer
        self._pending = b""
        self._descriptors: list[int] = []

    def tell(self, words: bytes) -> None:
        """A peer that does not read has enough unread letters to wake it up as it is."""
        with contextlib.suppress(OSError):
            self._peer.send(words)

    def orders(self) -> list[str]:
        """Whole lines that have arrived.

        Raises:
            ConnectionError: the peer has gone.
        """
        try:
            data, descriptors, _, _ = socket.recv_fds(self._peer, 65536, 8)
        except BlockingIOError:
            return []
        self._descriptors += descriptors
        if not data:
            raise ConnectionResetError
        *lines, self._pending = (self._pending + data).split(b"\n")
        return [line.decode(errors="replace") for line in lines]

    def take_descriptors(self) -> list[int]:
        """The descriptors that came along, which are the taker's to close."""
        taken, self._descriptors = self._descriptors, []
        return taken

    def close(self) -> None:
        """Ends the connection."""
        self._peer.close()


def listen(room: Room) -> socket.socket:
    """Listens below the attempt's directory, whose path may be too long for a socket's name."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    folder = os.open(room.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        room.socket.unlink(missing_ok=True)
        listener.bind(f"/proc/self/fd/{folder}/{room.socket.name}")
    finally:
        os.close(folder)
    listener.listen(16)
    listener.setblocking(False)
    return listener
