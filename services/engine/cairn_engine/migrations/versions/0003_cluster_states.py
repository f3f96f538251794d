"""The clusters that have registered, and their published view.

Revision: 0003
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

STATEMENTS = (
    """
    CREATE TABLE engine.cluster (
        name text COLLATE "C" PRIMARY KEY,
        state text NOT NULL,
        pools text[] NOT NULL,
        registered_at timestamptz NOT NULL,
        changed_at timestamptz NOT NULL
    )
    """,
    """
    CREATE VIEW engine.view_cluster AS
    SELECT name, state, pools, registered_at, changed_at
    FROM engine.cluster WHERE state <> 'REMOVED'
    """,
    "COMMENT ON VIEW engine.view_cluster IS 'Published: clusters, for reading by other services'",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    raise RuntimeError("to return to the older version, restore the backup made with it")
