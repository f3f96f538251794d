"""Where the engine's state lives: PostgreSQL, schema `engine`. Nothing else speaks SQL."""

from cairn_engine.store.clusters import ClusterStore
from cairn_engine.store.leases import Leases
from cairn_engine.store.store import FencedError, Store, Submission, Writes

__all__ = ["ClusterStore", "FencedError", "Leases", "Store", "Submission", "Writes"]
