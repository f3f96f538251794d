"""From pods to phases and outcomes: every way in which a pod can end."""

from __future__ import annotations

from typing import Any

import pytest

from cairn_bridge.cluster import Phase
from cairn_bridge.drivers.kubernetes.core import quantities
from cairn_bridge.drivers.kubernetes.core.inventory import node_info, use_of
from cairn_bridge.drivers.kubernetes.core.observe import Verdict, group_waits_for, look
from cairn_bridge.drivers.kubernetes.core.outcome import ending_of, with_event
from cairn_bridge.drivers.kubernetes.core.quota import exceeds_quota, never_fits
from cairn_bridge.drivers.kubernetes.core.site import Site
from cairn_common.events import FinishReason
from cairn_common.pools import ClusterPools, Platform, Pool

BEGAN, ENDED, DELETED = "2026-01-01T00:00:10Z", "2026-01-01T00:00:20Z", "2026-01-01T00:00:50Z"


def pod(
    phase: str = "Pending",
    *,
    state: dict[str, Any] | None = None,
    init: dict[str, Any] | None = None,
    keep: dict[str, Any] | None = None,
    node: str | None = "n1",
    deleted: str | None = None,
    verdict: Verdict | None = None,
    **status: Any,
) -> dict[str, Any]:
    annotations = {
        "cairn/workflow": "w-1",
        "cairn/task": "t",
        "cairn/attempt": "2",
        "cairn/placement": "d.1",
    }
    if verdict:
        annotations["cairn/verdict"] = verdict.encode()
    metadata: dict[str, Any] = {
        "name": "cairn-x-2",
        "uid": "u",
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "labels": {"cairn/index": "7", "cairn/group": "g"},
        "annotations": annotations,
    }
    if deleted:
        metadata |= {"deletionTimestamp": deleted, "deletionGracePeriodSeconds": 30}
    inits = []
    if init:
        inits.append({"name": "cairn-fetch", "state": init})
    if keep:
        inits.append({"name": "cairn-keep", "state": keep})
    return {
        "metadata": metadata,
        "spec": {
            "containers": [{"name": "task", "image": "ubuntu:24.04"}],
            **({"nodeName": node} if node else {}),
        },
        "status": {
            "phase": phase,
            "containerStatuses": [{"name": "task", "image": "img", "state": state or {}}],
            "initContainerStatuses": inits,
            **status,
        },
    }


def exited(code: int, reason: str = "Error", at: str = ENDED, **more: Any) -> dict[str, Any]:
    return {
        "terminated": {
            "exitCode": code,
            "reason": reason,
            "startedAt": BEGAN,
            "finishedAt": at,
            **more,
        }
    }


def disrupted(reason: str) -> list[dict[str, Any]]:
    return [
        {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": reason,
            "message": "words",
            "lastTransitionTime": ENDED,
        }
    ]


STOPPED = Verdict(FinishReason.STOPPED, "canceled", "2026-01-01T00:00:20+00:00")


