"""What a pod says about its attempt: how far it has come, what it waits for, what troubles it.

The pod object is the whole record, so a bridge that starts reads the same from it as one that
watched it all along. Source: Kubernetes, "Pod Lifecycle" and the API reference of PodStatus.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from sys import intern
from typing import Any, NamedTuple

from cairn_bridge.cluster import AttemptKey, Phase
from cairn_bridge.drivers.kubernetes.core import names
from cairn_bridge.drivers.kubernetes.core.inventory import Use, use_of
from cairn_common.events import FinishReason

Document = Mapping[str, Any]


class Verdict(NamedTuple):
    """How an attempt is to end, by Cairn's decision, as its pod remembers it.

    `exit_code`: a service's exit code, where the reason alone does not say it.
    `ended`: it counts as ended whatever becomes of its processes, since its node is lost.
    """

    reason: FinishReason
    message: str
    at: str
    ended: bool = False
    exit_code: int | None = None

    def encode(self) -> str:
        """As the pod's annotation holds it."""
        return json.dumps(self._asdict(), separators=(",", ":"))

    @classmethod
    def decode(cls, text: str) -> Verdict:
        """Reads what `encode` wrote."""
        values = json.loads(text)
        return cls(**{**values, "reason": FinishReason(values["reason"])})


class Barrier(Enum):
    """How a pod stands to its group's barrier: there is none, on its way, waits, let through."""

    ABSENT = 0
    AHEAD = 1
    REACHED = 2
    OPEN = 3


class Trouble(NamedTuple):
    """What keeps an attempt from starting, and may pass. `hopeless`: it will not."""

    reason: FinishReason
    message: str
    hopeless: bool


@dataclass(frozen=True, slots=True)
class Sight:
    """One look at an attempt's pod. Times are those that the cluster wrote down."""

    key: AttemptKey
    pod: str
    uid: str
    group: str
    placement: str
    phase: Phase
    at: datetime
    node: str | None
    leaf: str | None
    barrier: Barrier
    secrets: str | None
    started_at: datetime | None
    command_over: bool
    trouble: Trouble | None
    waits_for: str | None
    verdict: Verdict | None
    start_timeout: float | None
    use: Use


_IMAGE_TROUBLE = {
    # reason: whether waiting cannot help
    "ErrImagePull": False,
    "ImagePullBackOff": False,
    "ImageInspectError": False,
    "RegistryUnavailable": False,
    "SignatureValidationFailed": False,
    "InvalidImageName": True,
    "ErrImageNeverPull": True,
}
_START_TROUBLE = frozenset(
    {
        "CreateContainerConfigError",
        "CreateContainerError",
        "RunContainerError",
        "PreCreateHookError",
        "PreStartHookError",
        "PostStartHookError",
        "CrashLoopBackOff",
    }
)


_WORDS_KEPT = 2000
"""Characters of what keeps an attempt: schedulers may go on about every node."""
_STARTING = {
    names.FETCH_CONTAINER: "its inputs are fetched",
    names.BARRIER_CONTAINER: "it is ready, and others of its group are not yet",
}


def look(pod: Document) -> Sight | None:
    """What a pod says; None if it is not an attempt of ours.

    What thousands of pods say alike is one string, not thousands.
    """
    metadata = pod["metadata"]
    annotations = metadata.get("annotations") or {}
    labels = metadata.get("labels") or {}
    try:
        key = AttemptKey(
            intern(annotations[names.WORKFLOW]),
            int(labels[names.INDEX]),
            int(annotations[names.ATTEMPT]),
            annotations[names.TASK],
        )
        group, placement = intern(labels[names.GROUP]), intern(annotations[names.PLACEMENT])
    except (KeyError, ValueError):
        return None
    status = pod.get("status") or {}
    verdict = verdict_of(pod)
    node = intern((pod.get("spec") or {}).get("nodeName") or "") or None
    started = started_at(pod)
    phase, at = _phase(pod, status, node, started, verdict)
    waiting = phase in {Phase.ACCEPTED, Phase.SCHEDULED}
    return Sight(
        key=key,
        pod=metadata["name"],
        uid=metadata["uid"],
        group=group,
        placement=placement,
        phase=phase,
        at=at,
        node=node,
        leaf=labels.get(names.KAI_SUBGROUP),
        barrier=_barrier(pod, annotations.get(names.BARRIER)),
        secrets=intern(annotations.get(names.SECRETS) or "") or None,
        started_at=started,
        command_over="terminated" in (container(pod, names.TASK_CONTAINER).get("state") or {}),
        trouble=_trouble(status) if waiting else None,
        waits_for=_waits_for(pod, phase),
        verdict=verdict,
        start_timeout=float(patience) if (patience := annotations.get(names.START)) else None,
        use=use_of(pod),
    )


