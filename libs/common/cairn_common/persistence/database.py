"""A pool of asyncpg connections.

Hot paths speak asyncpg itself: a batch is one statement over arrays (`unnest`), which is ten
times what an ORM's unit of work reaches (COMPONENTS, section 2). The tables are declared with
SQLModel and made by Alembic; `sqlalchemy_url` gives those two the same server.
"""

from __future__ import annotations

import asyncio
from typing import Any, TypeAlias
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import orjson

Database: TypeAlias = "asyncpg.Pool[asyncpg.Record]"
Row: TypeAlias = asyncpg.Record

TRANSIENT: tuple[type[Exception], ...] = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # a connection that broke in the middle of something
    asyncpg.exceptions.OperatorInterventionError,  # CannotConnectNowError among them
    asyncpg.exceptions.InsufficientResourcesError,
    asyncpg.exceptions.TransactionRollbackError,
    OSError,
    asyncio.TimeoutError,
)
"""Errors of a database that is away, restarting or full: the same call may succeed later."""


async def connect_database(url: str, *, size: int = 8, patience: float = 30.0) -> Database:
    """Open a pool of at most `size` connections; waits for a server that is still starting.

    Args:
        url: `postgresql://…`, as libpq writes it, a unix socket as `?host=/folder`.
        size: the most connections that are open at once.
        patience: seconds to go on trying.

    Raises:
        OSError or asyncpg.PostgresError: nobody answered in that time.
    """
    deadline = asyncio.get_running_loop().time() + patience
    while True:
        try:
            return await asyncpg.create_pool(
                url,
                min_size=1,
                max_size=size,
                init=_teach_json,
                reset=_nothing,
                command_timeout=60,
                # Statements are few and their arguments are arrays: planned once is planned well.
                server_settings={"timezone": "UTC", "plan_cache_mode": "force_generic_plan"},
            )
        except TRANSIENT:
            if asyncio.get_running_loop().time() > deadline:
                raise
            await asyncio.sleep(0.1)


async def _nothing(_: asyncpg.Connection[Any]) -> None:
    """Nobody leaves state in a session here, and a reset is a round trip after every statement."""


async def _teach_json(connection: asyncpg.Connection[Any]) -> None:
    await connection.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        format="binary",
        encoder=lambda value: b"\x01" + orjson.dumps(value),
        decoder=lambda value: orjson.loads(value[1:]),
    )


def sqlalchemy_url(url: str) -> str:
    """The same server for SQLAlchemy: `postgresql+asyncpg://…`."""
    return urlunsplit(urlsplit(url)._replace(scheme="postgresql+asyncpg"))
