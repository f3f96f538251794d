"""The clusters that have registered, and what somebody wants of them."""

from __future__ import annotations

from collections.abc import Sequence

from cairn_common.persistence import Database
from cairn_engine.core import State

_ALL = "SELECT name, state, pools FROM engine.cluster"

_REGISTER = """
INSERT INTO engine.cluster AS known (name, state, pools, registered_at, changed_at)
VALUES ($1, 'ACTIVE', $2, now(), now())
ON CONFLICT (name) DO UPDATE SET
    pools = excluded.pools,
    state = CASE known.state WHEN 'REMOVED' THEN 'ACTIVE' ELSE known.state END,
    registered_at = CASE known.state WHEN 'REMOVED' THEN now() ELSE known.registered_at END,
    changed_at = now()
RETURNING state
"""

_CHANGE = """
UPDATE engine.cluster SET state = $2, changed_at = now()
WHERE name = $1 AND state <> 'REMOVED'
RETURNING name
"""

_OPEN = """
SELECT count(*)
FROM engine.workflow AS w JOIN engine.task AS t ON t.workflow = w.id
WHERE w.ended_at IS NULL AND t.ended_at IS NULL AND t.cluster = $1 AND t.status <> 'WAITING'
"""


class ClusterStore:
    """The table of clusters."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self) -> dict[str, tuple[State, list[str]]]:
        """State and pools of each cluster, by name; removed ones are among them."""
        return {
            row["name"]: (State(row["state"]), row["pools"])
            for row in await self._database.fetch(_ALL)
        }

    async def register(self, name: str, pools: Sequence[str]) -> State:
        """A cluster has announced itself; one that was removed is there again."""
        return State(await self._database.fetchval(_REGISTER, name, pools))

    async def change(self, name: str, state: State) -> bool:
        """Give a cluster another state; False if there is no such cluster."""
        return await self._database.fetchval(_CHANGE, name, state.value) is not None

    async def open_in(self, name: str) -> int:
        """How many attempts are queued in a cluster or run there."""
        count: int = await self._database.fetchval(_OPEN, name)
        return count