@pytest.mark.parametrize(
    ("what", "document", "reason", "code"),
    [
        ("success", pod("Succeeded", state=exited(0, "Completed")), "exited", 0),
        ("failure", pod("Failed", state=exited(3)), "exited", 3),
        ("out of memory", pod("Failed", state=exited(137, "OOMKilled")), "out-of-memory", 137),
        ("cannot run", pod("Failed", state=exited(128, "StartError")), "start-error", 128),
        ("inputs", pod("Failed", init=exited(1, message="no bucket")), "input-failed", None),
        (
            "outputs",
            pod("Succeeded", state=exited(0), keep=exited(1, message="full")),
            "output-failed",
            None,
        ),
        ("evicted", pod("Failed", state=exited(137), reason="Evicted"), "evicted", None),
        (
            "evicted by api",
            pod("Failed", state=exited(143), conditions=disrupted("EvictionByEvictionAPI")),
            "evicted",
            None,
        ),
        (
            "preempted",
            pod("Failed", state=exited(143), conditions=disrupted("PreemptionByScheduler")),
            "preempted",
            None,
        ),
        (
            "node lost",
            pod("Failed", conditions=disrupted("DeletionByTaintManager")),
            "node-lost",
            None,
        ),
        ("rebooted", pod("Failed", state=exited(137, "ContainerStatusUnknown")), "node-lost", None),
        ("no room on the node", pod("Failed", reason="OutOfcpu"), "backend-error", None),
        (
            "stopped",
            pod("Failed", state=exited(143), deleted=DELETED, verdict=STOPPED),
            "stopped",
            None,
        ),
        (
            "stopped before a node",
            pod(node=None, deleted=DELETED, verdict=STOPPED),
            "stopped",
            None,
        ),
        (
            "ended before it was stopped",
            pod("Failed", state=exited(5, at=BEGAN), deleted=DELETED, verdict=STOPPED),
            "exited",
            5,
        ),
        (
            "ended before it was preempted",
            pod(
                "Failed",
                state=exited(5, at=BEGAN),
                deleted=DELETED,
                conditions=disrupted("PreemptionByScheduler"),
            ),
            "exited",
            5,
        ),
        (
            "deleted by hand",
            pod("Failed", state=exited(143), deleted=DELETED),
            "backend-error",
            None,
        ),
    ],
)
def test_every_end_has_its_reason(
    what: str, document: dict[str, Any], reason: str, code: int | None
) -> None:
    sight = look(document)
    assert sight is not None
    assert sight.phase is Phase.FINISHED, what
    ending = ending_of(document)
    assert (ending.outcome.reason.value, ending.outcome.exit_code) == (reason, code), what
    assert ending.doubtful == (what == "deleted by hand")


def test_a_deletion_is_explained_by_the_event_of_kai() -> None:
    outcome = ending_of(pod("Failed", state=exited(143), deleted=DELETED)).outcome
    event = {"metadata": {"annotations": {"evictor-action-type": "preempt"}}, "message": "for h"}
    assert with_event(outcome, event).reason is FinishReason.PREEMPTED
    event["metadata"] = {"annotations": {"evictor-action-type": "stalegangeviction"}}
    assert with_event(outcome, event).reason is FinishReason.EVICTED


def test_phases_follow_the_pod() -> None:
    running = {"running": {"startedAt": BEGAN}}
    for document, phase in (
        (pod(node=None), Phase.ACCEPTED),
        (pod(), Phase.SCHEDULED),
        (pod("Running", state=running), Phase.STARTED),
        # Its sidecar still keeps the outputs: the pod has not ended.
        (pod("Running", state=exited(0)), Phase.STARTED),
        (pod("Running", state=running, deleted=DELETED), Phase.STARTED),
        (
            pod("Running", state=running, verdict=STOPPED._replace(ended=True)),
            Phase.FINISHED,
        ),
    ):
        sight = look(document)
        assert sight is not None
        assert sight.phase is phase
        assert (sight.key.workflow, sight.key.index, sight.key.attempt) == ("w-1", 7, 2)


def test_what_a_pod_with_a_node_waits_for_is_said() -> None:
    runs = {"running": {"startedAt": BEGAN}}
    pulls = {"waiting": {"reason": "PodInitializing"}}
    ready = [{"type": "Initialized", "status": "True"}]

    def words(document: dict[str, Any]) -> str | None:
        sight = look(document)
        assert sight is not None
        return sight.waits_for

    assert words(pod(state=pulls)) == "waiting: the node makes room and pulls images"
    assert words(pod(state=pulls, init=runs)) == "waiting: its inputs are fetched"
    at_barrier = pod(state=pulls)
    gate = {"name": "cairn-barrier", "state": runs}
    at_barrier["status"]["initContainerStatuses"].append(gate)
    assert words(at_barrier) == "waiting: it is ready, and others of its group are not yet"
    image = "waiting: the node pulls image ubuntu:24.04"
    assert words(pod(state=pulls, conditions=ready)) == image
    refused = {"waiting": {"reason": "ErrImagePull", "message": "no such tag"}}
    assert words(pod(state=refused, conditions=ready)) == "waiting: img: no such tag"
    assert words(pod("Running", state=runs)) is None


