"""Listening to NATS on behalf of many: one subscription a subject, however many listeners.

These are plain subscriptions: a listener learns that something has happened while it listens and
then looks at the record, so a message that is lost costs it a moment and never the truth.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

log = structlog.get_logger(__name__)

Listener = Callable[[str], None]
"""Called with the subject of each message; must not block."""


class _Ear:
    """One subscription and those who listen through it."""

    def __init__(self) -> None:
        self.listeners: dict[object, Listener] = {}
        self.subscription: Subscription | None = None

    async def heard(self, message: Msg) -> None:
        for listener in list(self.listeners.values()):
            listener(message.subject)


class Listening:
    """Shared subscriptions on one connection."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._ears: dict[str, _Ear] = {}

    @asynccontextmanager
    async def to(self, listener: Listener, *subjects: str) -> AsyncIterator[None]:
        """Within the block, `listener` hears what is published on the subjects."""
        async with AsyncExitStack() as stack:
            for subject in subjects:
                await stack.enter_async_context(self._to_one(listener, subject))
            yield

    @asynccontextmanager
    async def _to_one(self, listener: Listener, subject: str) -> AsyncIterator[None]:
        me = object()
        ear = self._ears.setdefault(subject, _Ear())
        ear.listeners[me] = listener
        try:
            if len(ear.listeners) == 1:
                ear.subscription = await self._client.subscribe(subject, cb=ear.heard)
            yield
        finally:
            del ear.listeners[me]
            if not ear.listeners and self._ears.get(subject) is ear:
                del self._ears[subject]
                await self._silence(ear)

    async def _silence(self, ear: _Ear) -> None:
        if ear.subscription is None or self._client.is_closed:
            return
        try:
            await ear.subscription.unsubscribe()
        except NatsError as error:
            # The connection is going down, and the subscription with it.
            log.debug("not unsubscribed", error=repr(error))
