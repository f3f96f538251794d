"""What is the same for every group of one cluster."""

from __future__ import annotations

from dataclasses import dataclass, field

from cairn_common.pools import ClusterPools

STORE = "file:///cairn/store"


@dataclass(frozen=True, slots=True)
class Site:
    """A cluster as manifests need to know it.

    Args:
        cluster: the cluster's name in Cairn; objects of another name are somebody else's.
        namespace: where all namespaced objects live.
        pools: the cluster's pools.
        scheduler: the `schedulerName` of pods.
        domain: the cluster's DNS domain.
        store: URL of the folder in which tasks leave their outputs for each other.
        nats_url: where tasks reach NATS, if they get credentials for it.
        eviction_grace: seconds that a command has to end whose pod is deleted, if whoever
            deletes it leaves it more.
        runtime_image: the image of `cairn_runtime`; without one, pods get no inputs, keep no
            outputs, make no checkpoints, and do not wait for each other.
    """

    cluster: str
    namespace: str = "default"
    pools: ClusterPools = field(default_factory=ClusterPools)
    scheduler: str = "kai-scheduler"
    domain: str = "cluster.local"
    store: str = STORE
    nats_url: str | None = None
    eviction_grace: int = 30
    runtime_image: str | None = None
