"""Hearing what the clusters have."""

from __future__ import annotations

import asyncio

from cairn_api.core.inventory import Inventory
from cairn_common.events import ClusterChanged, ClusterHeartbeat
from cairn_common.messaging import Bus, ClusterNews, News


class ClusterListener:
    """Keeps an inventory up to date."""

    def __init__(self, bus: Bus, inventory: Inventory) -> None:
        self._inventory = inventory
        self._news = ClusterNews(bus, self._take)
        self._heard = asyncio.Condition()

    async def start(self) -> None:
        """Subscribe, and read what was said before."""
        await self._news.start()

    async def known(self, pool: str, patience: float) -> bool:
        """Whether it is known what a pool's clusters have; waits for it a little."""
        try:
            async with asyncio.timeout(patience), self._heard:
                await self._heard.wait_for(lambda: bool(self._inventory.sites(pool)))
        except TimeoutError:
            return False
        return True

    async def _take(self, event: News) -> None:
        if isinstance(event, ClusterHeartbeat):
            self._inventory.take_heartbeat(event)
        elif isinstance(event, ClusterChanged):
            self._inventory.take_change(event)
        else:
            self._inventory.take_resources(event)
            async with self._heard:
                self._heard.notify_all()
