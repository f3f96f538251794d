"""The numbers that decisions depend on, given from the settings once."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeAlias

ExitRule: TypeAlias = tuple[str, int, int]
"""An exit action and a range of exit codes, both ends included."""


@dataclass(frozen=True, slots=True)
class PoolPolicy:
    """What goes for all workflows of a pool that do not say otherwise."""

    cluster: str
    max_retries: int
    exit_actions: tuple[ExitRule, ...] = ()


@dataclass(frozen=True, slots=True)
class Policy:
    """All times in seconds."""

    offer_interval: float = 10.0  # until an unanswered placement is offered again
    offer_interval_max: float = 300.0
    start_timeout: float = 1800.0  # in INITIALIZING
    lead_linger: float = 5.0  # for the others to end by themselves once the lead has completed
    stop_grace: float = 10.0  # between SIGTERM and SIGKILL
    drain_patience: float = 60.0  # for a cluster to confirm a stop, beyond the grace
    backoff_base: float = 1.0
    backoff_max: float = 300.0
    page: int = 500  # groups that one decision may touch

    def offer_delay(self, offers: int) -> timedelta:
        """How long to wait for an answer to the offer with this number."""
        return timedelta(
            seconds=min(self.offer_interval * 2 ** min(offers, 16), self.offer_interval_max)
        )

    def backoff(self, seed: str, attempt: int) -> timedelta:
        """Exponential back-off with full jitter in its upper half, the same for the same seed."""
        ceiling = min(self.backoff_base * 2 ** min(attempt, 16), self.backoff_max)
        digest = hashlib.blake2b(f"{seed}:{attempt}".encode(), digest_size=4).digest()
        share = int.from_bytes(digest) / 2**32
        return timedelta(seconds=ceiling * (0.5 + share / 2))
