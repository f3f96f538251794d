"""Comparing what the engine believes with what the cluster has.

A bridge does this when it starts and when the bus was emptied. What the engine believes to be in
the cluster and is not is reported as lost; what the cluster has is reported as it is now.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import nats.errors
import structlog

from cairn_bridge.cluster import AttemptKey, ClusterDriver, Fact, Outcome, Phase, Reporter
from cairn_common.events import FinishReason
from cairn_common.messaging import Bus
from cairn_common.requests import ATTEMPTS_SUBJECT, AttemptsReply, AttemptsRequest

log = structlog.get_logger(__name__)

_ANSWER_SECONDS = 10.0


async def reconcile(bus: Bus, driver: ClusterDriver, reporter: Reporter) -> None:
    """Report the difference between belief and fact, then everything that is here.

    Raises:
        EngineAwayError: no engine answered; try again later.
    """
    lost = 0
    async for page in _believed(bus, driver.name):
        # What the engine believed was accepted before it answered: asked now, never before, the
        # driver has a record of it.
        known = driver.known()
        gone = [key for key in page if key not in known]
        lost += len(gone)
        now = datetime.now(UTC)
        outcome = Outcome(
            FinishReason.NODE_LOST, message=f"cluster {driver.name} has no record of it"
        )
        await asyncio.gather(
            *(reporter.fact(Fact(Phase.FINISHED, (key,), now, outcome=outcome)) for key in gone)
        )
    await driver.report_all()
    log.info("reconciled", here=len(driver.known()), lost=lost)


class EngineAwayError(Exception):
    """No engine answers requests at present."""


async def _believed(bus: Bus, cluster: str) -> AsyncIterator[list[AttemptKey]]:
    request = AttemptsRequest(cluster=cluster)
    while True:
        try:
            reply = await bus.client.request(
                ATTEMPTS_SUBJECT, request.model_dump_json().encode(), timeout=_ANSWER_SECONDS
            )
        except nats.errors.Error as error:  # nobody there, no answer in time, no connection
            raise EngineAwayError from error
        page = AttemptsReply.model_validate_json(reply.data).attempts
        if not page:
            return
        yield [AttemptKey(each.workflow, each.index, each.attempt, each.name) for each in page]
        request = AttemptsRequest(
            cluster=cluster, after_workflow=page[-1].workflow, after_index=page[-1].index
        )
