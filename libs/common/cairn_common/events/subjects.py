"""Where events travel: the JetStream streams, the shape of a subject, and partitions.

A subject is the event's type first, then what subscribers filter by. Everything that the engine
hears carries the partition of its workflow as third token, so that one consumer with the filter
`*.*.7.*` is the whole inbox of partition 7. What the engine says to a bridge carries the cluster
in that place, so that `task.*.local.*` is the whole inbox of cluster "local". Streams follow the
readers: every message in FACTS is for the engine, every message in PLACEMENTS is for a bridge.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from typing import Final

PARTITIONS: Final = 16
"""How many ways the workflows are split between engines. Part of every subject and row."""

_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]+\Z")


def partition_of(workflow: str) -> int:
    """The partition of a workflow id: CRC-32 of its UTF-8 bytes modulo `PARTITIONS`."""
    return zlib.crc32(workflow.encode()) % PARTITIONS


def token(value: str) -> str:
    """`value`, if it can stand as one token of a NATS subject.

    Raises:
        ValueError: it is empty or holds a dot, a wildcard or white space.
    """
    if not _TOKEN.match(value):
        raise ValueError(f"{value!r} cannot be part of a NATS subject")
    return value


@dataclass(frozen=True, slots=True)
class Stream:
    """A JetStream stream: what it holds, for how long, and its bound on disk."""

    name: str
    subjects: tuple[str, ...]
    description: str
    max_age_seconds: int = 7 * 24 * 3600
    max_bytes: int = 8 << 30


FACTS: Final = Stream(
    "CAIRN_FACTS",
    (
        "workflow.submitted.>",
        "workflow.cancel.>",
        "task.accepted.>",
        "task.held.>",
        "task.scheduled.>",
        "task.started.>",
        "task.finished.>",
        "task.archived.>",
    ),
    "What the engine hears: requests about workflows and facts about tasks.",
)
PLACEMENTS: Final = Stream(
    "CAIRN_PLACEMENTS",
    ("task.ready.>", "task.stop.>", "task.settled.>"),
    "What the engine says to the bridges: place, stop, clean up.",
)
WORKFLOWS: Final = Stream(
    "CAIRN_WORKFLOWS",
    ("workflow.changed.>", "workflow.finished.>"),
    "What the engine says to everybody: how workflows fare.",
)
LOGS: Final = Stream(
    "CAIRN_LOGS",
    ("task.log.>",),
    "Log lines on their way from the tasks to the log relay.",
    max_age_seconds=24 * 3600,
)
CLUSTERS: Final = Stream(
    "CAIRN_CLUSTERS",
    ("cluster.heartbeat.>", "cluster.resources.>", "cluster.changed.>"),
    "The clusters' heartbeats and inventories, and whether they take work.",
    max_age_seconds=24 * 3600,
    max_bytes=1 << 30,
)
DEAD_LETTERS: Final = Stream(
    "CAIRN_DEAD_LETTERS",
    ("dead.>",),
    "Messages that could not be handled, each with the reason in its headers.",
    max_age_seconds=30 * 24 * 3600,
    max_bytes=1 << 30,
)

STREAMS: Final = (FACTS, PLACEMENTS, WORKFLOWS, LOGS, CLUSTERS, DEAD_LETTERS)


def engine_inbox(partition: int) -> str:
    """The filter that matches all that the engine hears about one partition."""
    return f"*.*.{partition}.*"


def cluster_inbox(cluster: str) -> str:
    """The filter that matches all that the engine says to one cluster's bridge."""
    return f"task.*.{token(cluster)}.*"
