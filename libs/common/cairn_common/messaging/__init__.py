"""NATS: one connection a service, streams, batched reading and acknowledged writing."""

from cairn_common.messaging.clusternews import ClusterNews, News
from cairn_common.messaging.connection import Bus, connect_bus
from cairn_common.messaging.deadletters import DeadLetter, DeadLetterBox, DeadLetters
from cairn_common.messaging.inbox import Inbox, Message
from cairn_common.messaging.publisher import Publisher, RefusedError
from cairn_common.messaging.streams import ensure_streams

__all__ = [
    "Bus",
    "ClusterNews",
    "DeadLetter",
    "DeadLetterBox",
    "DeadLetters",
    "Inbox",
    "Message",
    "News",
    "Publisher",
    "RefusedError",
    "connect_bus",
    "ensure_streams",
]
