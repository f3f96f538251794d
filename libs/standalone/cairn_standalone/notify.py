"""The receiving side of `cairn_common.readiness`: one datagram socket for each start."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

Receiver = socket.socket


@contextlib.contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """A socket at `path` that takes the messages of a service about itself.

    It is made anew for each start, so a late word of an earlier start is never heard.
    """
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as receiver:
        receiver.setblocking(False)
        receiver.bind(str(path))
        try:
            yield receiver
        finally:
            path.unlink(missing_ok=True)


async def wait_until_ready(receiver: socket.socket) -> None:
    """Return when the service says READY=1; its other messages are for systemd."""
    loop = asyncio.get_running_loop()
    while True:
        message = await loop.sock_recv(receiver, 4096)
        if b"READY=1" in message.split(b"\n"):
            return
