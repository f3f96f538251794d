"""Cairn itself: the whole system with real processes, and its engine with a cluster of nothing."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import uvloop

from benchmarks.engine.__main__ import NULL_BRIDGE, process
from benchmarks.engine.load import Load, chain, fan
from benchmarks.harness import running_servers
from benchmarks.peers.model import PeerMissingError, System
from benchmarks.peers.workers.work import TASKS_OF_A_CHAIN, WIDTH, Measured, Work, measure
from cairn_client import Client

VERSION = version("cairn-engine")
STATE = "PostgreSQL, each commit synced"
WHOLE = System(
    "Cairn",
    VERSION,
    "a process of its own, in namespaces of its own",
    STATE,
    "API, engine, bridge, log relay, nats-server, PostgreSQL",
)
ENGINE = System(
    "Cairn's engine",
    VERSION,
    "an answer of a cluster process that runs nothing",
    STATE,
    "engine, null cluster, nats-server, PostgreSQL",
)


def run_whole(work: Work, home: Path) -> Measured:
    """Workflows of `true`, sent by HTTP and followed by the API's stream of snapshots."""
    with _running(home) as url, Client(url, timeout=600) as client:
        return asyncio.run(_drive_whole(work, client))


def run_engine(work: Work, home: Path) -> Measured:
    """Workflows put in as the API does it, until the engine says that they have ended."""
    with (
        running_servers(home) as settings,
        process(settings, "-m", "cairn_engine"),
        process(settings, str(NULL_BRIDGE), settings["CAIRN_NATS_URL"]),
    ):
        return uvloop.run(_drive_engine(work, settings))


async def _drive_whole(work: Work, client: Client) -> Measured:
    with ThreadPoolExecutor(max_workers=work.burst) as threads:

        def run(text: str) -> None:
            end = client.wait(client.submit(text, pool="default").name)
            if end.status != "COMPLETED":
                raise RuntimeError(f"{end.name} ended {end.status}: {end.failure_message}")

        async def once(text: str) -> None:
            await asyncio.get_running_loop().run_in_executor(threads, run, text)

        small, wide = chain(TASKS_OF_A_CHAIN), fan(1 + WIDTH)
        return await measure(work, lambda: once(small), lambda: once(wide))


async def _drive_engine(work: Work, settings: dict[str, str]) -> Measured:
    async with Load(settings) as load:

        async def once(text: str) -> None:
            await load.wait(await load.submit(text, 1))

        small, wide = chain(TASKS_OF_A_CHAIN), fan(1 + WIDTH)
        return await measure(work, lambda: once(small), lambda: once(wide))


@contextmanager
def _running(home: Path) -> Iterator[str]:
    """The whole system; its URL."""
    command = (str(Path(sys.executable).parent / "cairn"),)
    environment = {**os.environ, "CAIRN_HOME": str(home)}
    environment.pop("CAIRN_URL", None)

    def cairn(*arguments: str) -> str:
        done = subprocess.run(
            (*command, *arguments), env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise PeerMissingError(
                f"cairn {arguments[0]}: {done.stderr.strip() or done.stdout.strip()}"
            )
        return done.stdout

    cairn("up", "--detach")
    try:
        yield json.loads(cairn("status", "--format-type", "json"))["url"]
    finally:
        cairn("down")
