"""Names, labels and annotations: all that finds an object again and tells whose it is.

Names are derived from ids alone, so that making an object twice makes it once. Labels select on
the server and hold what is short; ids that may be longer than a label's 63 characters are
annotations.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

CLUSTER = "cairn/cluster"
WORKFLOW = "cairn/workflow"
GROUP = "cairn/group"
TASK = "cairn/task"
ATTEMPT = "cairn/attempt"
INDEX = "cairn/index"
PLACEMENT = "cairn/placement"
"""On a pod: `<digest>.<size>` of the placement that it belongs to."""
PLACED = "cairn/placed-"
"""On a PodGroup, with a placement's digest: all its pods have been made."""
SUBGROUPS = "cairn/subgroups"
"""On a PodGroup: its sub-groups as first made, before pods ended."""
VERDICT = "cairn/verdict"
"""On a pod: how it is to end, by Cairn's own decision."""
START = "cairn/start-timeout"
"""On a pod: how many seconds may pass between its node and its command's start."""
BARRIER = "cairn/barrier"
"""On a pod of a group that starts together: `closed`, then `open`; its own container reads it."""
SECRETS = "cairn/secrets"
"""On a pod: the Secrets with its credentials, with commas between; its words are masked."""
PASSES = "cairn/passes"
"""On a Secret, as a label: it holds passes, which are renewed while their attempts live."""
FINALIZER = "cairn/outcome"
"""Keeps an ended or deleted pod until its outcome has been told and settled, as Jobs do."""

KAI_QUEUE = "kai.scheduler/queue"
KAI_SUBGROUP = "kai.scheduler/subgroup-name"
KAI_POD_GROUP = "pod-group-name"

TASK_CONTAINER = "task"
FETCH_CONTAINER = "cairn-fetch"
KEEP_CONTAINER = "cairn-keep"
BARRIER_CONTAINER = "cairn-barrier"
DATA_VOLUME = "cairn-data"
BARRIER_VOLUME = "cairn-barrier"

CLOSED, OPEN = "closed", "open"

_LABEL_LENGTH = 63
_UNFIT = re.compile(r"[^a-z0-9-]+")


def label(text: str) -> str:
    """A DNS label that says `text`: itself where it is one, else shortened and with a digest."""
    name = _UNFIT.sub("-", text.lower().replace("_", "-")).strip("-")
    if name == text.lower().replace("_", "-") and len(name) <= _LABEL_LENGTH:
        return name
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{name[: _LABEL_LENGTH - 9].strip('-') or 'x'}-{digest}"


def group_name(group_uuid: str) -> str:
    """Of a group's PodGroup and Service."""
    return f"cairn-{group_uuid}"


def pod_name(task_uuid: str, attempt: int) -> str:
    """Of one attempt's pod."""
    return f"cairn-{task_uuid}-{attempt}"


def secret_name(task_uuid: str, number: int) -> str:
    """Of the Secret with files of a task; all its attempts share it."""
    return f"cairn-{task_uuid}-files-{number}"


def pass_name(task_uuid: str, attempt: int) -> str:
    """Of an attempt's credentials for NATS, and of their key in a Secret."""
    return f"{task_uuid}-{attempt}"


def passes_name(group_uuid: str, digest: str, number: int) -> str:
    """Of a Secret with the passes of a placement."""
    return f"cairn-{group_uuid}-passes-{digest}-{number}"


def pod_of_pass(name: str) -> str:
    """The pod that a pass is for."""
    return f"cairn-{name}"


def queue_name(namespace: str, pool: str) -> str:
    """Of a pool's Queue, which has no namespace."""
    return label(f"cairn-{namespace}-{pool}")


def parent_queue_name(namespace: str) -> str:
    """Of the Queue above all pools: KAI schedules to queues with a parent only."""
    return label(f"cairn-{namespace}")


def topology_name(namespace: str, pool: str) -> str:
    """Of a pool's Topology, which has no namespace."""
    return queue_name(namespace, pool)


def priority_class(priority: str) -> str:
    """Of the PriorityClass of HIGH, NORMAL or LOW."""
    return f"cairn-{priority.lower()}"


def placement_digest(attempts: Iterable[tuple[int, int]]) -> str:
    """Names a placement by its attempts, (task index, attempt)."""
    text = ",".join(f"{index}:{attempt}" for index, attempt in sorted(attempts))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def placement_size(placement: str) -> int:
    """How many attempts the placement `<digest>.<size>` has."""
    return int(placement.partition(".")[2])


def selector(cluster: str) -> str:
    """Selects everything that a cluster's bridge has made."""
    return f"{CLUSTER}={cluster}"


def passes_selector(cluster: str) -> str:
    """Selects the Secrets with passes."""
    return f"{selector(cluster)},{PASSES}"
