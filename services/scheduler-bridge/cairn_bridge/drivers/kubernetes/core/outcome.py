"""How a pod ended, in Cairn's terms.

The first that applies decides:

1. Cairn's own verdict (stopped, image never came, start took too long, node lost).
2. What took the pod away: kubelet, taint manager, garbage collector, scheduler.
3. A failed init container.
4. A deletion that nobody here ordered.
5. The exit of the user's command.

What ended by itself before it was taken away has its own exit all the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from cairn_bridge.cluster import Outcome
from cairn_bridge.drivers.kubernetes.core import names
from cairn_bridge.drivers.kubernetes.core.observe import (
    Verdict,
    condition,
    container,
    deletion_began,
    ended_at,
    moment,
    started_at,
    verdict_of,
)
from cairn_common.events import FinishReason

Document = Mapping[str, Any]

_DISRUPTIONS: Final = {
    # reason of the condition DisruptionTarget (Kubernetes, "Disruptions"; the second is KAI's)
    "PreemptionByScheduler": FinishReason.PREEMPTED,
    "TerminationByKaiScheduler": FinishReason.PREEMPTED,
    "DeletionByTaintManager": FinishReason.NODE_LOST,
    "DeletionByPodGC": FinishReason.NODE_LOST,
    "EvictionByEvictionAPI": FinishReason.EVICTED,
    "TerminationByKubelet": FinishReason.EVICTED,
}
_STATUS_REASONS: Final = {
    # `status.reason` of a pod that the kubelet or a controller failed
    "Evicted": FinishReason.EVICTED,
    "Terminated": FinishReason.EVICTED,
    "NodeShutdown": FinishReason.EVICTED,
    "Preempting": FinishReason.PREEMPTED,
    "NodeLost": FinishReason.NODE_LOST,
    "OutOfcpu": FinishReason.BACKEND_ERROR,
    "OutOfmemory": FinishReason.BACKEND_ERROR,
    "OutOfpods": FinishReason.BACKEND_ERROR,
    "OutOfephemeral-storage": FinishReason.BACKEND_ERROR,
    "NodeAffinity": FinishReason.BACKEND_ERROR,
    "UnexpectedAdmissionError": FinishReason.BACKEND_ERROR,
}
_NEVER_RAN: Final = frozenset({"StartError", "ContainerCannotRun"})
_MESSAGE_LENGTH: Final = 2000
DELETED: Final = "the pod was deleted, and not by Cairn"


@dataclass(frozen=True, slots=True)
class Ending:
    """How a pod ended. `doubtful`: who deleted it may be known from the cluster's events."""

    outcome: Outcome
    at: datetime
    doubtful: bool = False


def ending_of(pod: Document) -> Ending:
    """How a pod that has ended came to its end."""
    verdict = verdict_of(pod)
    reason, exit_code, message, doubtful = _judge(pod, verdict)
    outcome = Outcome(
        reason,
        exit_code=exit_code,
        message=message[:_MESSAGE_LENGTH] if message else None,
        started_at=started_at(pod),
    )
    return Ending(outcome, ended_at(pod, verdict) or datetime.now(UTC), doubtful)


def _judge(
    pod: Document, verdict: Verdict | None
) -> tuple[FinishReason, int | None, str | None, bool]:
    state = container(pod, names.TASK_CONTAINER).get("state") or {}
    terminated = state.get("terminated")
    if terminated and _ended_by_itself(pod, terminated):
        return (*_exit(pod, terminated), False)
    if verdict is not None:
        return verdict.reason, verdict.exit_code, verdict.message, False
    found = _taken_away(pod) or _failed_init(pod)
    if found is None and "deletionTimestamp" in pod["metadata"]:
        return FinishReason.BACKEND_ERROR, None, DELETED, True
    if found is None and terminated:
        found = _exit(pod, terminated)
    if found is None:
        status = pod.get("status") or {}
        words = status.get("message") or status.get("reason") or "the pod ended without a trace"
        found = FinishReason.BACKEND_ERROR, None, words
    return (*found, False)