def moment(text: str | None) -> datetime | None:
    """A time as the API writes it."""
    return None if text is None else datetime.fromisoformat(text).astimezone(UTC)


def verdict_of(pod: Document) -> Verdict | None:
    """The verdict that a pod carries."""
    text = (pod["metadata"].get("annotations") or {}).get(names.VERDICT)
    return None if text is None else Verdict.decode(text)


def has_ended(pod: Document) -> bool:
    """Whether nothing of a pod runs any more, or ever will.

    A pod that is deleted before it had a node stays Pending, held by our finalizer only.
    """
    status = pod.get("status") or {}
    if status.get("phase") in {"Succeeded", "Failed"}:
        return True
    return "deletionTimestamp" in pod["metadata"] and not (pod.get("spec") or {}).get("nodeName")


def container(pod: Document, name: str, kind: str = "containerStatuses") -> dict[str, Any]:
    """The status of a container; empty if there is none yet."""
    for each in (pod.get("status") or {}).get(kind) or ():
        if each["name"] == name:
            return dict(each)
    return {}


def started_at(pod: Document) -> datetime | None:
    """When the user's command began to run."""
    state = container(pod, names.TASK_CONTAINER).get("state") or {}
    began = (state.get("running") or state.get("terminated") or {}).get("startedAt")
    return moment(began)


def condition(pod: Document, kind: str) -> dict[str, Any]:
    """A condition of a pod; empty if it has none of that type."""
    for each in (pod.get("status") or {}).get("conditions") or ():
        if each["type"] == kind:
            return dict(each)
    return {}


def deletion_began(pod: Document) -> datetime | None:
    """When somebody asked for a pod's deletion: its time limit less its grace."""
    metadata = pod["metadata"]
    limit = moment(metadata.get("deletionTimestamp"))
    if limit is None:
        return None
    return limit - timedelta(seconds=metadata.get("deletionGracePeriodSeconds") or 0)


def _phase(
    pod: Document,
    status: Document,
    node: str | None,
    started: datetime | None,
    verdict: Verdict | None,
) -> tuple[Phase, datetime]:
    created = moment(pod["metadata"].get("creationTimestamp")) or datetime.now(UTC)
    if has_ended(pod) or (verdict is not None and verdict.ended):
        return Phase.FINISHED, ended_at(pod, verdict) or created
    if started is not None:
        return Phase.STARTED, started
    if node:
        return Phase.SCHEDULED, _bound_at(pod) or created
    return Phase.ACCEPTED, created


def _barrier(pod: Document, word: str | None) -> Barrier:
    if word is None:
        return Barrier.ABSENT
    if word == names.OPEN:
        return Barrier.OPEN
    state = container(pod, names.BARRIER_CONTAINER, "initContainerStatuses").get("state") or {}
    return Barrier.REACHED if state.get("running") else Barrier.AHEAD


def _bound_at(pod: Document) -> datetime | None:
    """When a pod got its node. KAI may write that it has none after it has bound it."""
    for kind in ("PodBound", "PodScheduled"):
        found = condition(pod, kind)
        if found.get("status") == "True":
            return moment(found.get("lastTransitionTime"))
    return moment((pod.get("status") or {}).get("startTime"))


