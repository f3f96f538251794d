"""Nodes as Cairn's inventory shows them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cairn_bridge.drivers.kubernetes.core import quantities
from cairn_bridge.drivers.kubernetes.core.pods import GPU
from cairn_bridge.drivers.kubernetes.core.site import Site
from cairn_common.events import NodeInfo
from cairn_common.pools import Platform

Document = Mapping[str, Any]
_GPU_TYPE = "nvidia.com/gpu.product"
_ARCHITECTURE = "kubernetes.io/arch"
_STORAGE = "ephemeral-storage"


@dataclass(frozen=True, slots=True)
class Use:
    """What pods on a node ask for: thousandths of cores, GPUs, bytes."""

    cpu: int = 0
    gpu: int = 0
    memory: int = 0
    storage: int = 0

    def plus(self, other: Use) -> Use:
        """The sum."""
        return Use(
            self.cpu + other.cpu,
            self.gpu + other.gpu,
            self.memory + other.memory,
            self.storage + other.storage,
        )


def use_of(pod: Document) -> Use:
    """What a pod's containers ask for; native sidecars count, other init containers do not."""
    spec = pod.get("spec") or {}
    total = Use()
    sidecars = [
        each for each in spec.get("initContainers") or () if each.get("restartPolicy") == "Always"
    ]
    for container in [*(spec.get("containers") or ()), *sidecars]:
        requests = (container.get("resources") or {}).get("requests") or {}
        total = total.plus(
            Use(
                cpu=quantities.whole(quantities.parse(requests.get("cpu", 0)) * 1000),
                gpu=quantities.whole(requests.get(GPU)),
                memory=quantities.whole(requests.get("memory")),
                storage=quantities.whole(requests.get(_STORAGE)),
            )
        )
    return total


def is_ready(node: Document) -> bool:
    """Whether the node's kubelet is in touch with the API server."""
    for each in (node.get("status") or {}).get("conditions") or ():
        if each["type"] == "Ready":
            return bool(each["status"] == "True")
    return False


def node_info(node: Document, uses: Iterable[Use], site: Site) -> NodeInfo:
    """One node. Pools and platforms follow from its labels."""
    metadata, spec, status = node["metadata"], node.get("spec") or {}, node.get("status") or {}
    labels = dict(metadata.get("labels") or {})
    has = status.get("allocatable") or {}
    used = Use()
    for each in uses:
        used = used.plus(each)
    pools, platforms = _served(labels, site)
    taints = [_taint(each) for each in spec.get("taints") or ()]
    return NodeInfo(
        name=metadata["name"],
        cpu=int(quantities.parse(has.get("cpu", 0))),
        gpu=quantities.whole(has.get(GPU)),
        memory=quantities.whole(has.get("memory")),
        storage=quantities.whole(has.get(_STORAGE)),
        used_cpu=-(-used.cpu // 1000),
        used_gpu=used.gpu,
        used_memory=used.memory,
        used_storage=used.storage,
        pools=pools,
        platforms=platforms,
        labels=labels,
        gpu_type=labels.get(_GPU_TYPE),
        architecture=labels.get(_ARCHITECTURE),
        ready=is_ready(node) and not spec.get("unschedulable"),
        taints=taints,
    )


def _served(labels: Mapping[str, str], site: Site) -> tuple[list[str], list[str]]:
    pools: list[str] = []
    platforms: list[str] = []
    for name, pool in site.pools.pools.items():
        fit = [each for each, platform in pool.platforms.items() if _fits(platform, labels)]
        if fit or not pool.platforms:
            pools.append(name)
        platforms += [each for each in fit if each not in platforms]
    return pools, platforms


def _fits(platform: Platform, labels: Mapping[str, str]) -> bool:
    return all(labels.get(name) == value for name, value in platform.node_selector.items())


def _taint(taint: Document) -> str:
    value = f"={taint['value']}" if taint.get("value") else ""
    return f"{taint['key']}{value}:{taint['effect']}"
