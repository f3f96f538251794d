"""The driver's durable memory: which attempts it has taken, and how those ended that it judged.

One SQLite file, written by one thread that puts all that waits into one transaction: five hundred
placements at once cost a few syncs of the disk, not five hundred, and a gang of a thousand one.
An attempt's own story is in its directory (`cairn_runtime.room`); here is only what must be known
before there is one, or after it has gone.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cairn_bridge.cluster import AttemptKey, ClusterError, Identity, identity

_SCHEMA = """
CREATE TABLE IF NOT EXISTS placements (
    id INTEGER PRIMARY KEY, body BLOB NOT NULL, traceparent TEXT, accepted_at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS attempts (
    workflow TEXT NOT NULL, number INTEGER NOT NULL, attempt INTEGER NOT NULL, name TEXT NOT NULL,
    placement INTEGER, boot TEXT, ending BLOB, reported INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (workflow, number, attempt)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS attempts_of_placement ON attempts (placement);
CREATE TABLE IF NOT EXISTS settled (
    id INTEGER PRIMARY KEY, workflow TEXT NOT NULL, number INTEGER NOT NULL,
    attempt INTEGER NOT NULL);
"""
SETTLED_KEPT = 50_000
"""Settled attempts that are remembered as such: a bus that has lost an acknowledgement gives
their placements out once more, and what has run must not run again."""
_MOST_AT_ONCE = 1000
_ONE = "workflow = ? AND number = ? AND attempt = ?"

_Work = Callable[[sqlite3.Connection], Any]


@dataclass(frozen=True, slots=True)
class Remembered:
    """An attempt as the record has it.

    `boot` identifies the machine's boot during which it was launched; `ending` is an encoded
    `cairn_runtime.room.Ending` when the driver itself judged it.
    """

    key: AttemptKey
    placement: int | None
    boot: str | None
    ending: bytes | None
    reported: bool


@dataclass(frozen=True, slots=True)
class Taken:
    """A placement as it was taken; `body` is the encoded GroupPlacement."""

    number: int
    body: bytes
    traceparent: str | None
    accepted_at: float


class Record:
    """The file, and the thread that writes it.

    What is awaited raises ClusterError when the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._queue: queue.SimpleQueue[tuple[_Work, asyncio.Future[Any]] | None]
        self._queue = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def open(self) -> tuple[list[Taken], list[Remembered], list[Identity]]:
        """Opens or makes the file; returns all that it remembers, and what was settled of late."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._write, name="local-record", daemon=True)
        self._thread.start()
        found: tuple[list[Taken], list[Remembered], list[Identity]] = await self._do(_load)
        return found

    async def close(self) -> None:
        """Writes what waits, and closes."""
        if self._thread is not None:
            self._queue.put(None)
            await asyncio.to_thread(self._thread.join)
            self._thread = None

    async def add(
        self, body: bytes, traceparent: str | None, at: float, keys: Sequence[AttemptKey]
    ) -> int:
        """Remembers a placement; on the disk when this returns. Returns its number."""

        def work(connection: sqlite3.Connection) -> int:
            row = connection.execute(
                "INSERT INTO placements (body, traceparent, accepted_at) VALUES (?, ?, ?)",
                (body, traceparent, at),
            )
            connection.executemany(
                "INSERT OR IGNORE INTO attempts (workflow, number, attempt, name, placement) "
                "VALUES (?, ?, ?, ?, ?)",
                [(*identity(key), key.name, row.lastrowid) for key in keys],
            )
            return row.lastrowid or 0

        number: int = await self._do(work)
        return number

    def launched(self, keys: Sequence[AttemptKey], boot: str) -> None:
        """Remembers, soon, that attempts were launched."""
        self._post(
            lambda connection: connection.executemany(
                f"UPDATE attempts SET boot = ? WHERE {_ONE}",  # noqa: S608
                [(boot, *identity(key)) for key in keys],
            )
        )

    async def judge(self, endings: Iterable[tuple[AttemptKey, bytes]]) -> None:
        """Remembers how attempts ended that left no ending themselves, known before or not."""
        rows = [(*identity(key), key.name, ending) for key, ending in endings]
        await self._do(
            lambda connection: connection.executemany(
                "INSERT INTO attempts (workflow, number, attempt, name, ending) "
                "VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT DO UPDATE SET ending = excluded.ending WHERE ending IS NULL",
                rows,
            )
        )

    def reported(self, key: AttemptKey) -> None:
        """Remembers, soon, that an attempt's end was reported."""
        self._post(
            lambda connection: connection.execute(
                f"UPDATE attempts SET reported = 1 WHERE {_ONE}",  # noqa: S608
                identity(key),
            )
        )

    async def forget(self, keys: Sequence[AttemptKey]) -> None:
        """Forgets attempts, and the placements of which nothing is left."""

        def work(connection: sqlite3.Connection) -> None:
            for key in keys:
                gone = connection.execute(
                    f"DELETE FROM attempts WHERE {_ONE} RETURNING placement",  # noqa: S608
                    identity(key),
                ).fetchone()
                if gone and gone[0] is not None:
                    connection.execute(
                        "DELETE FROM placements WHERE id = ?1 AND NOT EXISTS "
                        "(SELECT 1 FROM attempts WHERE placement = ?1)",
                        gone,
                    )
            connection.executemany(
                "INSERT INTO settled (workflow, number, attempt) VALUES (?, ?, ?)",
                [identity(key) for key in keys],
            )
            connection.execute(
                "DELETE FROM settled WHERE id <= (SELECT max(id) FROM settled) - ?",
                (SETTLED_KEPT,),
            )

        await self._do(work)

    def _do(self, work: _Work) -> asyncio.Future[Any]:
        assert self._loop is not None
        future: asyncio.Future[Any] = self._loop.create_future()
        self._queue.put((work, future))
        return future

    def _post(self, work: _Work) -> None:
        # Nobody waits for it; without this a failure would be "never retrieved".
        self._do(work).add_done_callback(lambda future: future.cancelled() or future.exception())

    # --- in the thread ---

    def _write(self) -> None:
        connection = sqlite3.connect(self._path, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.executescript(_SCHEMA)
            while (item := self._queue.get()) is not None:
                batch = [item]
                last = False
                while len(batch) < _MOST_AT_ONCE and not self._queue.empty():
                    item = self._queue.get()
                    if item is None:
                        last = True
                        break
                    batch.append(item)
                self._commit(connection, batch)
                if last:
                    return
        finally:
            connection.close()

    def _commit(
        self, connection: sqlite3.Connection, batch: list[tuple[_Work, asyncio.Future[Any]]]
    ) -> None:
        results: list[Any] = []
        failure: sqlite3.Error | None = None
        try:
            connection.execute("BEGIN IMMEDIATE")
            results.extend(work(connection) for work, _ in batch)
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            failure = error
            if connection.in_transaction:
                connection.execute("ROLLBACK")

        def answer() -> None:
            for place, (_, future) in enumerate(batch):
                if future.done():
                    continue
                if failure is not None:
                    future.set_exception(ClusterError(f"{self._path}: {failure}"))
                else:
                    future.set_result(results[place])

        assert self._loop is not None
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(answer)


def _load(
    connection: sqlite3.Connection,
) -> tuple[list[Taken], list[Remembered], list[Identity]]:
    placements = [
        Taken(*row)
        for row in connection.execute(
            "SELECT id, body, traceparent, accepted_at FROM placements ORDER BY id"
        )
    ]
    attempts = [
        Remembered(AttemptKey(*row[:4]), row[4], row[5], row[6], bool(row[7]))
        for row in connection.execute(
            "SELECT workflow, number, attempt, name, placement, boot, ending, reported "
            "FROM attempts ORDER BY placement, number"
        )
    ]
    settled = connection.execute("SELECT workflow, number, attempt FROM settled ORDER BY id")
    return placements, attempts, [(row[0], row[1], row[2]) for row in settled]
