"""Makes the streams what `cairn_common.events.subjects` says they are."""

from __future__ import annotations

import asyncio

import structlog
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import NotFoundError

from cairn_common.events.subjects import STREAMS, Stream

log = structlog.get_logger(__name__)

DUPLICATE_WINDOW_SECONDS = 120


def _config(stream: Stream, replicas: int) -> StreamConfig:
    return StreamConfig(
        name=stream.name,
        subjects=list(stream.subjects),
        description=stream.description,
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        discard=DiscardPolicy.OLD,
        max_age=stream.max_age_seconds,
        max_bytes=stream.max_bytes,
        duplicate_window=DUPLICATE_WINDOW_SECONDS,
        num_replicas=replicas,
        allow_direct=True,
    )


async def ensure_stream(jetstream: JetStreamContext, stream: Stream, *, replicas: int = 1) -> bool:
    """Create or update one stream; True if it was not there."""
    config = _config(stream, replicas)
    try:
        await jetstream.update_stream(config)
    except NotFoundError:
        await jetstream.add_stream(config)
        log.info("stream created", stream=stream.name)
        return True
    return False


async def ensure_streams(
    jetstream: JetStreamContext, *, replicas: int = 1, patience: float = 30.0
) -> None:
    """Create or update all streams of the catalogue; waits for a JetStream that is starting.

    Raises:
        NatsError: JetStream did not answer within `patience` seconds.
    """
    deadline = asyncio.get_running_loop().time() + patience
    for stream in STREAMS:
        while True:
            try:
                await ensure_stream(jetstream, stream, replicas=replicas)
                break
            except NatsError:
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(0.2)
