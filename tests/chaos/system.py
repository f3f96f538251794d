"""The system under test: a standalone Cairn in a home of its own, and the ways to get at it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import nats

from cairn_standalone import postgres
from cairn_standalone.home import Home
from cairn_standalone.nats import url as nats_url
from cairn_standalone.state import Identity, State, running

CAIRN = str(Path(sys.executable).parent / "cairn")
USER = "chaos"
SMALL_DISKS = {"nats": 768, "postgres": 2048, "logs": 256}
"""Folders of the home that get a small disk of their own, and its size in MiB."""


@dataclass
class System:
    """A running system.

    Args:
        root: its home, an empty folder.
        engines: how many share the partitions.
        slots: how many tasks may run at once.
    """

    root: Path
    engines: int
    slots: int
    no_disks: str | None = None
    """Why there are no small disks; None: there are."""
    home: Home = field(init=False)

    def __post_init__(self) -> None:
        self.home = Home(self.root)

    def up(self) -> None:
        """Start it; returns when it is ready."""
        self.home.create()
        self.no_disks = self._mount()
        self._cairn("up", "--detach", "--engines", str(self.engines))

    def down(self) -> None:
        """Stop it and let go of the disks."""
        self._cairn("down")

    def unmount(self) -> None:
        """Let go of the small disks, and of what is on them."""
        for name in SMALL_DISKS:
            if os.path.ismount(self.root / name):
                subprocess.run(["umount", "--lazy", self.root / name], check=True)

    def remove(self) -> None:
        """Remove the home."""
        self.unmount()
        shutil.rmtree(self.root)

    def _mount(self) -> str | None:
        if os.geteuid() != 0:
            return "mounting needs the rights of root"
        for name, size in SMALL_DISKS.items():
            options = f"size={size}m,mode=0700"
            done = subprocess.run(
                ["mount", "-t", "tmpfs", "-o", options, "cairn-chaos", self.root / name],
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                return f"mounting is not permitted here: {done.stderr.strip()}"
        return None

    def _cairn(self, *arguments: str) -> None:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("CAIRN_")}
        settings = {"CAIRN_HOME": str(self.root), "CAIRN_LOCAL_CPUS": str(self.slots)}
        # Not through pipes: the supervisor would hold them open.
        with (self.root / "cairn.out").open("a") as output:
            done = subprocess.run(
                [CAIRN, *arguments],
                env={**kept, **settings, "CAIRN_LOG_FORMAT": "json"},
                stdout=output,
                stderr=output,
                check=False,
            )
        if done.returncode:
            words = (self.root / "cairn.out").read_text()[-4000:]
            raise RuntimeError(f"cairn {' '.join(arguments)} ended with {done.returncode}\n{words}")

    # --- processes ---

    @property
    def state(self) -> State:
        """What the supervisor says of its parts.

        Raises:
            RuntimeError: there is no supervisor.
        """
        found = running(self.home)
        if found is None:
            raise RuntimeError("the supervisor is gone")
        return found

    def names(self) -> list[str]:
        """The parts."""
        return [part.name for part in self.state.parts]

    def engine_names(self) -> list[str]:
        """The parts that are engines."""
        return [name for name in self.names() if name.startswith("engine")]

    def process(self, name: str) -> Identity | None:
        """The process of a part, if it has one now."""
        return next(part.process for part in self.state.parts if part.name == name)

    async def live(self, name: str, patience: float = 30.0) -> Identity:
        """The process of a part, once it is ready."""
        deadline = time.monotonic() + patience
        while True:
            part = next(part for part in self.state.parts if part.name == name)
            if part.phase == "ready" and part.process is not None:
                return part.process
            if time.monotonic() > deadline:
                raise RuntimeError(f"{name} is {part.phase}: {part.last_exit}")
            await asyncio.sleep(0.05)

    def family(self, name: str) -> Iterator[int]:
        """The processes of a part: its own, and of PostgreSQL those that serve its clients."""
        process = self.process(name)
        if process is None:
            return
        yield process.pid
        if name == "postgres":
            with contextlib.suppress(OSError):
                children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
                yield from map(int, children.split())

    def send(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a part's own process."""
        process = self.process(name)
        if process is not None:
            process.send(number)

    # --- talking to it ---

    @property
    def url(self) -> str:
        """Where the API is."""
        return self.state.url

    def client(self) -> httpx.AsyncClient:
        """A client of the API."""
        return httpx.AsyncClient(
            base_url=self.url, timeout=10.0, headers={"x-osmo-user": USER}, trust_env=False
        )

    @contextlib.asynccontextmanager
    async def database(self) -> AsyncIterator[asyncpg.Connection[Any]]:
        """A connection to the database."""
        connection = await asyncpg.connect(postgres.dsn(Path(self.state.sockets)), timeout=10)
        try:
            yield connection
        finally:
            await connection.close()

    @contextlib.asynccontextmanager
    async def bus(self) -> AsyncIterator[nats.NATS]:
        """A connection to NATS."""
        memory = self.home.recall()

        async def quiet(_: Exception) -> None:
            """What fails is seen by whoever asks."""

        client = await nats.connect(
            nats_url(memory.nats_port, memory.nats_password),
            connect_timeout=5,
            max_reconnect_attempts=3,
            error_cb=quiet,
        )
        try:
            yield client
        finally:
            await client.close()

    def log(self, name: str) -> Path:
        """The log of a part."""
        return self.home.log_file(name)
