"""Publishing with an answer: a message counts as sent when JetStream has acknowledged it.

Bursts are bounded (`max_in_flight`), unanswered messages are sent again under the same
`Nats-Msg-Id`, and a missing stream is made anew: a bus that was emptied costs time only.
A message that can never be stored holds up no other: it is named when all others are sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import orjson
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from cairn_common.events import Envelope
from cairn_common.messaging.connection import Bus
from cairn_common.messaging.streams import ensure_streams

log = structlog.get_logger(__name__)

_NO_RESPONDERS = "503"
_INVALID = "invalid:"
_UNANSWERED = "not answered"


class RefusedError(ValueError):
    """Messages that JetStream refuses for what they are; all others were stored.

    `refused` has each with the reason.
    """

    def __init__(self, refused: Sequence[tuple[Envelope, str]]) -> None:
        envelope, reason = refused[0]
        more = f" ({len(refused)} messages in all)" if len(refused) > 1 else ""
        super().__init__(f"{envelope.subject}: {reason}{more}")
        self.refused = tuple(refused)


class Publisher:
    """Sends envelopes to JetStream and waits for the acknowledgements.

    Args:
        bus: the connection.
        max_in_flight: messages sent and not yet acknowledged, over all callers.
        answer_seconds: how long to wait for an acknowledgement before sending again.
    """

    def __init__(self, bus: Bus, *, max_in_flight: int = 1024, answer_seconds: float = 5.0) -> None:
        self._bus = bus
        self._client: Client = bus.client
        self._slots = asyncio.Semaphore(max_in_flight)
        self._answer_seconds = answer_seconds
        self._prefix = bus.client.new_inbox()
        self._waiting: dict[str, asyncio.Future[str | None]] = {}
        self._subscription: Subscription | None = None
        self._number = 0
        self._order = asyncio.Lock()

    async def start(self) -> None:
        """Begin to listen for acknowledgements."""
        self._subscription = await self._client.subscribe(f"{self._prefix}.*", cb=self._answered)

    async def close(self) -> None:
        """Stop listening; what is not acknowledged stays so."""
        if self._subscription is not None and self._client.is_connected:
            await self._subscription.unsubscribe()

    async def publish(self, envelopes: Sequence[Envelope]) -> None:
        """Send all, in order; returns once every one is stored. Goes on until it succeeds.

        Raises:
            RefusedError: JetStream refuses messages for what they are (too large, say).
        """
        pending = list(envelopes)
        refused: list[tuple[Envelope, str]] = []
        attempt = 0
        while pending:
            if attempt:
                await asyncio.sleep(min(5.0, 0.1 * 2**attempt))
            attempt += 1
            pending = await self._attempt(pending, refused)
        if refused:
            raise RefusedError(refused)

    async def _attempt(
        self, envelopes: list[Envelope], refused: list[tuple[Envelope, str]]
    ) -> list[Envelope]:
        """Send once; returns those to be sent again, and adds those for which it is in vain."""
        sent: list[tuple[Envelope, str, asyncio.Future[str | None]]] = []
        try:
            async with self._order:
                for envelope in envelopes:
                    if not await self._take_slot():
                        break
                    sent.append(await self._send(envelope))
            if sent:
                await asyncio.wait([future for *_, future in sent], timeout=self._answer_seconds)
        finally:
            for _, reply, future in sent:
                if self._waiting.pop(reply, None) is not None:  # never answered
                    self._slots.release()
                    if not future.done():
                        future.cancel()
        again: list[Envelope] = []
        for envelope, _, future in sent:
            problem = _UNANSWERED if future.cancelled() else future.result()
            if problem is None:
                continue
            if problem.startswith(_INVALID):
                refused.append((envelope, problem.removeprefix(_INVALID)))
            else:
                again.append(envelope)
        if again:
            log.warning("messages not acknowledged, sending again", messages=len(again))
            # A missing stream answers nothing at all where somebody else listens on the subject.
            await self._restore_streams()
        return again + envelopes[len(sent) :]

    async def _take_slot(self) -> bool:
        """Wait for room in flight; False if nothing at all is answered any more."""
        if not self._slots.locked():
            await self._slots.acquire()
            return True
        try:
            async with asyncio.timeout(self._answer_seconds):
                await self._slots.acquire()
        except TimeoutError:
            return False
        return True

    async def _send(self, envelope: Envelope) -> tuple[Envelope, str, asyncio.Future[str | None]]:
        self._number += 1
        reply = f"{self._prefix}.{self._number}"
        future: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._waiting[reply] = future
        # Counted here: the client counts the body alone, and a server that finds the whole too
        # large closes the connection, whoever else uses it.
        size, most = len(envelope.body) + _size_of(envelope.headers), self._client.max_payload
        if size > most:
            words = f"{size} bytes are too large for NATS, which takes {most}"
            self._answer(reply, f"{_INVALID}{words}")
            return envelope, reply, future
        try:
            await self._client.publish(
                envelope.subject, envelope.body, reply=reply, headers=envelope.headers
            )
        except NatsError as error:
            self._answer(reply, str(error) or type(error).__name__)
        return envelope, reply, future

    async def _restore_streams(self) -> None:
        try:
            await ensure_streams(self._bus.jetstream, patience=0)
        except NatsError as error:
            log.warning("streams could not be restored yet", error=str(error))

    async def _answered(self, message: Msg) -> None:
        if message.headers and message.headers.get("Status") == _NO_RESPONDERS:
            self._answer(message.subject, _NO_RESPONDERS)
            return
        # Nearly all answers are good ones, and not worth parsing.
        error = orjson.loads(message.data).get("error") if b'"error"' in message.data else None
        if error is None:
            self._answer(message.subject, None)
        elif 400 <= error.get("code", 500) < 500:
            self._answer(message.subject, f"{_INVALID}{error.get('description')}")
        else:
            self._answer(message.subject, str(error.get("description")))

    def _answer(self, reply: str, problem: str | None) -> None:
        future = self._waiting.pop(reply, None)
        if future is not None:
            self._slots.release()
            if not future.done():
                future.set_result(problem)


def _size_of(headers: Mapping[str, str]) -> int:
    """Bytes of the headers on the wire: a line for the version, one for each, and an empty one."""
    lines = sum(len(name.encode()) + len(value.encode()) + 4 for name, value in headers.items())
    return len("NATS/1.0\r\n\r\n") + lines
