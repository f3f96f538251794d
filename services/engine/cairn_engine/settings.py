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
    database_connections: int = Field(default=8, ge=2)
    offer_interval: float = Policy().offer_interval
    start_timeout: float = Policy().start_timeout
    lead_linger: float = Policy().lead_linger
    stop_grace: float = Policy().stop_grace
    drain_patience: float = Policy().drain_patience
    backoff_base: float = Policy().backoff_base
    backoff_max: float = Policy().backoff_max

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
