"""The bridge's settings."""

from __future__ import annotations

from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from pydantic import AliasChoices, Field

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
    local_isolation: Literal["namespaces", "none"] | None = Field(
        default=None, description="As good as the kernel allows if unset."
    )
    task_path: str = Field(
        default="",
        validation_alias=AliasChoices("CAIRN_TASK_PATH", "PATH"),
        description="Where local tasks look for programs; the PATH of whoever starts Cairn.",
    )
    lifeline_fd: int | None = Field(
        default=None, description="A pipe's read end; at its end of file all tasks are killed."
    )
    heartbeat_seconds: float = Field(
        default=5.0, gt=0, description="How often the bridge says that it is alive."
    )
    inventory_seconds: float = Field(
        default=30.0, gt=0, description="How often it says what the cluster has."
    )
    unsettled_seconds: float = Field(
        default=20.0, gt=0, description="After how long an unsettled end is reported again."
    )

    @property
    def home_path(self) -> Path:
        """`home`, absolute."""
        return self.home.expanduser().absolute()

    @property
    def store_path(self) -> Path:
        """The folder behind `store_url`.

        Raises:
            ValueError: the store is not a `file://` one, which the local cluster needs.
        """
        if self.store_url is None:
            return self.home_path / "store"
        parts = urlsplit(self.store_url)
        if parts.scheme != "file":
            raise ValueError(f"the local cluster needs a file:// store, not {self.store_url}")
        return Path(unquote(parts.path))
