"""What the API says about clusters.

An addition to the reference's API, for operators.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, Field

from cairn_api.core.answers import Time
from cairn_api.core.inventory import Inventory
from cairn_api.core.pools import PoolStatus


class ClusterState(StrEnum):
    """What somebody wants of a cluster."""

    ACTIVE = "ACTIVE"
    DRAINING = "DRAINING"


@dataclass(frozen=True, slots=True)
class Registered:
    """A cluster as the engine has it."""

    name: str
    state: str
    pools: list[str]
    registered_at: datetime


class ClusterEntry(BaseModel):
    """A cluster. Amounts are sums over its nodes: cores, GPUs, bytes."""

    name: str
    state: ClusterState = Field(description="DRAINING: it takes no new work.")
    status: PoolStatus = Field(description="ONLINE: its bridge was heard of lately.")
    pools: list[str]
    registered: Time
    nodes: int
    cpu: int
    used_cpu: int
    gpu: int
    used_gpu: int
    memory: int
    used_memory: int


class ClusterAnswer(ClusterEntry):
    """A cluster with what is open there."""

    features: list[str] = Field(description="What workflows may use there.")
    tasks: dict[str, int] = Field(description="How many tasks are in each status.")


class ClustersAnswer(BaseModel):
    """The clusters that have registered."""

    clusters: list[ClusterEntry]


def cluster_entry(cluster: Registered, inventory: Inventory, now: datetime) -> ClusterEntry:
    """A cluster together with what it has announced."""
    known = inventory.clusters.get(cluster.name)
    nodes = known.resources.nodes if known is not None and known.resources is not None else []
    online = known is not None and known.online(now)
    return ClusterEntry(
        name=cluster.name,
        state=ClusterState(cluster.state),
        status=PoolStatus.ONLINE if online else PoolStatus.OFFLINE,
        pools=cluster.pools,
        registered=cluster.registered_at,
        nodes=len(nodes),
        cpu=sum(node.cpu for node in nodes),
        used_cpu=sum(node.used_cpu for node in nodes),
        gpu=sum(node.gpu for node in nodes),
        used_gpu=sum(node.used_gpu for node in nodes),
        memory=sum(node.memory for node in nodes),
        used_memory=sum(node.used_memory for node in nodes),
    )


def cluster_answer(
    cluster: Registered, tasks: Mapping[str, int], inventory: Inventory, now: datetime
) -> ClusterAnswer:
    """A cluster with its features and the tasks that are open there."""
    known = inventory.clusters.get(cluster.name)
    resources = known.resources if known is not None else None
    features = resources.features if resources is not None else None
    entry = cluster_entry(cluster, inventory, now)
    return ClusterAnswer(**dict(entry), features=features or [], tasks=dict(tasks))
