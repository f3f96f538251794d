"""What is done to the system. A fault is over when `inject` returns; what it broke may not be."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import asyncpg
from nats.js.errors import APIError

from .system import System

PAUSE_SECONDS = 9.0
"""Longer than an engine's lease, which lasts six."""
FULL_SECONDS = 6.0
_SERVICES = ("api", "scheduler-bridge", "log-relay")

Inject = Callable[[System, random.Random], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Fault:
    """A kind of fault. `held`: the seconds that it lasts by itself."""

    name: str
    inject: Inject
    held: float = 0.0


def all_faults(system: System) -> list[Fault]:
    """Every kind of fault that can be injected here."""
    parts = (*_SERVICES, "engine", "nats", "postgres")
    faults = [
        *(Fault(f"kill -9 {part}", _kill(part)) for part in parts),
        Fault("kill -9 of several at once", _kill_several),
        Fault("stop nats (SIGTERM)", _stop("nats", signal.SIGTERM)),
        Fault("stop postgres (fast)", _stop("postgres", signal.SIGINT)),
        *(Fault(f"pause {part}", _pause(part), PAUSE_SECONDS) for part in parts),
        Fault("delete all streams", _delete_streams),
        Fault("wipe JetStream, restart", _wipe_jetstream),
    ]
    if system.no_disks is None:
        faults += [
            Fault(f"disk full: {folder}", _fill(folder), FULL_SECONDS)
            for folder in ("nats", "postgres", "logs")
        ]
    return faults


def _chosen(system: System, part: str, chance: random.Random) -> str:
    """The part's name; of several engines any."""
    return chance.choice(system.engine_names()) if part == "engine" else part


def _kill(part: str) -> Inject:
    async def inject(system: System, chance: random.Random) -> None:
        system.send(_chosen(system, part, chance), signal.SIGKILL)

    return inject


async def _kill_several(system: System, chance: random.Random) -> None:
    names = system.names()
    for name in chance.sample(names, chance.randint(2, len(names))):
        system.send(name, signal.SIGKILL)


def _stop(part: str, number: signal.Signals) -> Inject:
    async def inject(system: System, chance: random.Random) -> None:
        system.send(part, number)

    return inject


def _pause(part: str) -> Inject:
    async def inject(system: System, chance: random.Random) -> None:
        pids = list(system.family(_chosen(system, part, chance)))
        for pid in pids:
            _signal(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(PAUSE_SECONDS)
        finally:
            for pid in reversed(pids):
                _signal(pid, signal.SIGCONT)

    return inject


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


async def _delete_streams(system: System, chance: random.Random) -> None:
    async with system.bus() as client:
        jetstream = client.jetstream()
        for stream in await jetstream.streams_info():
            with contextlib.suppress(APIError):
                await jetstream.delete_stream(stream.config.name)


async def _wipe_jetstream(system: System, chance: random.Random) -> None:
    # Stopped first: it must neither write behind our back nor come back too early.
    system.send("nats", signal.SIGSTOP)
    for entry in system.home.nats.iterdir():
        await asyncio.to_thread(shutil.rmtree, entry, ignore_errors=True)
    system.send("nats", signal.SIGKILL)


def _fill(folder: str) -> Inject:
    async def inject(system: System, chance: random.Random) -> None:
        ballast = system.root / folder / "ballast"
        try:
            await _take_all(ballast)
            for _ in range(int(FULL_SECONDS)):
                if folder == "postgres":
                    await _want_room(system)
                await asyncio.sleep(1)
                await _take_all(ballast)  # what was freed meanwhile, by a restart say
        finally:
            ballast.unlink(missing_ok=True)

    return inject


async def _want_room(system: System) -> None:
    """Have PostgreSQL need a further segment of its log now, which otherwise takes minutes."""
    with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        async with asyncio.timeout(1), system.database() as database:
            await database.execute("SELECT pg_switch_wal()")


async def _take_all(ballast: Path) -> None:
    """Let the file grow to take what is free of its disk."""
    with ballast.open("ab") as file:
        free = os.statvfs(ballast.parent)
        size = file.tell()
        with contextlib.suppress(OSError):  # somebody else was faster: full all the same
            if free.f_bavail:
                await asyncio.to_thread(
                    os.posix_fallocate, file.fileno(), size, free.f_bavail * free.f_frsize
                )
