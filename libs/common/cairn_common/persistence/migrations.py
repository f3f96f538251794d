"""Alembic, run by the service that owns the schema, each time it starts.

An advisory lock lets one of several starting processes migrate while the others wait. Every
owner keeps its revisions in a package of its own and its version table in its own schema. A
revision's file begins with its number (`0001_initial.py`, revision "0001"), so that a schema
which is up to date is seen at once, without loading Alembic.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg

from cairn_common.persistence.database import sqlalchemy_url

if TYPE_CHECKING:
    from sqlalchemy import Connection


async def migrate(url: str, schema: str, revisions: Path) -> str:
    """Bring `schema` to its newest revision; returns that revision's name.

    Args:
        url: the database, as for `connect_database`.
        schema: the owner's schema, created if missing.
        revisions: the folder that holds Alembic's `versions` folder.
    """
    newest = max(file.name.split("_")[0] for file in (revisions / "versions").glob("[0-9]*.py"))
    if await _present(url, schema) != newest:
        # Loading Alembic takes longer than everything else that a service does at its start.
        from sqlalchemy.ext.asyncio import create_async_engine
        from sqlalchemy.pool import NullPool

        engine = create_async_engine(sqlalchemy_url(url), poolclass=NullPool)
        try:
            async with engine.begin() as connection:
                await connection.run_sync(_upgrade, schema, revisions)
        finally:
            await engine.dispose()
    return newest


async def _present(url: str, schema: str) -> str | None:
    connection = await asyncpg.connect(url)
    try:
        revision: str | None = await connection.fetchval(
            f'SELECT version_num FROM "{schema}".alembic_version'  # noqa: S608 - our own name
        )
    except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError):
        return None
    finally:
        await connection.close()
    return revision


def _upgrade(connection: Connection, schema: str, revisions: Path) -> None:
    from alembic.migration import MigrationContext
    from alembic.operations import Operations
    from alembic.script import ScriptDirectory
    from sqlalchemy import text

    lock = zlib.crc32(f"cairn:{schema}".encode())
    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": lock})
    connection.execute(text(f'CREATE SCHEMA IF NOT EXISTS "{schema}"'))
    script = ScriptDirectory(str(revisions))
    context = MigrationContext.configure(
        connection,
        opts={
            "version_table_schema": schema,
            "fn": lambda current, _context: script._upgrade_revs("heads", current),
        },
    )
    with Operations.context(context):
        context.run_migrations()
