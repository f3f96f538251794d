"""The engine's settings."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from cairn_common.settings import ServiceSettings
from cairn_common.spec.fields import ExitCodeRanges
from cairn_common.spec.models import ExitAction
from cairn_engine.core import Policy, PoolPolicy

_HOMES = {"default": "local"}


class PoolRules(BaseModel):
    """A pool: what its tasks inherit if they do not say it, and the one cluster that serves it, if
    it is not to be those that announce it."""

    model_config = ConfigDict(extra="forbid")

    cluster: str | None = None
    max_retries: int | None = Field(default=None, ge=0)
    exit_actions: dict[ExitAction, ExitCodeRanges] = {}


class EngineSettings(ServiceSettings):
    """All times in seconds."""

    pools: dict[str, str | PoolRules] = Field(
        default={},
        description='Rules of pools: `{"max_retries": n, "exit_actions": {"RESCHEDULE":'
        ' "3001,3006"}, "cluster": name}`, where `cluster` binds the pool to one of those that'
        " announce it; a name alone does the same.",
    )
    missed_beats: float = Field(
        default=3.0, ge=1, description="Heartbeats that a cluster may miss before it is silent."
    )
    cluster_lost_seconds: float = Field(
        default=600.0, gt=0, description="Of silence, until what runs in a cluster counts as lost."
    )
    max_retries: int = Field(
        default=3,
        ge=0,
        description="How often a task is tried again if neither it nor its pool says so.",
    )
    lanes: int = Field(default=2, ge=1, description="Batches decided side by side.")
    batch_size: int = Field(default=512, ge=1, description="The most messages in one transaction.")
    lease_seconds: float = Field(
        default=6.0, gt=0, description="After how long a dead engine's partitions are taken over."
    )
    database_connections: int = Field(
        default=8, ge=2, description="The most connections to PostgreSQL at a time."
    )
    offer_interval: float = Field(
        default=Policy().offer_interval,
        gt=0,
        description="Until a placement that no cluster accepted is offered again.",
    )
    start_timeout: float = Field(
        default=Policy().start_timeout, gt=0, description="The longest time in INITIALIZING."
    )
    lead_linger: float = Field(
        default=Policy().lead_linger,
        ge=0,
        description="For the others of a group to end by themselves once its lead has.",
    )
    stop_grace: float = Field(
        default=Policy().stop_grace, ge=0, description="Between SIGTERM and SIGKILL."
    )
    drain_patience: float = Field(
        default=Policy().drain_patience,
        ge=0,
        description="For a cluster to confirm a stop, beyond the grace.",
    )
    backoff_base: float = Field(
        default=Policy().backoff_base, gt=0, description="The first back-off of a retry."
    )
    backoff_max: float = Field(
        default=Policy().backoff_max, gt=0, description="The longest back-off of a retry."
    )

    def pool(self, name: str) -> PoolPolicy:
        """The rules of a pool.

        As long as no cluster has announced it, it is believed to be served by the cluster that it
        is bound to, or one of its own name; pool `default` by cluster `local`.
        """
        rules = self._rules(name)
        return PoolPolicy(
            rules.cluster or _HOMES.get(name, name),
            self.max_retries if rules.max_retries is None else rules.max_retries,
            tuple(
                (action.value, low, high)
                for action, ranges in rules.exit_actions.items()
                for low, high in ranges
            ),
        )

    @property
    def pins(self) -> dict[str, str]:
        """The cluster of each pool that is bound to one."""
        named = {pool: self._rules(pool).cluster for pool in self.pools}
        return {pool: cluster for pool, cluster in named.items() if cluster}

    def _rules(self, name: str) -> PoolRules:
        rules = self.pools.get(name, PoolRules())
        return PoolRules(cluster=rules) if isinstance(rules, str) else rules

    def policy(self) -> Policy:
        """The numbers that the core decides by."""
        return Policy(
            offer_interval=self.offer_interval,
            start_timeout=self.start_timeout,
            lead_linger=self.lead_linger,
            stop_grace=self.stop_grace,
            drain_patience=self.drain_patience,
            backoff_base=self.backoff_base,
            backoff_max=self.backoff_max,
        )
