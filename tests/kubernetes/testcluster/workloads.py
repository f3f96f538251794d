"""Pods and gangs for tests of the clusters themselves: the least that KAI and kwok want to see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from testcluster.kai import DEFAULT_QUEUE, GROUP_ANNOTATION, QUEUE_LABEL, SCHEDULER, SUBGROUP_LABEL
from testcluster.lifecycles import PREFIX


def pod(
    namespace: str,
    name: str,
    *,
    group: str | None = None,
    queue: str = DEFAULT_QUEUE,
    subgroup: str | None = None,
    node: str | None = None,
    gpus: int = 0,
    cpu: str = "1",
    memory: str = "1Gi",
    priority_class: str | None = None,
    init: Sequence[Mapping[str, Any]] = (),
    owner: Mapping[str, Any] | None = None,
    sim: Mapping[str, str] | None = None,
    **spec: Any,
) -> dict[str, Any]:
    """The definition of a pod with one container, `main`.

    `sim` holds instructions for its simulated life, by their names without prefix; `node` binds it
    without any scheduler; else KAI places it, with its `group` when it names one.
    """
    resources: dict[str, str] = {"cpu": cpu, "memory": memory}
    if gpus:
        resources["nvidia.com/gpu"] = str(gpus)
    annotations = {PREFIX + key: value for key, value in (sim or {}).items()}
    labels = {QUEUE_LABEL: queue}
    if group is not None:
        annotations[GROUP_ANNOTATION] = group
    if subgroup is not None:
        labels[SUBGROUP_LABEL] = subgroup
    if priority_class is not None:
        spec["priorityClassName"] = priority_class
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": namespace,
        "labels": labels,
        "annotations": annotations,
    }
    if owner is not None:
        metadata["ownerReferences"] = [dict(owner)]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {
            "restartPolicy": "Never",
            "containers": [
                {
                    "name": "main",
                    # What a real cluster would run; kwok looks at neither.
                    "image": "busybox:stable",
                    "command": ["sh", "-c", "sleep 1"],
                    "resources": {"requests": resources, "limits": resources},
                }
            ],
            **({"initContainers": [dict(one) for one in init]} if init else {}),
            **({"nodeName": node} if node else {"schedulerName": SCHEDULER}),
            **spec,
        },
    }


def pod_group(
    namespace: str,
    name: str,
    members: int,
    *,
    queue: str = DEFAULT_QUEUE,
    priority_class: str = "train",
    **spec: Any,
) -> dict[str, Any]:
    """The definition of a PodGroup: all of its `members` or none."""
    return {
        "apiVersion": "scheduling.run.ai/v2alpha2",
        "kind": "PodGroup",
        "metadata": {"name": name, "namespace": namespace, "labels": {QUEUE_LABEL: queue}},
        "spec": {
            "minMember": members,
            "queue": queue,
            "priorityClassName": priority_class,
            **spec,
        },
    }


def gang(
    namespace: str,
    name: str,
    members: int,
    *,
    queue: str = DEFAULT_QUEUE,
    priority_class: str = "train",
    group_spec: Mapping[str, Any] | None = None,
    **options: Any,
) -> list[dict[str, Any]]:
    """A PodGroup and its pods `<name>-<number>`; `options` are those of `pod`."""
    return [
        pod_group(
            namespace,
            name,
            members,
            queue=queue,
            priority_class=priority_class,
            **(group_spec or {}),
        ),
        *(
            pod(
                namespace,
                f"{name}-{number}",
                group=name,
                queue=queue,
                priority_class=priority_class,
                **options,
            )
            for number in range(members)
        ),
    ]
