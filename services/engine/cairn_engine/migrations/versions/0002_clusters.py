"""Clusters by attempt, retries by task, restarts; no index on what changes with every event.

Clocks are kept in memory by the partition's owner and read once when it takes the partition, so
`due_at` needs no index: rows that change no indexed column are updated in place (HOT), which is
half the cost of an update. What is in the outbox lives for milliseconds and is not worth
compressing.

Revision: 0002
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

STATEMENTS = (
    "DROP INDEX engine.task_group_due",
    """
    CREATE INDEX workflow_open ON engine.workflow (id, partition) WHERE ended_at IS NULL
    """,
    "ALTER TABLE engine.workflow ADD COLUMN parent text",
    "ALTER TABLE engine.task_group ADD COLUMN cluster text",
    """
    UPDATE engine.task_group AS g SET cluster = w.cluster
    FROM engine.workflow AS w WHERE w.id = g.workflow
    """,
    "ALTER TABLE engine.task_group ALTER COLUMN cluster SET NOT NULL",
    "ALTER TABLE engine.task ADD COLUMN max_retries integer",
    "ALTER TABLE engine.task ADD COLUMN cluster text",
    "ALTER TABLE engine.task ADD COLUMN location text",
    """
    UPDATE engine.task AS t SET
        max_retries = w.max_retries,
        cluster = CASE WHEN t.processing_at IS NOT NULL THEN w.cluster END
    FROM engine.workflow AS w WHERE w.id = t.workflow
    """,
    "ALTER TABLE engine.task ALTER COLUMN max_retries SET NOT NULL",
    "ALTER TABLE engine.workflow DROP COLUMN max_retries",
    """
    ALTER TABLE engine.outbox ALTER COLUMN messages TYPE bytea
    USING convert_to(messages, 'UTF8')
    """,
    "ALTER TABLE engine.outbox ALTER COLUMN messages SET STORAGE EXTERNAL",
    """
    CREATE OR REPLACE VIEW engine.view_workflow AS
    SELECT id, uuid, name, user_name, pool, priority, cluster, labels, status, submitted_at,
           started_at, ended_at, exec_timeout, queue_timeout, groups_total, tasks_total,
           tasks_completed, tasks_failed, cancel_by, cancel_message, cause, parent
    FROM engine.workflow
    """,
    """
    CREATE OR REPLACE VIEW engine.view_task AS
    SELECT workflow, index, attempt, group_index, name, uuid, lead, status, exit_code, reason,
           message, node, processing_at, scheduling_at, initializing_at, started_at, ended_at,
           cluster
    FROM engine.task
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    raise RuntimeError("to return to the older version, restore the backup made with it")
