"""The connection of a service to NATS.

FastStream's broker owns the connection: its subscribers serve the requests that services ask of
each other (request-reply). Streams of events are read through `Inbox` and written through
`Publisher` on the same connection, because a batch there is one transaction: FastStream's pull
subscribers lose a message on an unhandled exception by default, go silent when their durable is
deleted, and never update a durable's settings (COMPONENTS, section 7, pitfalls 1, 5 and 6).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog
from faststream.nats import NatsBroker, NatsRouter
from faststream.nats.security import NatsCredentials
from nats.aio.client import Client
from nats.js import JetStreamContext

from cairn_common.messaging.heeding import heed_cancellation

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Bus:
    """A live connection: the broker, the client below it, and JetStream."""

    broker: NatsBroker
    client: Client
    jetstream: JetStreamContext


async def connect_bus(
    url: str,
    name: str,
    routers: Sequence[NatsRouter] = (),
    credentials: Path | None = None,
) -> Bus:
    """Connect to NATS and stay connected for ever.

    Args:
        url: `nats://user:password@host:port`.
        name: how the connection is called in NATS's own reports, one token of a subject. Answers
            come below `_INBOX.<name>.`, so that a user may be kept from hearing those of others.
        routers: the requests that the service answers; they are served from
            `bus.broker.start()` on.
        credentials: a credentials file, for a server with decentralized accounts. It is read
            anew at each connection.
    """

    async def on_error(error: Exception) -> None:
        log.warning("nats error", error=str(error) or type(error).__name__)

    async def on_disconnect() -> None:
        if not client.is_closed:  # closing is no accident
            log.warning("nats disconnected")

    async def on_reconnect() -> None:
        log.info("nats reconnected")

    broker = NatsBroker(
        url,
        name=name,
        inbox_prefix=f"_INBOX.{name}",
        security=None if credentials is None else NatsCredentials(str(credentials)),
        logger=None,
        routers=routers,
        max_reconnect_attempts=-1,
        reconnect_time_wait=1,
        ping_interval=5,
        max_outstanding_pings=3,
        pending_size=32 << 20,
        error_cb=on_error,
        disconnected_cb=on_disconnect,
        reconnected_cb=on_reconnect,
    )
    client = await broker.connect()
    heed_cancellation(client)
    return Bus(broker, client, client.jetstream())
