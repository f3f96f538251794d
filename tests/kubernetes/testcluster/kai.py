"""KAI Scheduler in a test cluster: its parts, its definitions, and queues as installed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kubernetes_asyncio.client import ApiClient

from testcluster.build import Parts
from testcluster.control_plane import ControlPlane
from testcluster.kubeapi import create_all, documents, request, until
from testcluster.processes import free_port

SCHEDULER = "kai-scheduler"
QUEUE_LABEL = "kai.scheduler/queue"
GROUP_ANNOTATION = "pod-group-name"
SUBGROUP_LABEL = "kai.scheduler/subgroup-name"
ROOT_QUEUE = "default-parent-queue"
DEFAULT_QUEUE = "default-queue"

PRIORITIES = {"train": 50, "build-preemptible": 75, "build": 100, "inference": 125}
"""The classes of an install; from 100 on a group is not preemptible unless it says so."""


def priority_class(name: str, value: int) -> dict[str, Any]:
    """The definition of a PriorityClass."""
    return {
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": name},
        "value": value,
    }


def queue(
    name: str,
    parent: str | None = ROOT_QUEUE,
    *,
    priority: int | None = None,
    **resources: Mapping[str, float],
) -> dict[str, Any]:
    """The definition of a Queue; `gpu={"quota": 2, "limit": 4}`; unnamed resources are unlimited.

    cpu in millicores, memory in megabytes, gpu in devices; -1 is unlimited.
    """
    free = {"quota": 0, "limit": -1, "overQuotaWeight": 1}
    spec: dict[str, Any] = {
        "resources": {
            kind: {**free, **resources.get(kind, {})} for kind in ("cpu", "memory", "gpu")
        }
    }
    if parent is not None:
        spec["parentQueue"] = parent
    if priority is not None:
        spec["priority"] = priority
    return {
        "apiVersion": "scheduling.run.ai/v2",
        "kind": "Queue",
        "metadata": {"name": name},
        "spec": spec,
    }


async def install(api: ApiClient, parts: Parts) -> None:
    """Definitions, namespaces, priority classes and the default queues; nothing runs yet."""
    definitions = [one for file in parts.kai_crds for one in documents(file)]
    await create_all(api, definitions)
    await create_all(
        api,
        [
            *(
                {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
                for name in ("kai-scheduler", "kai-resource-reservation", "kai-scale-adjust")
            ),
            *(priority_class(name, value) for name, value in PRIORITIES.items()),
        ],
    )
    for definition in definitions:
        await _established(api, definition["metadata"]["name"])
    await create_all(api, [queue(ROOT_QUEUE, None), queue(DEFAULT_QUEUE)])


async def _established(api: ApiClient, name: str) -> None:
    async def probe() -> bool:
        path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}"
        conditions = (await request(api, "GET", path)).get("status", {}).get("conditions") or []
        return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)

    await until(probe, f"the definition {name} is in use")


def start(plane: ControlPlane, parts: Parts) -> None:
    """Start KAI's parts; they become ready by themselves.

    Left out: the admission webhooks (they see to fractions of GPUs, which Cairn does not ask for,
    set a runtime class that simulated nodes have no use for, and check names of sub-groups), the
    operator (it installs the rest), and what scales nodes.

    The binder's and the controllers' own addresses (metrics, health) are switched off; the
    scheduler's are on the loopback address, or, where it would listen on all, at no valid port.
    """
    kai = parts["kai"]
    none = ("--metrics-bind-address=0", "--health-probe-bind-address=0")
    fast = ("--qps=400", "--burst=800")
    plane.run(
        "kai-scheduler",
        kai,
        "scheduler",
        f"--schedule-period={plane.timing.schedule_period}",
        f"--default-staleness-grace-period={plane.timing.staleness}",
        f"--listen-address=127.0.0.1:{free_port()}",
        "--plugin-server-port=-1",
        "--v=2",
        *fast,
    )
    plane.run("kai-binder", kai, "binder", "--max-concurrent-reconciles=20", *none, *fast)
    plane.run(
        "kai-podgroupcontroller",
        kai,
        "podgroupcontroller",
        "--enable-podgroup-webhook=false",
        *none,
        *fast,
    )
    plane.run(
        "kai-queuecontroller",
        kai,
        "queuecontroller",
        "--enable-webhook=false",
        "--metrics-listen-address=0",
        *fast,
    )
    plane.run("kai-podgrouper", kai, "podgrouper", *none, *fast)
