"""The bridge's settings."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from cairn_common.settings import ServiceSettings


class BridgeSettings(ServiceSettings):
    """One bridge and the cluster that it drives."""

    cluster: str = Field(default="local", description="The cluster's name, a NATS subject token.")
    cluster_pools: list[str] = Field(default=["default"], description="Pools that it serves.")
    home: Path = Field(
        default=Path("~/.cairn"), description="Where the local cluster keeps its attempts."
    )
    store_url: str | None = Field(
        default=None, description="The store of task outputs; <home>/store if unset."
    )
    local_cpus: int | None = Field(
        default=None, ge=1, description="CPU slots of the local cluster; 4 a core if unset."
    )
    local_memory: int | None = Field(
        default=None, ge=1, description="Bytes of memory for tasks; all of the machine if unset."
    )
    heartbeat_seconds: float = Field(default=5.0, gt=0)
    inventory_seconds: float = Field(default=30.0, gt=0)
    unsettled_seconds: float = Field(
        default=20.0, gt=0, description="After how long an unsettled end is reported again."
    )

    @property
    def home_path(self) -> Path:
        """`home`, absolute."""
        return self.home.expanduser().absolute()
