"""The end of an attempt: ordered by Cairn, or seen in the cluster; and those who are left.

A gang goes on with fewer members when one has ended, and KAI has to be told: see `core.gang`.
"""

from __future__ import annotations

from datetime import UTC, datetime

from cairn_bridge.cluster import Phase
from cairn_bridge.drivers.kubernetes.api import Document
from cairn_bridge.drivers.kubernetes.attempts import Attempt, Gang, Register
from cairn_bridge.drivers.kubernetes.core.gang import minimum
from cairn_bridge.drivers.kubernetes.core.helpers import GRACE_SECONDS
from cairn_bridge.drivers.kubernetes.core.observe import Verdict
from cairn_bridge.drivers.kubernetes.core.outcome import ending_of, gone_ending
from cairn_bridge.drivers.kubernetes.litter import Litter
from cairn_bridge.drivers.kubernetes.placing import Placer
from cairn_bridge.drivers.kubernetes.telling import Teller
from cairn_common.events import FinishReason


class Endings:
    """Ends attempts, and takes down how they ended."""

    def __init__(self, register: Register, placer: Placer, teller: Teller, litter: Litter) -> None:
        self._register = register
        self._placer = placer
        self._teller = teller
        self._litter = litter

    async def order(
        self,
        attempt: Attempt,
        reason: FinishReason,
        words: str,
        grace: int = GRACE_SECONDS,
        *,
        ended: bool = False,
        exit_code: int | None = None,
    ) -> None:
        """Ends an attempt, and has its pod remember why; the first verdict stays."""
        verdict = attempt.verdict or attempt.sight.verdict
        if verdict is None or (ended and not verdict.ended):
            at = datetime.now(UTC).isoformat(timespec="seconds")
            verdict = (
                Verdict(reason, words, at, ended, exit_code)
                if verdict is None
                else verdict._replace(ended=ended)
            )
        attempt.verdict = verdict
        pod = attempt.sight.pod
        marked = await self._placer.order_end(attempt.key, pod, verdict.encode(), grace)
        if marked is None and attempt.live:
            self.vanished(attempt, None)
        if attempt.told is None:  # of a half-made group: nobody was told that it is here
            await self._teller.accepted([attempt])

    def seen(self, attempt: Attempt, pod: Document) -> None:
        """An attempt's pod has ended."""
        if attempt.ending is None:
            attempt.ending = ending_of(pod)
            self._ended(attempt)

    def vanished(self, attempt: Attempt, last: Document | None) -> None:
        """A pod vanished before its attempt was settled: somebody took the finalizer away."""
        attempt.pod_gone = True
        if attempt.told is None and not attempt.gang.whole(attempt.sight.placement):
            self._register.drop(attempt)  # of a placement that failed: nobody knows of it
            self._litter.mind(attempt.gang)
            return
        if attempt.phase is not Phase.FINISHED:
            attempt.phase = Phase.FINISHED
            attempt.ending = gone_ending(last)
            self._ended(attempt)
        self._teller.advance(attempt)

    def _ended(self, attempt: Attempt) -> None:
        attempt.stop_clocks()
        gang = attempt.gang
        if not gang.adjusting and any(each.live for each in gang.attempts.values()):
            gang.adjusting = True
            self._teller.spawn(self._adjust(gang))

    async def _adjust(self, gang: Gang) -> None:
        """Lets a gang go on with those who are left, see `core.gang`."""
        try:
            async with gang.lock:
                gang.adjusting = False
                minima = minimum(gang.members())
                if gang.pod_group is not None and sum(minima.values()) < sum(gang.minima.values()):
                    await self._placer.set_minimum(gang, minima)
        finally:
            gang.adjusting = False
