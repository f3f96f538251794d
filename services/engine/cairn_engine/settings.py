"""The engine's settings."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from cairn_common.settings import ServiceSettings
from cairn_common.spec.fields import ExitCodeRanges
from cairn_common.spec.models import ExitAction
from cairn_engine.core import Policy, PoolPolicy


class PoolRules(BaseModel):
    """A pool: the cluster that serves it, and what its tasks inherit if they do not say it."""

    model_config = ConfigDict(extra="forbid")

    cluster: str
    max_retries: int | None = Field(default=None, ge=0)
    exit_actions: dict[ExitAction, ExitCodeRanges] = {}


class EngineSettings(ServiceSettings):
    """All times in seconds."""

    pools: dict[str, str | PoolRules] = Field(
        default={"default": "local"},
        description="Which cluster serves which pool: its name, or"
        ' `{"cluster": name, "max_retries": n, "exit_actions": {"RESCHEDULE": "3001,3006"}}`.',
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
        """The rules of a pool; one that is not configured is served by the cluster of its name."""
        rules = self.pools.get(name, name)
        if isinstance(rules, str):
            rules = PoolRules(cluster=rules)
        return PoolPolicy(
            rules.cluster,
            self.max_retries if rules.max_retries is None else rules.max_retries,
            tuple(
                (action.value, low, high)
                for action, ranges in rules.exit_actions.items()
                for low, high in ranges
            ),
        )

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
