"""Removing what a placement left behind.

A group whose pods are not all there counts as not accepted; nobody may ever complete it. After a
while it goes: its pods, and a PodGroup without pods.
"""

from __future__ import annotations

import asyncio

import structlog

from cairn_bridge.drivers.kubernetes.attempts import Gang, Register
from cairn_bridge.drivers.kubernetes.placing import Placer
from cairn_bridge.drivers.kubernetes.telling import Teller

log = structlog.get_logger(__name__)


class Litter:
    """Sweeps groups that are half-made.

    Args:
        patience: seconds after which a half-made group is removed.
    """

    def __init__(self, register: Register, placer: Placer, teller: Teller, patience: float) -> None:
        self._register = register
        self._placer = placer
        self._teller = teller
        self._patience = patience

    def mind(self, gang: Gang) -> None:
        """Look at a group that is half-made again when it has been so for long."""
        if gang.sweep is None:
            loop = asyncio.get_running_loop()
            gang.sweep = loop.call_later(self._patience, self._sweep, gang)

    def _sweep(self, gang: Gang) -> None:
        gang.sweep = None
        self._teller.spawn(self._remove(gang))

    async def _remove(self, gang: Gang) -> None:
        async with gang.lock:
            half = [each for each in gang.attempts.values() if each.told is None]
            if half:
                log.warning("kubernetes.half_made", group=gang.uuid, pods=len(half))
                await self._placer.remove_pods(each.sight.pod for each in half)
                for attempt in half:
                    self._register.drop(attempt)
            await self.remove_if_empty(gang)

    async def remove_if_empty(self, gang: Gang) -> None:
        """Remove a group in which nobody is left; the caller holds its lock."""
        if gang.attempts:
            return
        if gang.sweep is not None:
            gang.sweep.cancel()
            gang.sweep = None
        if gang.pod_group is not None:
            await self._placer.remove_group(gang)
        self._register.gangs.pop(gang.uuid, None)
