"""`python -m cairn_bridge`."""

from cairn_bridge.cluster import ClusterDriver
from cairn_bridge.service import BridgeService
from cairn_bridge.settings import BridgeSettings
from cairn_common.process import run_service


def make_driver(settings: BridgeSettings) -> ClusterDriver:
    """The driver that the settings choose. Each is imported only where it is used."""
    if settings.cluster_driver == "kubernetes":
        return _kubernetes_driver(settings)
    return _local_driver(settings)


def _local_driver(settings: BridgeSettings) -> ClusterDriver:
    """The cluster that is this machine."""
    from cairn_bridge.drivers.local import LocalDriver

    return LocalDriver(
        settings.home_path / "clusters" / settings.cluster,
        settings.store_path,
        name=settings.cluster,
        cpus=settings.local_cpus,
        memory=settings.local_memory,
        isolation=settings.local_isolation,
        path=settings.task_path,
        lifeline=settings.lifeline_fd,
    )


def _kubernetes_driver(settings: BridgeSettings) -> ClusterDriver:
    """A namespace of a Kubernetes cluster."""
    from cairn_bridge.drivers.kubernetes import STORE, Api, KubernetesDriver, Patience, Site
    from cairn_common.security import PassIssuer

    site = Site(
        cluster=settings.cluster,
        namespace=settings.kubernetes_namespace,
        pools=settings.pools_of_cluster,
        scheduler=settings.kubernetes_scheduler,
        domain=settings.kubernetes_domain,
        eviction_grace=settings.eviction_grace,
        runtime_image=settings.runtime_image,
        store=settings.store_url or STORE,
        nats_url=settings.task_nats_url or settings.nats_url,
    )
    issuer = None
    if settings.task_key is not None:
        issuer = PassIssuer.from_file(settings.task_key, settings.task_key_seconds)
    patience = Patience(
        image=settings.image_patience,
        start=settings.container_patience,
        node=settings.node_patience,
        orphan=settings.orphan_seconds,
    )
    return KubernetesDriver(
        lambda: Api.connect(
            settings.kubeconfig, settings.kubernetes_context, settings.kubernetes_requests
        ),
        site,
        patience=patience,
        issuer=issuer,
    )


if __name__ == "__main__":
    settings = BridgeSettings()
    run_service("scheduler-bridge", settings, BridgeService(settings, make_driver))
