"""Real servers for tests: nats-server and PostgreSQL, started once and shared."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Servers:
    """Where they are: the settings of a service, and the two addresses among them."""

    settings: dict[str, str]

    @property
    def nats_url(self) -> str:
        """NATS with credentials."""
        return self.settings["CAIRN_NATS_URL"]

    @property
    def database_url(self) -> str:
        """PostgreSQL, database `cairn`."""
        return self.settings["CAIRN_DATABASE_URL"]


@contextlib.contextmanager
def running_servers(home: Path) -> Iterator[Servers]:
    """Start both servers with their data below `home`; stop them at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "cairn_standalone.servers", str(home)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, f"the servers did not start: exit code {process.wait()}"
        yield Servers(json.loads(line))
    finally:
        process.communicate("")
