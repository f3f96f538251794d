"""Handing requests over to the engine: sent at once, and again until the engine has them.

A request is a row before it is an event (DESIGN, rule 5). Sending right after the commit is for
speed; what makes it certain is the sweep, which sends again whatever the engine's views do not
show yet. So sending may fail, be dropped or be done twice without harm.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

import structlog

from cairn_api.store import EngineMissingError, Handover, UnavailableError, Writer
from cairn_common.events import Envelope
from cairn_common.messaging import DeadLetters, Publisher, RefusedError
from cairn_common.status import WorkflowStatus

log = structlog.get_logger(__name__)

_MOST_WAITING = 10_000
_SWEEP_PAGE = 500
_LONGEST = timedelta(seconds=60)
FINAL = frozenset(status.value for status in WorkflowStatus if status.final)


class Outgoing:
    """Sends envelopes in the background, those that come together in one burst.

    While NATS is away at most `_MOST_WAITING` wait here; the sweep sends the others.
    """

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._dead_letters = DeadLetters(publisher, "api")
        self._waiting: asyncio.Queue[Envelope] = asyncio.Queue(_MOST_WAITING)

    def send(self, envelope: Envelope) -> None:
        """Send when possible; returns at once."""
        try:
            self._waiting.put_nowait(envelope)
        except asyncio.QueueFull:
            log.warning("too much to send, left to the sweep", subject=envelope.subject)

    async def run(self) -> None:
        """Work until canceled."""
        while True:
            batch = [await self._waiting.get()]
            while not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            try:
                await self._publisher.publish(batch)
            except RefusedError as error:
                await self._dead_letters.send_refused(error.refused)


class Sweep:
    """Repeats hand-overs that the engine has not taken."""

    def __init__(self, writer: Writer, outgoing: Outgoing, seconds: float) -> None:
        self._writer = writer
        self._outgoing = outgoing
        self._seconds = seconds

    async def run(self) -> None:
        """Work until canceled."""
        while True:
            await asyncio.sleep(self._seconds / 2)
            try:
                while await self.once() == _SWEEP_PAGE:
                    pass
            except UnavailableError as error:
                log.warning("hand-overs not swept", error=str(error))

    async def once(self) -> int:
        """One sweep; how many were sent again."""
        try:
            await self._writer.forget_taken(FINAL)
        except EngineMissingError:
            # It has taken nothing then. What is sent waits in the stream for its first start.
            log.info("the engine has never run on this database yet")
        due = await self._writer.take_due(_SWEEP_PAGE, _LONGEST)
        for handover in due:
            self._outgoing.send(_again(handover))
        if due:
            log.warning("hand-overs sent again", number=len(due))
        return len(due)


def _again(handover: Handover) -> Envelope:
    """The same event as another message, or JetStream would drop it as a duplicate."""
    old = handover.envelope
    headers = {**old.headers, "Nats-Msg-Id": f"{old.headers['ce-id']}-{handover.tries}"}
    return Envelope(old.subject, headers, old.body)