def ended_at(pod: Document, verdict: Verdict | None) -> datetime | None:
    """When a pod came to its end, as well as its status tells."""
    ends = [
        end
        for each in (pod.get("status") or {}).get("containerStatuses") or ()
        if (end := ((each.get("state") or {}).get("terminated") or {}).get("finishedAt"))
    ]
    if ends:
        return moment(max(ends))
    if verdict is not None:
        return moment(verdict.at)
    return deletion_began(pod) or moment(
        condition(pod, "DisruptionTarget").get("lastTransitionTime")
        or condition(pod, "Ready").get("lastTransitionTime")
    )


def _trouble(status: Document) -> Trouble | None:
    for kind in ("initContainerStatuses", "containerStatuses"):
        for each in status.get(kind) or ():
            waiting = (each.get("state") or {}).get("waiting") or {}
            reason = waiting.get("reason", "")
            words = f"{each.get('image') or each['name']}: {waiting.get('message') or reason}"
            if reason in _IMAGE_TROUBLE:
                return Trouble(FinishReason.IMAGE_PULL, words, _IMAGE_TROUBLE[reason])
            if reason in _START_TROUBLE:
                return Trouble(FinishReason.START_ERROR, f"{reason}: {words}", hopeless=False)
    return None


def _waits_for(pod: Document, phase: Phase) -> str | None:
    """What keeps an attempt from its next phase."""
    if phase is Phase.ACCEPTED:
        return _unscheduled(pod)
    if phase is not Phase.SCHEDULED:
        return None
    if (trouble := _trouble(pod.get("status") or {})) is not None:
        return intern(f"waiting: {trouble.message}"[:_WORDS_KEPT])
    for name, words in _STARTING.items():
        state = container(pod, name, "initContainerStatuses").get("state") or {}
        if state.get("running"):
            return f"waiting: {words}"
    waiting = (container(pod, names.TASK_CONTAINER).get("state") or {}).get("waiting") or {}
    if (
        waiting.get("reason") == "ContainerCreating"
        or condition(pod, "Initialized").get("status") == "True"
    ):
        return intern(f"waiting: the node pulls image {_image(pod)}")
    return "waiting: the node makes room and pulls images"


def _unscheduled(pod: Document) -> str | None:
    found = condition(pod, "PodScheduled")
    words = str(found.get("message") or found.get("reason") or "")
    if not words or found["status"] != "False":
        return None
    return intern(f"waiting: {words}"[:_WORDS_KEPT])


def _image(pod: Document) -> str:
    return next(
        str(each["image"])
        for each in pod["spec"]["containers"]
        if each["name"] == names.TASK_CONTAINER
    )


def group_waits_for(pod_group: Document) -> str | None:
    """Why KAI has not placed a group: in short where that can be said, and in its own words."""
    namespace = pod_group["metadata"]["namespace"]
    for each in reversed((pod_group.get("status") or {}).get("schedulingConditions") or []):
        if each.get("status") == "True" and each.get("type") == "UnschedulableOnNodePool":
            reasons = [words for it in each.get("reasons") or () if (words := _why(it, namespace))]
            words = "; ".join(dict.fromkeys(reasons)) or str(each.get("message") or "")
            return f"waiting: {words}" if words else None
    return None


_FULL_QUEUES = {
    "OverLimit": "queue {} at its limit",
    "NonPreemptibleOverQuota": "queue {} at its guarantee, and only LOW may exceed it",
}
"""Source: KAI Scheduler, `UnschedulableExplanation` of v2alpha2; its details name the queue."""


def _why(explanation: Document, namespace: str) -> str:
    words = str(explanation.get("message") or "")
    short = _FULL_QUEUES.get(explanation.get("reason", ""))
    details = explanation.get("details") or {}
    name = str((details.get("queueDetails") or {}).get("name") or "")
    if short is None or not name:
        return words
    pool = name.removeprefix(f"{names.parent_queue_name(namespace)}-")
    return f"{short.format(pool)} ({words})" if words else short.format(pool)
