"""The bridge's settings."""

from __future__ import annotations

from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

import yaml
from pydantic import AliasChoices, Field

from cairn_common.pools import ClusterPools, Pool
from cairn_common.settings import ServiceSettings


class BridgeSettings(ServiceSettings):
    """One bridge and the cluster that it drives."""

    cluster: str = Field(default="local", description="The cluster's name, a NATS subject token.")
    cluster_pools: list[str] = Field(default=["default"], description="Pools that it serves.")
    cluster_driver: Literal["local", "kubernetes"] = Field(
        default="local", description="What the cluster is: this machine, or Kubernetes."
    )
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
    kubeconfig: Path | None = Field(
        default=None,
        description="A kubeconfig file; that of kubectl, or of the bridge's own pod, if unset.",
    )
    kubernetes_context: str | None = Field(
        default=None, description="A context of it; one bridge drives one context."
    )
    kubernetes_namespace: str = Field(default="default", description="Where pods are made.")
    kubernetes_scheduler: str = Field(
        default="kai-scheduler", description="The schedulerName of pods."
    )
    kubernetes_domain: str = Field(default="cluster.local", description="The cluster's DNS domain.")
    kubernetes_requests: int = Field(
        default=64, ge=1, description="Writing requests to the API server at the same time."
    )
    pools_file: Path | None = Field(
        default=None, description="YAML with the pools of the Kubernetes cluster."
    )
    runtime_image: str | None = Field(
        default=None,
        description="Image of cairn_runtime; without one pods get no inputs and checkpoints, and "
        "groups no barrier.",
    )
    task_key: Path | None = Field(
        default=None,
        description="Signs credentials for NATS that are a pod's own; without it pods get none.",
    )
    task_key_seconds: float = Field(
        default=3600.0, ge=60, description="How long those last; they are renewed before."
    )
    task_nats_url: str | None = Field(
        default=None, description="NATS as pods reach it; `nats_url` if unset."
    )
    image_patience: float = Field(
        default=300.0, ge=0, description="Seconds that an image may fail to be pulled."
    )
    container_patience: float = Field(
        default=60.0, ge=0, description="Seconds that a container may fail to be made."
    )
    node_patience: float = Field(
        default=300.0, ge=0, description="Seconds after which what ran on a silent node is lost."
    )
    eviction_grace: int = Field(
        default=30, ge=1, description="The most seconds for a command to end in a deleted pod."
    )
    orphan_seconds: float = Field(
        default=600.0, gt=0, description="After how long what nobody knows is removed."
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
    def pools_of_cluster(self) -> ClusterPools:
        """The pools of `pools_file`, or each of `cluster_pools` without bounds.

        Raises:
            ValueError: the file does not describe pools.
        """
        if self.pools_file is None:
            return ClusterPools(pools=dict.fromkeys(self.cluster_pools, Pool()))
        return ClusterPools.model_validate(yaml.safe_load(self.pools_file.read_text("utf-8")))

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