def test_what_keeps_a_pod_from_starting_is_seen() -> None:
    def trouble(reason: str) -> Any:
        sight = look(pod(state={"waiting": {"reason": reason, "message": "why"}}))
        assert sight is not None
        return sight.trouble

    assert trouble("ContainerCreating") is None
    assert trouble("ImagePullBackOff").reason is FinishReason.IMAGE_PULL
    assert not trouble("ImagePullBackOff").hopeless
    assert trouble("InvalidImageName").hopeless
    assert trouble("CreateContainerConfigError").reason is FinishReason.START_ERROR
    assert "why" in trouble("ErrImagePull").message


def test_somebody_elses_pod_is_nobodys_attempt() -> None:
    assert look({"metadata": {"name": "p", "uid": "u"}, "spec": {}}) is None


def test_the_schedulers_words_are_found() -> None:
    condition = {
        "type": "UnschedulableOnNodePool",
        "status": "True",
        "message": "general",
        "reasons": [
            {
                "reason": "OverLimit",
                "message": "Limit is 2 cores",
                "details": {"queueDetails": {"name": "cairn-robots-narrow"}},
            },
            {"reason": "NotEnough", "message": "no node fits"},
        ],
    }

    def waits_for(*conditions: dict[str, Any]) -> str | None:
        status = {"schedulingConditions": list(conditions)}
        return group_waits_for({"metadata": {"namespace": "robots"}, "status": status})

    assert waits_for(condition) == (
        "waiting: queue narrow at its limit (Limit is 2 cores); no node fits"
    )
    assert waits_for(condition | {"reasons": []}) == "waiting: general"
    assert waits_for(condition | {"status": "False"}) is None
    assert waits_for() is None


def test_quotas_that_are_full_are_told_from_quotas_that_are_too_small() -> None:
    message = (
        'pods "x" is forbidden: exceeded quota: q, requested: requests.cpu=2,requests.memory=1Gi, '
        "used: requests.cpu=7,requests.memory=1Gi, limited: requests.cpu=8,requests.memory=64Gi"
    )
    assert exceeds_quota(message)
    assert not never_fits(message, 4)
    assert never_fits(message, 5)
    assert not exceeds_quota("violates PodSecurity")


@pytest.mark.parametrize(
    ("text", "value"),
    [("500m", 1), ("2", 2), ("1Gi", 1 << 30), ("1G", 10**9), ("1e3", 1000), ("1.5Ki", 1536)],
)
def test_quantities_are_read_as_kubernetes_means_them(text: str, value: int) -> None:
    assert quantities.whole(text) == value
    with pytest.raises(ValueError, match="no quantity"):
        quantities.parse(f"{text}!")


def test_nodes_are_listed_with_their_use_and_platforms() -> None:
    site = Site(
        "c",
        pools=ClusterPools(
            pools={
                "p": Pool(platforms={"gpu": Platform(node_selector={"k": "gpu"})}),
                "q": Pool(platforms={"cpu": Platform(node_selector={"k": "cpu"})}),
            }
        ),
    )
    node = {
        "metadata": {"name": "n", "labels": {"k": "gpu", "nvidia.com/gpu.product": "H100"}},
        "spec": {"taints": [{"key": "a", "value": "b", "effect": "NoSchedule"}]},
        "status": {
            "allocatable": {"cpu": "7900m", "memory": "1Gi", "nvidia.com/gpu": "8"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }
    requests = {"cpu": "1500m", "memory": "1Mi", "nvidia.com/gpu": "2"}
    use = use_of({"spec": {"containers": [{"resources": {"requests": requests}}]}})
    info = node_info(node, [use, use], site)
    assert (info.cpu, info.gpu, info.used_cpu, info.used_gpu) == (7, 8, 3, 4)
    assert (info.pools, info.platforms, info.gpu_type) == (["p"], ["gpu"], "H100")
    assert info.taints == ["a=b:NoSchedule"]
    assert info.ready
