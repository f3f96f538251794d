"""Hearing what the clusters have.

The newest inventory of each cluster is read from its stream at the start; from then on a plain
subscription is enough, because every inventory replaces the one before.
"""

from __future__ import annotations

import asyncio

import structlog
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from cairn_api.core.inventory import Inventory
from cairn_common.events import ClusterHeartbeat, ClusterResources, InvalidEventError, decode
from cairn_common.events.subjects import CLUSTERS
from cairn_common.messaging import Bus

log = structlog.get_logger(__name__)

_SUBJECTS = ("cluster.resources.*", "cluster.heartbeat.*")


class ClusterNews:
    """Keeps an inventory up to date."""

    def __init__(self, bus: Bus, inventory: Inventory) -> None:
        self._bus = bus
        self._inventory = inventory
        self._heard = asyncio.Condition()

    async def start(self) -> None:
        """Subscribe, then read what was said before."""
        for subject in _SUBJECTS:
            await self._bus.client.subscribe(subject, cb=self._take)
        try:
            await self._read_past()
        except NatsError as error:
            # The bridges will say it again.
            log.warning("past inventories not read", error=repr(error))

    async def known(self, pool: str, patience: float) -> bool:
        """Whether it is known what a pool's cluster has; waits for it a little."""
        try:
            async with asyncio.timeout(patience), self._heard:
                await self._heard.wait_for(lambda: self._inventory.nodes(pool) is not None)
        except TimeoutError:
            return False
        return True

    async def _read_past(self) -> None:
        jetstream = self._bus.jetstream
        for pattern in _SUBJECTS:
            info = await jetstream.stream_info(CLUSTERS.name, subjects_filter=pattern)
            for subject in info.state.subjects or ():
                last = await jetstream.get_last_msg(CLUSTERS.name, subject, direct=True)
                await self._note(subject, last.headers or {}, last.data or b"")

    async def _take(self, message: Msg) -> None:
        await self._note(message.subject, message.headers or {}, message.data)

    async def _note(self, subject: str, headers: dict[str, str], body: bytes) -> None:
        try:
            event = decode(subject, headers, body)
        except InvalidEventError as error:
            log.warning("not an event", subject=subject, error=str(error))
            return
        if isinstance(event, ClusterHeartbeat):
            self._inventory.take_heartbeat(event)
        elif isinstance(event, ClusterResources):
            self._inventory.take_resources(event)
            async with self._heard:
                self._heard.notify_all()
