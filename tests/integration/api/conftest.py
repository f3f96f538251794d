"""The API with real servers, a real engine and a real log relay; the test plays the cluster."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from cairn_common.events import NodeInfo
from cairn_logs.service import LogRelayService
from cairn_logs.settings import LogRelaySettings
from engine_harness import Harness
from integration.api.harness import GI, Cluster, engine_running, running, serving
from servers import Servers


@pytest.fixture
async def api(servers: Servers) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(servers) as client:
        yield client


@pytest.fixture
async def engine(servers: Servers) -> AsyncIterator[None]:
    async with engine_running(servers):
        yield


@pytest.fixture
async def relay(servers: Servers, tmp_path: Path) -> AsyncIterator[None]:
    settings = LogRelaySettings(
        nats_url=servers.nats_url, database_url=servers.database_url, home=tmp_path
    )
    async with running(LogRelayService(settings)):
        yield


@pytest.fixture
async def cluster(servers: Servers) -> AsyncIterator[Cluster]:
    """Every task ends at once with code 0, unless `codes` says another or None."""
    codes: dict[tuple[str, str], int | None] = {}

    def judge(workflow: str, task: Any) -> int | None:
        return codes.get((workflow.rpartition("-")[0], task.name), 0)

    async with Harness(servers.nats_url, servers.database_url, judge) as harness:
        playing = Cluster(harness, codes)
        await playing.has(NodeInfo(name="box", cpu=8, memory=16 * GI, storage=100 * GI))
        yield playing
