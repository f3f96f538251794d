"""The engine's settings."""

from __future__ import annotations

from pydantic import Field

from cairn_common.settings import ServiceSettings
from cairn_engine.core import Policy


class EngineSettings(ServiceSettings):
    """All times in seconds."""

    pools: dict[str, str] = Field(
        default={"default": "local"}, description="Which cluster serves which pool."
    )
    max_retries: int = Field(default=3, ge=0, description="How often a task is tried again.")
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
