"""`python -m cairn_bridge`."""

from cairn_bridge.drivers.local import LocalDriver
from cairn_bridge.service import BridgeService
from cairn_bridge.settings import BridgeSettings
from cairn_common.process import run_service


def local_driver(settings: BridgeSettings) -> LocalDriver:
    """The cluster that is this machine."""
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


if __name__ == "__main__":
    settings = BridgeSettings()
    run_service("scheduler-bridge", settings, BridgeService(settings, local_driver))
