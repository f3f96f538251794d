"""Workflows that restart an earlier one.

Revision: 0002
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

STATEMENTS = (
    "ALTER TABLE api.submission ADD COLUMN restarts text",
    """
    CREATE OR REPLACE VIEW api.view_submission AS
    SELECT workflow, uuid, name, user_name, pool, priority, labels, traceparent, submitted_at, spec,
           restarts
    FROM api.submission
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    raise RuntimeError("to return to the older version, restore the backup made with it")
