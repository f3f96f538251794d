"""The connection pool, and what its errors mean.

A database that is away and an engine that has not made its views yet are states that pass; the
rest of the API knows them by two exceptions of ours, not by the many of three libraries.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import orjson
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from cairn_common.persistence import TRANSIENT, sqlalchemy_url

_NO_SUCH_VIEW = (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError)
_AWAY: tuple[type[Exception], ...] = (PoolTimeoutError, *TRANSIENT)
_WAIT_SECONDS = 20.0


class UnavailableError(Exception):
    """The database cannot be asked at the moment."""


class NotStorableError(Exception):
    """A value of the request that no column can hold, such as a NUL character."""


class EngineMissingError(Exception):
    """The engine has never run on this database: its views are not there."""


def open_engine(url: str, connections: int) -> AsyncEngine:
    """A pool of at most `connections`; none is opened yet."""
    return create_async_engine(
        sqlalchemy_url(url),
        pool_size=connections,
        max_overflow=0,
        pool_timeout=_WAIT_SECONDS,
        # After a restart of the server, connections of the pool are dead without knowing it.
        pool_pre_ping=True,
        json_serializer=lambda value: orjson.dumps(value).decode(),
        json_deserializer=orjson.loads,
        connect_args={"server_settings": {"timezone": "UTC"}, "command_timeout": 60},
    )


@asynccontextmanager
async def session_of(engine: AsyncEngine) -> AsyncIterator[AsyncSession]:
    """A session in a transaction that commits at the end.

    Raises:
        UnavailableError: the database is away, restarting or full.
        EngineMissingError: a view of the engine is missing.
        NotStorableError: a value fits no column.
    """
    try:
        async with AsyncSession(engine, expire_on_commit=False) as session, session.begin():
            yield session
    except DBAPIError as error:
        cause = error.orig.__cause__ if error.orig is not None else None
        if isinstance(cause, _NO_SUCH_VIEW):
            raise EngineMissingError(str(cause)) from error
        if isinstance(cause, asyncpg.DataError):
            raise NotStorableError(str(cause)) from error
        if error.connection_invalidated or isinstance(cause, TRANSIENT):
            raise UnavailableError(str(cause or error)) from error
        raise
    except _AWAY as error:
        raise UnavailableError(str(error) or type(error).__name__) from error
