"""The pools of a cluster as an operator configures them.

One file (or one settings value) describes a cluster: its pools, each with a share of the hardware
and with platforms, which say on which nodes its tasks run and what they may do there. OSMO's user
guide names the ideas: pools, platforms, quotas, priorities.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

UNLIMITED = -1


class PoolModel(BaseModel):
    """What all parts of the configuration have in common."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Share(PoolModel):
    """How much of one resource a pool may use: cores, GPUs, or bytes of memory.

    What exceeds the guarantee is borrowed from other pools, by weight, and taken back when they
    need it. Only LOW tasks borrow: HIGH and NORMAL ones run within the guarantee.
    """

    guarantee: float = Field(default=UNLIMITED, ge=-1, description="Always there; -1: no bound.")
    maximum: float = Field(default=UNLIMITED, ge=-1, description="Never more; -1: no bound.")
    weight: float = Field(default=1, ge=0, description="Part of what others leave unused.")

    @model_validator(mode="after")
    def _ordered(self) -> Share:
        if self.maximum != UNLIMITED and self.guarantee > self.maximum:
            raise ValueError(f"guarantee {self.guarantee:g} exceeds maximum {self.maximum:g}")
        return self


class Queue(PoolModel):
    """A pool's share of the cluster, per resource."""

    cpu: Share = Share()
    memory: Share = Share()
    gpu: Share = Share()
    priority: int = Field(default=100, description="Higher is served first.")


class Toleration(PoolModel):
    """A taint that tasks bear, as Kubernetes writes it."""

    key: str | None = None
    operator: Literal["Equal", "Exists"] = "Equal"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    toleration_seconds: int | None = None


class TopologyKey(PoolModel):
    """A level of closeness: what workflows call it, and the label that nodes carry."""

    key: str
    label: str


class Credential(PoolModel):
    """A Secret of the cluster that tasks of a pool may use, by its name in workflows.

    Its values never leave the cluster; that it exists, and what its keys are called, is announced.
    """

    secret: str = Field(min_length=1, description="The Kubernetes Secret, in Cairn's namespace.")
    keys: list[str] = Field(min_length=1, description="Keys of the Secret that tasks may see.")


class Platform(PoolModel):
    """A kind of node, and what tasks may do on it. Defaults fill what a task does not ask for."""

    description: str = ""
    node_selector: dict[str, str] = Field(default={}, description="Labels of its nodes.")
    tolerations: list[Toleration] = []
    default_cpu: int | None = Field(default=None, ge=1)
    default_gpu: int | None = Field(default=None, ge=0)
    default_memory: int | None = Field(default=None, ge=1, description="Bytes.")
    default_storage: int | None = Field(default=None, ge=1, description="Bytes.")
    privileged_allowed: bool = False
    host_network_allowed: bool = False
    default_mounts: list[str] = Field(default=[], description="source or source:destination.")
    allowed_mounts: list[str] = Field(
        default=[], description="Folders of the node that tasks may mount, and all below them."
    )
    template: dict[str, Any] = Field(default={}, description="Merged into each pod.")


class Pool(PoolModel):
    """A share of the cluster and its platforms."""

    description: str = ""
    queue: Queue = Queue()
    platforms: dict[str, Platform] = Field(default={}, description="Any node if there is none.")
    default_platform: str | None = None
    topology_keys: list[TopologyKey] = Field(default=[], description="From wide to narrow.")
    credentials: dict[str, Credential] = Field(
        default={}, description="What workflows may name under `credentials`."
    )
    template: dict[str, Any] = Field(default={}, description="Merged into each pod.")

    @model_validator(mode="after")
    def _known_default(self) -> Pool:
        if self.default_platform is not None and self.default_platform not in self.platforms:
            raise ValueError(f"default_platform {self.default_platform!r} is not a platform")
        keys = [each.key for each in self.topology_keys]
        if len(set(keys)) != len(keys):
            raise ValueError("two topology_keys have the same key")
        return self

    @property
    def usual_platform(self) -> str | None:
        """The platform of tasks that name none: the default, or the only one there is."""
        if self.default_platform is None and len(self.platforms) == 1:
            return next(iter(self.platforms))
        return self.default_platform

    def platform(self, name: str | None) -> Platform | None:
        """The platform of that name; the usual one without a name; None if there is none.

        A pool without platforms has one that allows nothing special and takes any node.
        """
        chosen = name or self.usual_platform
        return Platform() if chosen is None else self.platforms.get(chosen)


class ClusterPools(PoolModel):
    """All pools of one cluster, and what is merged into every pod of it."""

    pools: dict[str, Pool] = {"default": Pool()}
    template: dict[str, Any] = Field(default={}, description="Merged into each pod.")

    def announced(self) -> dict[str, Pool]:
        """The pools as everybody may see them: pod templates may hold secrets."""
        return {
            name: pool.model_copy(
                update={
                    "template": {},
                    "platforms": {
                        each: platform.model_copy(update={"template": {}})
                        for each, platform in pool.platforms.items()
                    },
                }
            )
            for name, pool in self.pools.items()
        }
