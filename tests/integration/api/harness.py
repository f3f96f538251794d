"""Services in this process on real servers, and a cluster that the test plays."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import httpx

from cairn_api.service import ApiService
from cairn_api.settings import ApiSettings
from cairn_common.events import ClusterHeartbeat, ClusterResources, Event, NodeInfo, encode
from cairn_engine.service import EngineService
from cairn_engine.settings import EngineSettings
from engine_harness import Harness
from servers import Servers

GI = 1 << 30


class Runnable(Protocol):
    """A service."""

    ready: asyncio.Event

    async def run(self) -> None: ...


@contextlib.asynccontextmanager
async def running(service: Runnable) -> AsyncIterator[None]:
    """The service runs within the block."""
    task = asyncio.create_task(service.run())
    ready = asyncio.create_task(service.ready.wait())
    await asyncio.wait([task, ready], return_when=asyncio.FIRST_COMPLETED)
    ready.cancel()
    if task.done():
        task.result()
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def api_settings(servers: Servers, **changes: Any) -> ApiSettings:
    """Settings of an API on a free port that waits for nothing longer than a test likes."""
    values: dict[str, Any] = {
        "nats_url": servers.nats_url,
        "database_url": servers.database_url,
        "api_port": 0,
        "local_user": "tester",
        "inventory_patience": 0.05,
        "handover_seconds": 0.2,
        "spec_workers": 1,
    }
    return ApiSettings(**{**values, **changes})


@contextlib.asynccontextmanager
async def serving(servers: Servers, **changes: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an API of its own."""
    service = ApiService(api_settings(servers, **changes))
    async with running(service):
        base = f"http://127.0.0.1:{service.port}"
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=base, timeout=60, limits=limits) as client:
            yield client


@contextlib.asynccontextmanager
async def engine_running(servers: Servers, **changes: Any) -> AsyncIterator[None]:
    """An engine."""
    settings = EngineSettings(
        nats_url=servers.nats_url,
        database_url=servers.database_url,
        **{"offer_interval": 1.0, "lease_seconds": 2.0, "backoff_base": 0.05, **changes},
    )
    async with running(EngineService(settings)):
        yield


@dataclass
class Cluster:
    """The cluster `local`: tasks end when the test says so."""

    harness: Harness
    codes: dict[tuple[str, str], int | None]

    async def say(self, *events: Event) -> None:
        """Publish events as a bridge does."""
        await self.harness.publisher.publish([encode(event, source="/test") for event in events])

    async def has(self, *nodes: NodeInfo) -> None:
        """Tell what the cluster has."""
        now = datetime.now(UTC)
        await self.say(
            ClusterResources(cluster="local", at=now, pools=["default"], nodes=list(nodes)),
            ClusterHeartbeat(cluster="local", at=now, interval_seconds=60),
        )


def fresh(stem: str = "w") -> str:
    """A workflow name that no other test has."""
    return f"{stem}{uuid.uuid4().hex[:10]}"


def spec(name: str, *tasks: str, **fields: str) -> str:
    """A workflow of tasks `name` or `name<input`."""
    lines = ["workflow:", f"  name: {name}"]
    lines += [f"  {key}: {value}" for key, value in fields.items()]
    lines.append("  tasks:")
    for task in tasks or ("only",):
        own, _, source = task.partition("<")
        lines += [f"  - name: {own}", "    image: ubuntu:24.04", "    command: [echo, hello]"]
        if source:
            lines += ["    inputs:", f"    - task: {source}"]
    return "\n".join(lines) + "\n"


async def submit(api: httpx.AsyncClient, text: str, **params: Any) -> str:
    """Submit and return the id."""
    answer = await api.post("/api/pool/default/workflow", json={"file": text}, params=params)
    assert answer.status_code == 200, answer.text
    name: str = answer.json()["name"]
    return name
