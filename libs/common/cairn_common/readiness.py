"""How a process says that it is ready: systemd's notification protocol, in the standard library.

The supervisor of standalone mode, systemd and others name a datagram socket in `NOTIFY_SOCKET`; one
datagram `READY=1` says that the service can be used. Where nobody asked (a container, whose
readiness is probed over HTTP), nothing happens, so a service calls this unconditionally once
its subscriptions stand and its listener accepts.
"""

from __future__ import annotations

import os
import socket


def notify_ready() -> bool:
    """Say that this process is ready. Returns whether anybody was told.

    The variable is forgotten afterwards: a child (a task above all) must not speak for us. A
    supervisor that is gone is no reason for a service to fail, so a socket that cannot be
    reached is the same as none.
    """
    address = os.environ.pop("NOTIFY_SOCKET", "")
    if not address:
        return False
    if address.startswith("@"):  # systemd's spelling of Linux's abstract namespace
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notify:
        try:
            notify.connect(address)
            notify.sendall(b"READY=1")
        except OSError:
            return False
    return True
