"""The engine's orders about attempts: place, stop, settle. See `ClusterDriver` for their rules."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, Final

import structlog

from cairn_bridge.cluster import AttemptKey, keys_of
from cairn_bridge.drivers.kubernetes.attempts import Attempt, Gang, Register
from cairn_bridge.drivers.kubernetes.core.observe import Sight
from cairn_bridge.drivers.kubernetes.endings import Endings
from cairn_bridge.drivers.kubernetes.litter import Litter
from cairn_bridge.drivers.kubernetes.placing import Placer
from cairn_bridge.drivers.kubernetes.telling import Teller
from cairn_bridge.underway import UnderWay
from cairn_common.events import FinishReason, GroupPlacement

log = structlog.get_logger(__name__)

_BEFORE: Final = "the attempt was settled before"


class Orders:
    """Carries out orders."""

    def __init__(
        self,
        register: Register,
        placer: Placer,
        teller: Teller,
        endings: Endings,
        litter: Litter,
    ) -> None:
        self._register = register
        self._placer = placer
        self._teller = teller
        self._endings = endings
        self._litter = litter
        self._under_way = UnderWay()

    async def place(self, placement: GroupPlacement, traceparent: str | None) -> None:
        """See `ClusterDriver`."""
        with self._under_way.placing(keys_of(placement)):
            await self._place(placement, traceparent)

    async def _place(self, placement: GroupPlacement, traceparent: str | None) -> None:
        placement = await self._without_barred(placement)
        if not placement.tasks:
            return
        gang = self._register.gang(placement.group_uuid)
        async with gang.lock:
            keys = keys_of(placement)
            known = [attempt for key in keys if (attempt := self._register.get(key))]
            if len(known) < len(keys) or any(
                not gang.whole(each.sight.placement) for each in known
            ):
                self._litter.mind(gang)
                try:
                    sights = await self._placer.place(gang, placement, traceparent)
                except Exception:  # whatever it was, who ordered it hears of it
                    await self._forget_half(gang)
                    raise
                known = [self._noted(sight) for sight in sights]
        again = [each for each in known if each.told is not None]
        await self._teller.accepted(known)
        # Whoever places twice may not have heard what became of the first time.
        await self._teller.phases(again)

    async def _forget_half(self, gang: Gang) -> None:
        """Nothing of a placement that failed is left, or it will be swept."""
        for attempt in list(gang.attempts.values()):
            if attempt.told is None and not gang.whole(attempt.sight.placement):
                self._register.drop(attempt)
        try:
            await self._litter.remove_if_empty(gang)
        except Exception as error:
            log.warning("kubernetes.left_behind", group=gang.uuid, error=str(error))

    def _noted(self, sight: Sight) -> Attempt:
        """What the watch may have seen already, and further than the answer to our request."""
        return self._register.get(sight.key) or self._register.note(sight)

    async def _without_barred(self, placement: GroupPlacement) -> GroupPlacement:
        """Tasks that were stopped or settled before are not run; the engine hears of it."""
        wanted = []
        for task, key in zip(placement.tasks, keys_of(placement), strict=True):
            if self._register.was_settled(key):
                await self._teller.never_ran(key, FinishReason.NODE_LOST, _BEFORE)
            elif (cause := self._register.barred(key)) is not None:
                await self._teller.never_ran(key, FinishReason.STOPPED, cause)
            else:
                wanted.append(task)
        if len(wanted) == len(placement.tasks):
            return placement
        return placement.model_copy(update={"tasks": wanted})

    async def stop(self, keys: Iterable[AttemptKey], cause: str, grace_seconds: float) -> None:
        """See `ClusterDriver`."""
        keys = list(keys)
        await self._under_way.over(keys)
        ended: list[Attempt] = []
        ends: list[Coroutine[Any, Any, None]] = []
        for key in keys:
            attempt = self._register.get(key)
            if attempt is None:
                self._register.bar(key, cause)
                self._teller.spawn(self._teller.never_ran(key, FinishReason.STOPPED, cause))
            elif attempt.live:
                grace = max(1, math.ceil(grace_seconds))
                ends.append(self._endings.order(attempt, FinishReason.STOPPED, cause, grace))
            else:
                ended.append(attempt)
        await asyncio.gather(*ends)
        if ended:
            self._teller.spawn(self._teller.phases(ended))

    async def settle(self, keys: Iterable[AttemptKey]) -> None:
        """See `ClusterDriver`. Attempts that have not ended stay."""
        by_gang: dict[str, list[Attempt]] = {}
        for key in keys:
            attempt = self._register.get(key)
            if attempt is None:
                continue
            if attempt.live:
                log.warning("kubernetes.settled_too_early", task=key)
                continue
            by_gang.setdefault(attempt.gang.uuid, []).append(attempt)
        await asyncio.gather(*(self._settle(attempts) for attempts in by_gang.values()))

    async def _settle(self, attempts: Sequence[Attempt]) -> None:
        gang = attempts[0].gang
        for attempt in attempts:
            if attempt.teller is not None:  # its end is just being told
                await asyncio.wait([attempt.teller])
        async with gang.lock:
            await self._placer.remove_pods(each.sight.pod for each in attempts if not each.pod_gone)
            for attempt in attempts:
                self._register.settle(attempt)
            await self._litter.remove_if_empty(gang)
