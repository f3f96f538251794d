"""Pools, priorities and topology keys as objects of the cluster's scheduler.

Source: KAI Scheduler, Queue `scheduling.run.ai/v2` (CPU in thousandths of a core, memory in
millions of bytes, GPUs; -1 is no bound; only queues below a parent are scheduled to), Topology
`kai.scheduler/v1alpha1`, and PriorityClasses: what has a value below 100 can be preempted.
"""

from __future__ import annotations

from typing import Any

from cairn_bridge.drivers.kubernetes.core import names
from cairn_bridge.drivers.kubernetes.core.pods import Document
from cairn_bridge.drivers.kubernetes.core.site import Site
from cairn_common.pools import Pool, Share

QUEUES = "scheduling.run.ai/v2"
TOPOLOGIES = "kai.scheduler/v1alpha1"
_PRIORITIES = {"HIGH": 200, "NORMAL": 100, "LOW": 50}
_UNITS = {"cpu": 1000, "memory": 1e-6, "gpu": 1}
_NO_BOUND = {"quota": -1, "limit": -1, "overQuotaWeight": 1}


def scheduler_objects(site: Site) -> list[Document]:
    """Everything that must be there before the first group: all without a namespace."""
    return [
        *(_priority_class(priority, value) for priority, value in _PRIORITIES.items()),
        _queue(site, names.parent_queue_name(site.namespace), dict.fromkeys(_UNITS, _NO_BOUND)),
        *(_pool_queue(site, name, pool) for name, pool in site.pools.pools.items()),
        *(
            _topology(site, name, pool)
            for name, pool in site.pools.pools.items()
            if pool.topology_keys
        ),
    ]


def _priority_class(priority: str, value: int) -> Document:
    return {
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": names.priority_class(priority)},
        "value": value,
        "globalDefault": False,
        "description": f"Tasks of Cairn with priority {priority}.",
    }


def _pool_queue(site: Site, name: str, pool: Pool) -> Document:
    resources = {
        resource: _share(getattr(pool.queue, resource), unit) for resource, unit in _UNITS.items()
    }
    document = _queue(site, names.queue_name(site.namespace, name), resources)
    document["spec"] |= {
        "displayName": name,
        "parentQueue": names.parent_queue_name(site.namespace),
        "priority": pool.queue.priority,
    }
    return document


def _share(share: Share, unit: float) -> dict[str, float]:
    return {
        "quota": share.guarantee * unit if share.guarantee >= 0 else -1,
        "limit": share.maximum * unit if share.maximum >= 0 else -1,
        "overQuotaWeight": share.weight,
    }


def _queue(site: Site, name: str, resources: dict[str, Any]) -> Document:
    return {
        "apiVersion": QUEUES,
        "kind": "Queue",
        "metadata": {"name": name, "labels": {names.CLUSTER: site.cluster}},
        "spec": {"resources": resources},
    }


def _topology(site: Site, name: str, pool: Pool) -> Document:
    return {
        "apiVersion": TOPOLOGIES,
        "kind": "Topology",
        "metadata": {
            "name": names.topology_name(site.namespace, name),
            "labels": {names.CLUSTER: site.cluster},
        },
        "spec": {"levels": [{"nodeLabel": each.label} for each in pool.topology_keys]},
    }