def _taken_away(pod: Document) -> tuple[FinishReason, int | None, str | None] | None:
    disruption = condition(pod, "DisruptionTarget")
    if disruption.get("status") == "True" and disruption.get("reason") in _DISRUPTIONS:
        words = disruption.get("message") or disruption["reason"]
        return _DISRUPTIONS[disruption["reason"]], None, words
    status = pod.get("status") or {}
    if status.get("reason") in _STATUS_REASONS:
        words = f"{status['reason']}: {status.get('message') or 'the node gave no message'}"
        return _STATUS_REASONS[status["reason"]], None, words
    return None


def _ended_by_itself(pod: Document, terminated: Document) -> bool:
    """Whether the command ended before anything was done to its pod, to the second."""
    if terminated.get("reason") == "ContainerStatusUnknown":
        return False
    finished = moment(terminated.get("finishedAt"))
    if finished is None or (pod.get("status") or {}).get("reason") in _STATUS_REASONS:
        return False
    began = deletion_began(pod)
    disruption = condition(pod, "DisruptionTarget")
    if disruption.get("status") == "True":
        disrupted = moment(disruption.get("lastTransitionTime"))
        began = disrupted if began is None or (disrupted and disrupted < began) else began
    return began is None or finished < began


def _exit(pod: Document, terminated: Document) -> tuple[FinishReason, int | None, str | None]:
    code = int(terminated.get("exitCode", 0))
    reason, message = terminated.get("reason"), terminated.get("message")
    if reason == "OOMKilled":
        return FinishReason.OUT_OF_MEMORY, 137, message or "the task exceeded its memory limit"
    if reason == "ContainerStatusUnknown":
        return FinishReason.NODE_LOST, None, message
    if reason in _NEVER_RAN:
        return FinishReason.START_ERROR, code, message or reason
    if code == 0 and (words := _failed_keep(pod)):
        return FinishReason.OUTPUT_FAILED, None, words
    return FinishReason.EXITED, code, message if code else None


def _failed_init(pod: Document) -> tuple[FinishReason, int | None, str | None] | None:
    for each in (pod.get("status") or {}).get("initContainerStatuses") or ():
        terminated = (each.get("state") or {}).get("terminated") or {}
        if each["name"] == names.KEEP_CONTAINER or not terminated.get("exitCode"):
            continue
        words = terminated.get("message") or f"exit code {terminated['exitCode']}"
        if each["name"] == names.FETCH_CONTAINER:
            return FinishReason.INPUT_FAILED, None, words
        return FinishReason.START_ERROR, None, f"init container {each['name']}: {words}"
    return None


def _failed_keep(pod: Document) -> str | None:
    """What the sidecar says that could not keep the outputs."""
    state = container(pod, names.KEEP_CONTAINER, "initContainerStatuses").get("state") or {}
    terminated = state.get("terminated") or {}
    if terminated.get("exitCode"):
        return terminated.get("message") or f"exit code {terminated['exitCode']}"
    return None


def with_event(outcome: Outcome, event: Document) -> Outcome:
    """What KAI's `Evict` event says about a deletion that looked like anybody's."""
    annotations = event["metadata"].get("annotations") or {}
    action = annotations.get("evictor-action-type", "")
    stale = action.lower() == "stalegangeviction"
    return Outcome(
        FinishReason.EVICTED if stale else FinishReason.PREEMPTED,
        message=event.get("message"),
        started_at=outcome.started_at,
    )


def gone_ending(last: Document | None) -> Ending:
    """The end of a pod that vanished before its outcome was settled."""
    if last is not None:
        return ending_of(last)
    return Ending(Outcome(FinishReason.BACKEND_ERROR, message=DELETED), datetime.now(UTC), True)
