"""What is in the cluster and in nobody's books: found, and after a while removed.

A workflow that the engine has never heard of (its database was restored from an older copy, or
another installation used this cluster's name) holds resources for nothing. The engine is asked;
without its answer nothing is removed. What it does not know twice, a grace time apart, is stopped
and settled. Objects that no bridge of this name made are not even seen.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable

import nats.errors
import structlog

from cairn_bridge.cluster import AttemptKey, ClusterDriver
from cairn_common.messaging import Bus
from cairn_common.requests import WORKFLOWS_SUBJECT, WorkflowsReply, WorkflowsRequest

log = structlog.get_logger(__name__)

_ANSWER_SECONDS = 10.0
_ASKED_AT_ONCE = 1000
_STOP_GRACE = 30.0
_CAUSE = "the engine does not know its workflow"


class Orphans:
    """Looks for orphans.

    Args:
        bus: where the engine is asked.
        driver: the cluster.
        grace: seconds between the first suspicion and the removal.
    """

    def __init__(self, bus: Bus, driver: ClusterDriver, grace: float) -> None:
        self._bus = bus
        self._driver = driver
        self._grace = grace
        self._suspects: frozenset[str] = frozenset()

    async def run(self) -> None:
        """Look, until canceled."""
        while True:
            await asyncio.sleep(self._grace)
            try:
                await self.look()
            except nats.errors.Error:
                log.debug("orphans not looked for: no engine answers")
            except Exception:  # what runs must not end over litter; the next look tries again
                log.exception("orphans not removed")

    async def look(self) -> None:
        """Once: what was unknown the last time and still is goes."""
        attempts: dict[str, list[AttemptKey]] = defaultdict(list)
        for key in self._driver.known():
            attempts[key.workflow].append(key)
        unknown = await self._unknown(attempts)
        condemned = unknown & self._suspects
        self._suspects = unknown - condemned
        keys = [key for workflow in condemned for key in attempts[workflow]]
        if keys:
            log.warning("orphans", workflows=sorted(condemned)[:20], attempts=len(keys))
            await self._driver.stop(keys, _CAUSE, _STOP_GRACE)
            await self._driver.settle(keys)  # those that have ended; the others the next time
            self._suspects |= condemned

    async def _unknown(self, workflows: Iterable[str]) -> frozenset[str]:
        unknown: set[str] = set()
        names = sorted(workflows)
        for start in range(0, len(names), _ASKED_AT_ONCE):
            asked = names[start : start + _ASKED_AT_ONCE]
            body = WorkflowsRequest(workflows=asked).model_dump_json().encode()
            answer = await self._bus.client.request(
                WORKFLOWS_SUBJECT, body, timeout=_ANSWER_SECONDS
            )
            reply = WorkflowsReply.model_validate_json(answer.data)
            unknown.update(set(reply.unknown) & set(asked))
        return frozenset(unknown)
