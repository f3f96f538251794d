"""Numbers, submissions and hand-overs; the view that the engine reads.

Revision: 0001
"""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

STATEMENTS = (
    """
    CREATE TABLE api.workflow_number (
        name text COLLATE "C" PRIMARY KEY,
        last bigint NOT NULL
    )
    """,
    """
    CREATE TABLE api.submission (
        workflow text COLLATE "C" PRIMARY KEY,
        uuid text NOT NULL UNIQUE,
        name text NOT NULL,
        user_name text NOT NULL,
        pool text NOT NULL,
        priority text NOT NULL,
        labels jsonb NOT NULL,
        traceparent text,
        submitted_at timestamptz NOT NULL,
        spec text NOT NULL,
        rendered text NOT NULL,
        template text,
        tags text[] NOT NULL DEFAULT '{}'
    )
    """,
    """
    CREATE TABLE api.handover (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        workflow text COLLATE "C" NOT NULL,
        kind text NOT NULL,
        subject text NOT NULL,
        headers jsonb NOT NULL,
        body text NOT NULL,
        sent_at timestamptz NOT NULL
    )
    """,
    "CREATE INDEX handover_by_time ON api.handover (sent_at)",
    """
    CREATE VIEW api.view_submission AS
    SELECT workflow, uuid, name, user_name, pool, priority, labels, traceparent, submitted_at, spec
    FROM api.submission
    """,
    "COMMENT ON VIEW api.view_submission IS 'Published: what the engine runs'",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP SCHEMA api CASCADE")
