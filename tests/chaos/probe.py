"""How long until work gets done again, end to end.

The clock starts with the injection of the fault. At once, `PROBES` workflows of one task are sent
through the HTTP API with priority HIGH, each until it is acknowledged. It has recovered when
all were acknowledged, are COMPLETED by the API's word, and the API gives out the line that
each has logged. Several, because a workflow belongs to one of sixteen partitions and so to one
engine. A fault that lasts (a pause, a full disk) counts as far as nothing gets done in it; when it
is over, the same is measured again from there, and the longer of the two times stands.
"""

from __future__ import annotations

import asyncio
import time

import httpx

from .load import Load
from .shapes import probe
from .system import System

PROBES = 4
PATIENCE = 120.0
"""Seconds after which a system counts as not recovered."""
_AGAIN = 0.1


class Prober:
    """Measures how long recovery takes."""

    def __init__(self, system: System, load: Load, port: int) -> None:
        self._system = system
        self._load = load
        self._port = port

    async def recovered(self, since: float) -> float | None:
        """The seconds from `since` (monotonic) until all is well; None: it never was in time."""
        try:
            async with asyncio.timeout(PATIENCE):
                await asyncio.gather(*(self._probe() for _ in range(PROBES)))
        except TimeoutError:
            return None
        return time.monotonic() - since

    async def _probe(self) -> None:
        async with self._system.client() as client:
            workflow = None
            while workflow is None:
                sent = await self._load.submit(client, probe(self._port), "HIGH")
                workflow = sent.workflow
                if workflow is None:
                    await asyncio.sleep(_AGAIN)
            while not await self._done(client, workflow):
                await asyncio.sleep(_AGAIN)

    async def _done(self, client: httpx.AsyncClient, workflow: str) -> bool:
        try:
            answer = await client.get(f"/api/workflow/{workflow}", params={"skip_groups": True})
            if answer.status_code != 200 or answer.json()["status"] != "COMPLETED":
                return False
            log = await client.get(f"/api/workflow/{workflow}/logs")
        except httpx.HTTPError:
            return False
        return "ran probe" in log.text
