"""Alembic, run by the service that owns the schema, each time it starts.

An advisory lock lets one of several starting processes migrate while the others wait. Every
owner keeps its revisions in a package of its own and its version table in its own schema.
"""

from __future__ import annotations

import zlib
from pathlib import Path

from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from cairn_common.persistence.database import sqlalchemy_url


async def migrate(url: str, schema: str, revisions: Path) -> str | None:
    """Bring `schema` to its newest revision; returns that revision's name.

    Args:
        url: the database, as for `connect_database`.
        schema: the owner's schema, created if missing.
        revisions: the folder that holds Alembic's `versions` folder.
    """
    engine = create_async_engine(sqlalchemy_url(url), poolclass=NullPool)
    try:
        async with engine.begin() as connection:
            return await connection.run_sync(_upgrade, schema, revisions)
    finally:
        await engine.dispose()


def _upgrade(connection: Connection, schema: str, revisions: Path) -> str | None:
    lock = zlib.crc32(f"cairn:{schema}".encode())
    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": lock})
    connection.execute(text(f'CREATE SCHEMA IF NOT EXISTS "{schema}"'))
    script = ScriptDirectory(str(revisions))
    head = script.get_current_head()
    context = MigrationContext.configure(
        connection,
        opts={
            "version_table_schema": schema,
            "fn": lambda current, _context: script._upgrade_revs("heads", current),
        },
    )
    with Operations.context(context):
        context.run_migrations()
    return head
