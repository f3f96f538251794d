"""Hearing of the clusters: the newest word of each, then whatever is said.

The newest messages are read from their stream at the start; from then on a plain subscription is
enough, because every message replaces the one before.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias

import structlog
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from cairn_common.events import ClusterChanged, ClusterHeartbeat, ClusterResources, decode
from cairn_common.events.envelope import InvalidEventError
from cairn_common.events.subjects import CLUSTERS
from cairn_common.messaging.connection import Bus

log = structlog.get_logger(__name__)

News: TypeAlias = ClusterResources | ClusterHeartbeat | ClusterChanged
KINDS: Final = (ClusterResources, ClusterHeartbeat, ClusterChanged)


class ClusterNews:
    """Follows what is said about clusters.

    Args:
        bus: the connection.
        take: is handed every event, in the order in which they are heard.
        past: of which kinds the newest from before the start are wanted, too.
    """

    def __init__(
        self,
        bus: Bus,
        take: Callable[[News], Awaitable[None]],
        past: Sequence[type[News]] = KINDS,
    ) -> None:
        self._bus = bus
        self._take = take
        self._past = past

    async def start(self) -> None:
        """Subscribe, then read what was said before."""
        for kind in KINDS:
            await self._bus.client.subscribe(f"{kind.type}.*", cb=self._heard)
        try:
            await self._read_past()
        except NatsError as error:
            # The bridges will say it again.
            log.warning("past news of clusters not read", error=repr(error))

    async def _read_past(self) -> None:
        jetstream = self._bus.jetstream
        for kind in self._past:
            info = await jetstream.stream_info(CLUSTERS.name, subjects_filter=f"{kind.type}.*")
            for subject in info.state.subjects or ():
                last = await jetstream.get_last_msg(CLUSTERS.name, subject, direct=True)
                await self._note(subject, last.headers or {}, last.data or b"")

    async def _heard(self, message: Msg) -> None:
        await self._note(message.subject, message.headers or {}, message.data)

    async def _note(self, subject: str, headers: dict[str, str], body: bytes) -> None:
        try:
            event = decode(subject, headers, body)
        except InvalidEventError as error:
            log.warning("not an event", subject=subject, error=str(error))
            return
        if isinstance(event, KINDS):
            await self._take(event)
