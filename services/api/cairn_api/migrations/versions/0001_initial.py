"""Numbers, submissions, hand-overs, profiles; the view that the engine reads.

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
        parent text,
        warnings text[] NOT NULL DEFAULT '{}',
        tags text[] NOT NULL DEFAULT '{}',
        cpu bigint NOT NULL,
        gpu bigint NOT NULL,
        memory bigint NOT NULL,
        storage bigint NOT NULL
    )
    """,
    """
    COMMENT ON COLUMN api.submission.cpu
    IS 'What most tasks of the workflow ask for; the others have a row in task_request'
    """,
    """
    CREATE TABLE api.task_request (
        workflow text COLLATE "C" NOT NULL,
        task text COLLATE "C" NOT NULL,
        cpu bigint NOT NULL,
        gpu bigint NOT NULL,
        memory bigint NOT NULL,
        storage bigint NOT NULL,
        PRIMARY KEY (workflow, task)
    )
    """,
    # Lists are read from here, so that a workflow is listed as soon as its submission is answered.
    "CREATE INDEX submission_by_time ON api.submission (submitted_at DESC, workflow DESC)",
    """
    CREATE INDEX submission_by_user
    ON api.submission (user_name, submitted_at DESC, workflow DESC)
    """,
    "CREATE INDEX submission_by_tag ON api.submission USING gin (tags)",
    "CREATE INDEX submission_by_label ON api.submission USING gin (labels)",
    """
    CREATE TABLE api.handover (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        workflow text COLLATE "C" NOT NULL,
        kind text NOT NULL,
        subject text NOT NULL,
        headers jsonb NOT NULL,
        body text NOT NULL,
        tries integer NOT NULL DEFAULT 0,
        due_at timestamptz NOT NULL
    )
    """,
    "CREATE INDEX handover_by_time ON api.handover (due_at)",
    """
    CREATE TABLE api.profile (
        user_name text PRIMARY KEY,
        pool text,
        email_notification boolean,
        slack_notification boolean
    )
    """,
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
