#!/usr/bin/env -S python3 -I -S
"""Whether the service in this container can do its work now: exit code 0, or 1 with the reason.

The API says so itself. Of the others it is seen from outside: the process lives and is connected
to the servers that it needs. `cairn-healthy` looks for any of Cairn's services, `cairn-healthy
engine` for that one. Standard library only, so that it starts in milliseconds.
"""

from __future__ import annotations

import contextlib
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

# Each service's module, and the settings with the addresses of the servers that it is always
# connected to.
SERVICES = {
    "api": ("cairn_api", ()),
    "engine": ("cairn_engine", ("CAIRN_NATS_URL", "CAIRN_DATABASE_URL")),
    "scheduler-bridge": ("cairn_bridge", ("CAIRN_NATS_URL",)),
    "log-relay": ("cairn_logs", ("CAIRN_NATS_URL",)),
}
PORTS = {"CAIRN_NATS_URL": 4222, "CAIRN_DATABASE_URL": 5432}
_ESTABLISHED = "01"
_PATIENCE = 4.0


class UnhealthyError(Exception):
    """Carries the reason."""


def find(names: list[str]) -> tuple[str, Path]:
    """The service that runs here, and its folder in /proc."""
    modules = {SERVICES[name][0]: name for name in names}
    folders = [folder for folder in Path("/proc").iterdir() if folder.name.isdigit()]
    for folder in sorted(folders, key=lambda each: int(each.name)):
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            # Not the container's init, whose words end with the same.
            if not Path(words[0]).name.startswith("python") or "-m" not in words:
                continue
            if name := modules.get(words[words.index("-m") + 1]):
                return name, folder
    raise UnhealthyError("no such process: " + ", ".join(names))


def connected_ports(process: Path) -> set[int]:
    """The ports of other machines that the process has a TCP connection to."""
    sockets = set()
    for descriptor in (process / "fd").iterdir():
        with contextlib.suppress(OSError):
            sockets.add(str(descriptor.readlink()))
    ports = set()
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(FileNotFoundError):
            for line in (process / "net" / table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _ESTABLISHED and f"socket:[{fields[9]}]" in sockets:
                    ports.add(int(fields[2].rpartition(":")[2], 16))
    return ports


def ask_api() -> None:
    """Whether the API says that workflows can be submitted and run."""
    url = f"http://127.0.0.1:{os.environ.get('CAIRN_API_PORT', '8000')}/api/ready"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=_PATIENCE):
            pass
    except urllib.error.HTTPError as error:
        raise UnhealthyError(error.read(4096).decode(errors="replace")) from None
    except OSError as error:
        raise UnhealthyError(f"{url}: {error}") from None


def check(names: list[str]) -> None:
    """Raises `UnhealthyError` unless the service is there and can work."""
    name, process = find(names)
    if name == "api":
        ask_api()
        return
    there = connected_ports(process)
    for setting in SERVICES[name][1]:
        port = urlsplit(os.environ.get(setting, "")).port or PORTS[setting]
        if port not in there:
            raise UnhealthyError(f"{name} is not connected to port {port} ({setting})")


if __name__ == "__main__":
    try:
        check(sys.argv[1:] or list(SERVICES))
    except (UnhealthyError, OSError, KeyError) as error:
        sys.exit(f"unhealthy: {error}")
