"""Where messages go that nobody can handle: kept with the reason, and stopping nothing."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import structlog

from cairn_common.events import Envelope
from cairn_common.messaging.inbox import Message
from cairn_common.messaging.publisher import Publisher

log = structlog.get_logger(__name__)

_MAX_BODY_BYTES = 64 * 1024


class DeadLetters:
    """Sends messages to `dead.<service>.<original subject>`.

    The original's headers are kept; `cairn-reason`, `cairn-service`, `cairn-time` and
    `cairn-size` are added. A body of more than 64 KiB is cut.
    """

    def __init__(self, publisher: Publisher, service: str) -> None:
        self._publisher = publisher
        self._service = service

    async def send(self, message: Message, reason: str) -> None:
        """Returns once the dead letter is stored."""
        log.error("dead letter", subject=message.subject, reason=reason)
        headers = {k: v for k, v in message.headers.items() if k.lower() != "nats-msg-id"}
        digest = hashlib.sha256(message.subject.encode() + message.data).hexdigest()
        headers |= {
            "cairn-reason": " ".join(reason.split())[:1000],
            "cairn-service": self._service,
            "cairn-time": datetime.now(UTC).isoformat(),
            "cairn-size": str(len(message.data)),
            "Nats-Msg-Id": f"dead-{message.sequence}-{digest[:32]}",
        }
        subject = f"dead.{self._service}.{message.subject}"
        await self._publisher.publish([Envelope(subject, headers, message.data[:_MAX_BODY_BYTES])])
