"""How long the API takes to list workflows, by every filter that people use."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import httpx

from benchmarks.engine.__main__ import process
from benchmarks.harness import quantile

_PATIENCE = 60.0
_NOW = datetime.now(UTC)

QUERIES: Mapping[str, Mapping[str, str | int | Sequence[str]]] = {
    "newest": {"all_users": "true"},
    "of_a_user": {"users": "user7"},
    "of_a_user_completed": {"users": "user7", "statuses": "COMPLETED"},
    "completed": {"all_users": "true", "statuses": "COMPLETED"},
    "failed": {"all_users": "true", "statuses": "FAILED"},
    "canceled": {"all_users": "true", "statuses": "FAILED_CANCELED"},
    "running_none": {"all_users": "true", "statuses": "RUNNING"},
    "pending_none": {"all_users": "true", "statuses": ["PENDING", "WAITING"]},
    "label": {"all_users": "true", "label": "team=team7"},
    "label_none": {"all_users": "true", "label": "team=nobody"},
    "label_pattern": {"all_users": "true", "label": "team=team1*"},
    "name": {"all_users": "true", "name": "job4321"},
    "name_common": {"all_users": "true", "name": "job"},
    "name_one": {"all_users": "true", "name": "job2345-12345"},
    "name_none": {"all_users": "true", "name": "nothing-like-it"},
    "tag": {"all_users": "true", "tags": "keep"},
    "tag_none": {"all_users": "true", "tags": "nobody"},
    "priority": {"all_users": "true", "priority": "LOW"},
    "pool_none": {"all_users": "true", "pools": "nowhere"},
    "page_50": {"all_users": "true", "offset": 1_000},
    "page_5000": {"all_users": "true", "offset": 100_000},
    "before": {
        "all_users": "true",
        "submitted_before": (_NOW - timedelta(days=100)).isoformat(),
    },
}
"""By name; parameters of `GET /api/workflow`."""


async def measure(settings: dict[str, str], times: int) -> dict[str, tuple[float, float]]:
    """Milliseconds of each query, p50 and p99 of `times` requests one after the other."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    answers: dict[str, tuple[float, float]] = {}
    with process({**settings, "CAIRN_API_PORT": str(port)}, "-m", "cairn_api"):
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", timeout=_PATIENCE
        ) as client:
            await _ready(client)
            for name, query in QUERIES.items():
                answers[name] = await _time(client, query, times)
    return answers


async def _time(
    client: httpx.AsyncClient, query: Mapping[str, str | int | Sequence[str]], times: int
) -> tuple[float, float]:
    spent: list[float] = []
    for number in range(times + 3):
        started = time.perf_counter()
        answer = await client.get("/api/workflow", params={"limit": 20, **query})
        seconds = time.perf_counter() - started
        answer.raise_for_status()
        if number >= 3:  # the first ones fill caches
            spent.append(1000 * seconds)
        if seconds > 1 and len(spent) > 1:
            break  # far from any target: no need to know it more exactly
    return quantile(spent, 0.5), quantile(spent, 0.99)


async def _ready(client: httpx.AsyncClient) -> None:
    async with asyncio.timeout(_PATIENCE):
        while True:
            try:
                (await client.get("/api/workflow")).raise_for_status()
                return
            except httpx.HTTPError:
                await asyncio.sleep(0.1)
