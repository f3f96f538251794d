"""Acknowledging in order what is done in any order.

An inbox acknowledges a message and with it all before it; orders are carried out side by side. So
one is acknowledged when it is done and all that came before it are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from cairn_common.messaging import Message


class Acks:
    """Orders in hand, in the order in which they came."""

    def __init__(self) -> None:
        self._in_hand: deque[Message] = deque()
        self._done: set[Message] = set()

    def take(self, message: Message) -> None:
        """A message has come."""
        self._in_hand.append(message)

    async def done(self, messages: Iterable[Message]) -> None:
        """Messages need not come again."""
        self._done.update(messages)
        last, count = None, 0
        while self._in_hand and self._in_hand[0] in self._done:
            message = self._in_hand.popleft()
            self._done.remove(message)
            if last is None or message.incarnation != last.incarnation:
                count = 0  # those of a former durable come again whatever is said
            last, count = message, count + 1
        if last is not None:
            await last.inbox.ack(last, count)
