"""Simulated nodes: what a node says about itself, for the kinds of machine that Cairn meets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from testcluster.lifecycles import NODE_LABEL

ZONE = "topology.kubernetes.io/zone"
RACK = "cairn.dev/rack"
HOST = "kubernetes.io/hostname"


@dataclass(frozen=True, slots=True)
class NodeKind:
    """A kind of machine; quantities as Kubernetes writes them."""

    name: str
    cpu: str
    memory: str
    gpus: int = 0
    gpu_product: str = ""
    arch: str = "amd64"
    storage: str = "1Ti"
    pods: int = 110
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: Sequence[Mapping[str, str]] = ()

    def but(self, **changes: Any) -> NodeKind:
        """The same kind with some things different."""
        return replace(self, **changes)


GPU = NodeKind("gpu", cpu="96", memory="1Ti", gpus=8, gpu_product="NVIDIA-H100-80GB-HBM3")
CPU = NodeKind("cpu", cpu="64", memory="256Gi")
EDGE = NodeKind(
    "edge", cpu="12", memory="64Gi", gpus=1, gpu_product="Jetson-AGX-Orin", arch="arm64", pods=30
)


def node(kind: NodeKind, name: str, labels: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The definition of one node, managed by kwok."""
    resources = {
        "cpu": kind.cpu,
        "memory": kind.memory,
        "ephemeral-storage": kind.storage,
        "pods": str(kind.pods),
    }
    gpu_labels: dict[str, str] = {}
    if kind.gpus:
        resources["nvidia.com/gpu"] = str(kind.gpus)
        gpu_labels = {
            "nvidia.com/gpu.present": "true",
            "nvidia.com/gpu.count": str(kind.gpus),
            "nvidia.com/gpu.product": kind.gpu_product,
        }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {
                NODE_LABEL: "true",
                HOST: name,
                "kubernetes.io/os": "linux",
                "kubernetes.io/arch": kind.arch,
                "node.kubernetes.io/instance-type": kind.name,
                **gpu_labels,
                **kind.labels,
                **(labels or {}),
            },
        },
        "spec": {"taints": [dict(taint) for taint in kind.taints]},
        "status": {"capacity": resources, "allocatable": resources},
    }


def nodes(kind: NodeKind, count: int, *, racks: int = 0, zone: str = "") -> list[dict[str, Any]]:
    """`count` nodes called `<kind>-<number>`, spread over `racks` racks of one zone."""
    return [
        node(
            kind,
            f"{kind.name}-{number}",
            {
                **({RACK: f"{zone or 'zone'}-rack-{number * racks // count}"} if racks else {}),
                **({ZONE: zone} if zone else {}),
            },
        )
        for number in range(count)
    ]
