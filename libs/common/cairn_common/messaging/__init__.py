"""NATS: one connection a service, streams, batched reading and acknowledged writing."""

from cairn_common.messaging.connection import Bus, connect_bus
from cairn_common.messaging.deadletters import DeadLetters
from cairn_common.messaging.inbox import Inbox, Message
from cairn_common.messaging.publisher import Publisher
from cairn_common.messaging.streams import ensure_streams

__all__ = [
    "Bus",
    "DeadLetters",
    "Inbox",
    "Message",
    "Publisher",
    "connect_bus",
    "ensure_streams",
]
