"""A real nats-server with decentralized accounts, as `cairn_common.security.accounts` makes it."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cairn_standalone.nats import find_program


@dataclass(frozen=True)
class NatsServer:
    """Where it is, and the folder with its accounts and everybody's credentials."""

    url: str
    folder: Path


@contextlib.contextmanager
def secured_nats(home: Path, clusters: Sequence[str]) -> Iterator[NatsServer]:
    """Start one with its data below `home`; stop it at the end."""
    folder = home / "accounts"
    named = [word for cluster in clusters for word in ("--cluster", cluster)]
    subprocess.run(
        [sys.executable, "-m", "cairn_common.security.accounts", folder, *named],
        check=True,
        capture_output=True,
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    configuration = home / "nats.conf"
    configuration.write_text(
        f'listen: "127.0.0.1:{port}"\n'
        "max_payload: 8MB\n"
        f'jetstream {{ store_dir: "{home / "data"}", max_file_store: 64GB }}\n'
        'include "accounts/accounts.conf"\n'
    )
    with (home / "nats.log").open("wb") as log:
        process = subprocess.Popen([find_program(), "-c", configuration], stdout=log, stderr=log)
    try:
        _wait(port, process, home / "nats.log")
        yield NatsServer(f"nats://127.0.0.1:{port}", folder)
    finally:
        process.terminate()
        process.wait(30)


def _wait(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    raise RuntimeError(f"nats-server does not answer: {log.read_text()}")
