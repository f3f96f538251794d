"""Lists stay fast over millions of workflows: by a part of the id, and by pool.

The extension pg_trgm comes with PostgreSQL and may be created by the owner of a database; it finds
a part of a text by the groups of three letters in it.

Revision: 0003
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

STATEMENTS = (
    "CREATE EXTENSION IF NOT EXISTS pg_trgm WITH SCHEMA public",
    """
    CREATE INDEX submission_by_part
    ON api.submission USING gin (workflow public.gin_trgm_ops)
    """,
    """
    CREATE INDEX submission_by_pool
    ON api.submission (pool, submitted_at DESC, workflow DESC)
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    raise RuntimeError("to return to the older version, restore the backup made with it")
