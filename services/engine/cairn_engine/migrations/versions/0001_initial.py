"""Workflows, groups, task attempts, outbox, follow-ups, leases, anomalies; the published views.

Revision: 0001
"""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

STATEMENTS = (
    """
    CREATE TABLE engine.workflow (
        id text COLLATE "C" PRIMARY KEY,
        partition smallint NOT NULL,
        uuid text NOT NULL,
        name text NOT NULL,
        user_name text NOT NULL,
        pool text NOT NULL,
        priority text NOT NULL,
        cluster text NOT NULL,
        labels jsonb NOT NULL,
        traceparent text,
        status text NOT NULL,
        submitted_at timestamptz NOT NULL,
        started_at timestamptz,
        ended_at timestamptz,
        exec_timeout double precision,
        queue_timeout double precision,
        max_retries integer NOT NULL,
        groups_total integer NOT NULL,
        tasks_total integer NOT NULL,
        groups_open integer NOT NULL,
        groups_active integer NOT NULL,
        tasks_completed integer NOT NULL,
        tasks_failed integer NOT NULL,
        failures jsonb NOT NULL,
        cancel_by text,
        cancel_message text,
        cancel_force boolean NOT NULL,
        cause text
    ) WITH (fillfactor = 70)
    """,
    "CREATE INDEX workflow_by_time ON engine.workflow (submitted_at DESC, id)",
    "CREATE INDEX workflow_by_user ON engine.workflow (user_name, submitted_at DESC)",
    "CREATE INDEX workflow_by_name ON engine.workflow (name, submitted_at DESC)",
    """
    CREATE TABLE engine.task_group (
        workflow text COLLATE "C" NOT NULL,
        index integer NOT NULL,
        partition smallint NOT NULL,
        name text NOT NULL,
        uuid text NOT NULL,
        status text NOT NULL,
        unmet integer NOT NULL,
        upstream integer[] NOT NULL,
        downstream integer[] NOT NULL,
        first_task integer NOT NULL,
        size integer NOT NULL,
        open integer NOT NULL,
        lead integer NOT NULL,
        ignore_nonlead boolean NOT NULL,
        exec_timeout double precision,
        queue_timeout double precision,
        active boolean NOT NULL,
        restarting boolean NOT NULL,
        offered integer NOT NULL,
        offers integer NOT NULL,
        tally jsonb NOT NULL,
        verdict text,
        message text,
        processing_at timestamptz,
        scheduling_at timestamptz,
        initializing_at timestamptz,
        started_at timestamptz,
        ended_at timestamptz,
        offer_at timestamptz,
        queue_deadline timestamptz,
        start_deadline timestamptz,
        exec_deadline timestamptz,
        retry_at timestamptz,
        drain_deadline timestamptz,
        linger_until timestamptz,
        due_at timestamptz,
        PRIMARY KEY (workflow, index)
    ) WITH (fillfactor = 60)
    """,
    """
    CREATE INDEX task_group_due ON engine.task_group (partition, due_at)
    WHERE due_at IS NOT NULL
    """,
    """
    CREATE TABLE engine.group_body (
        workflow text COLLATE "C" NOT NULL,
        index integer NOT NULL,
        body text NOT NULL,
        PRIMARY KEY (workflow, index)
    )
    """,
    """
    CREATE TABLE engine.task (
        workflow text COLLATE "C" NOT NULL,
        index integer NOT NULL,
        attempt integer NOT NULL,
        group_index integer NOT NULL,
        name text NOT NULL,
        uuid text NOT NULL,
        lead boolean NOT NULL,
        status text NOT NULL,
        exit_actions jsonb,
        exit_code integer,
        reason text,
        message text,
        node text,
        processing_at timestamptz,
        scheduling_at timestamptz,
        initializing_at timestamptz,
        started_at timestamptz,
        ended_at timestamptz,
        retry_at timestamptz,
        archived boolean NOT NULL,
        reported boolean NOT NULL,
        PRIMARY KEY (workflow, index, attempt)
    ) WITH (fillfactor = 60)
    """,
    """
    CREATE TABLE engine.outbox (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        partitions smallint[] NOT NULL,
        messages text NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now()
    )
    """,
    """
    CREATE TABLE engine.follow_up (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        partition smallint NOT NULL,
        body jsonb NOT NULL
    )
    """,
    "CREATE INDEX follow_up_partition ON engine.follow_up (partition, id)",
    """
    CREATE TABLE engine.lease (
        partition smallint PRIMARY KEY,
        owner text NOT NULL,
        epoch bigint NOT NULL,
        expires_at timestamptz NOT NULL
    )
    """,
    """
    CREATE TABLE engine.member (
        owner text PRIMARY KEY,
        seen_at timestamptz NOT NULL
    )
    """,
    """
    CREATE TABLE engine.anomaly (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        at timestamptz NOT NULL,
        workflow text NOT NULL,
        what text NOT NULL,
        story text NOT NULL
    )
    """,
    """
    CREATE VIEW engine.view_workflow AS
    SELECT id, uuid, name, user_name, pool, priority, cluster, labels, status, submitted_at,
           started_at, ended_at, exec_timeout, queue_timeout, groups_total, tasks_total,
           tasks_completed, tasks_failed, cancel_by, cancel_message, cause
    FROM engine.workflow
    """,
    """
    CREATE VIEW engine.view_group AS
    SELECT workflow, index, name, uuid, status, message, upstream, downstream, unmet, size,
           processing_at, scheduling_at, initializing_at, started_at, ended_at
    FROM engine.task_group
    """,
    """
    CREATE VIEW engine.view_task AS
    SELECT workflow, index, attempt, group_index, name, uuid, lead, status, exit_code, reason,
           message, node, processing_at, scheduling_at, initializing_at, started_at, ended_at
    FROM engine.task
    """,
    "COMMENT ON VIEW engine.view_workflow IS 'Published: workflows, for reading by other services'",
    "COMMENT ON VIEW engine.view_group IS 'Published: groups, for reading by other services'",
    "COMMENT ON VIEW engine.view_task IS 'Published: task attempts, for reading by others'",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP SCHEMA engine CASCADE")
