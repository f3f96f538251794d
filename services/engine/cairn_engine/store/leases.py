"""Which engine owns which partitions: leases in PostgreSQL, fenced by an epoch.

A lease is a row with an owner and an expiry; each change of owner raises its epoch. Every
transaction of an owner locks its lease rows for sharing and checks their epochs, so an engine
that was paused for a minute cannot write over the work of the one that took its place.
Chosen over JetStream's pinned consumers because the fence must be in the transaction anyway.
"""

from __future__ import annotations

from cairn_common.events.subjects import PARTITIONS
from cairn_common.persistence import Database

_CREATE = """
INSERT INTO engine.lease (partition, owner, epoch, expires_at)
SELECT number, '', 0, 'epoch' FROM generate_series(0, $1 - 1) AS number
ON CONFLICT DO NOTHING
"""

_RENEW = """
UPDATE engine.lease SET expires_at = clock_timestamp() + make_interval(secs => $2)
WHERE owner = $1
RETURNING partition, epoch
"""

_SEEN = """
INSERT INTO engine.member (owner, seen_at) VALUES ($1, clock_timestamp())
ON CONFLICT (owner) DO UPDATE SET seen_at = excluded.seen_at
"""

_FORGET = """
DELETE FROM engine.member
WHERE owner = $1 OR seen_at < clock_timestamp() - make_interval(secs => 100 * $2::float8)
"""

_MEMBERS = """
SELECT count(*) FROM engine.member
WHERE seen_at > clock_timestamp() - make_interval(secs => $1)
"""

_TAKE = """
UPDATE engine.lease AS lease
SET owner = $1, epoch = epoch + 1, expires_at = clock_timestamp() + make_interval(secs => $2)
FROM (
    SELECT partition FROM engine.lease
    WHERE expires_at <= clock_timestamp() AND owner <> $1
    ORDER BY partition LIMIT $3
    FOR UPDATE SKIP LOCKED
) AS free
WHERE lease.partition = free.partition
RETURNING lease.partition, lease.epoch
"""

_RELEASE = """
UPDATE engine.lease SET expires_at = 'epoch', owner = ''
WHERE owner = $1 AND partition = ANY($2::smallint[])
"""


class Leases:
    """The leases of one engine.

    Args:
        database: where the lease rows are.
        owner: this engine's name, unique among engines.
        seconds: how long a lease lasts without being renewed.
    """

    def __init__(self, database: Database, owner: str, seconds: float) -> None:
        self._database = database
        self._owner = owner
        self._seconds = seconds

    async def create(self) -> None:
        """Make the rows of all partitions, once for all engines."""
        await self._database.execute(_CREATE, PARTITIONS)

    async def renew(self) -> dict[int, int]:
        """Hold what is held, take a fair share of what is free, give back what is more than that.

        Giving back is safe at any moment: a transaction under way fails at its fence, and its
        messages come again to the next owner.

        Returns:
            The epoch of each partition that this engine owns now.
        """
        async with self._database.acquire() as connection, connection.transaction():
            await connection.execute(_SEEN, self._owner)
            members = await connection.fetchval(_MEMBERS, self._seconds)
            share = -(-PARTITIONS // max(1, members))
            held = {
                row["partition"]: row["epoch"]
                for row in await connection.fetch(_RENEW, self._owner, self._seconds)
            }
            surplus = sorted(held)[share:]
            if surplus:
                await connection.execute(_RELEASE, self._owner, surplus)
                return {
                    partition: held[partition] for partition in held if partition not in surplus
                }
            taken = await connection.fetch(_TAKE, self._owner, self._seconds, share - len(held))
            return held | {row["partition"]: row["epoch"] for row in taken}

    async def leave(self) -> None:
        """Give all back, so that other engines need not wait for the expiry."""
        async with self._database.acquire() as connection, connection.transaction():
            await connection.execute(_RELEASE, self._owner, list(range(PARTITIONS)))
            await connection.execute(_FORGET, self._owner, self._seconds)
