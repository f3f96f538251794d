"""What every decision has at hand, so that functions stay small."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from cairn_engine.core.clusters import Clusters
from cairn_engine.core.inputs import Decision
from cairn_engine.core.ledger import Ledger
from cairn_engine.core.policy import Policy


@dataclass(frozen=True, slots=True)
class Context:
    """The ledger to change, the time, the numbers, the clusters, and where the answers go."""

    ledger: Ledger
    now: datetime
    policy: Policy
    decision: Decision
    clusters: Clusters
