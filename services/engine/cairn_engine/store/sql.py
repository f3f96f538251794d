"""The statements of the engine's hot path. Each works on a whole batch through arrays.

The column lists stand in the order of the fields of the core's dataclasses, which is how rows
become entities.
"""

from __future__ import annotations

from typing import Final

FENCE: Final = """
SELECT count(*) FROM (
    SELECT 1 FROM engine.lease
    JOIN unnest($2::smallint[], $3::bigint[]) AS mine (partition, epoch)
      USING (partition, epoch)
    WHERE owner = $1
    FOR SHARE OF lease
) AS held
"""

WORKFLOW_COLUMNS: Final = (
    "id, uuid, status, cluster, submitted_at, groups_total, groups_open, max_retries, "
    "traceparent, groups_active, tasks_completed, tasks_failed, failures, started_at, ended_at, "
    "cancel_by, cancel_message, cancel_force, cause"
)
GROUP_COLUMNS: Final = (
    "workflow, index, name, uuid, status, unmet, downstream, first_task, size, open, lead, "
    "ignore_nonlead, exec_timeout, queue_timeout, active, restarting, offered, offers, tally, "
    "verdict, message, processing_at, scheduling_at, initializing_at, started_at, ended_at, "
    "offer_at, queue_deadline, start_deadline, exec_deadline, retry_at, drain_deadline, "
    "linger_until"
)
TASK_COLUMNS: Final = (
    "workflow, index, attempt, group_index, name, uuid, lead, status, exit_actions, exit_code, "
    "reason, message, node, processing_at, scheduling_at, initializing_at, started_at, ended_at, "
    "retry_at, archived, reported"
)

LOAD_WORKFLOWS: Final = f"""
SELECT {WORKFLOW_COLUMNS} FROM engine.workflow WHERE id = ANY($1::text[])
"""

LOAD_TASKS: Final = f"""
SELECT {TASK_COLUMNS} FROM unnest($1::text[], $2::int[], $3::int[]) AS k (w, i, a)
JOIN engine.task ON workflow = w AND index = i AND attempt = a
"""

LOAD_GROUPS: Final = f"""
SELECT {GROUP_COLUMNS} FROM unnest($1::text[], $2::int[]) AS k (w, i)
JOIN engine.task_group ON workflow = w AND index = i
"""

LOAD_CURRENT_TASKS: Final = f"""
SELECT {", ".join(f"t.{column.strip()}" for column in TASK_COLUMNS.split(","))}
FROM unnest($1::text[], $2::int[]) AS k (w, g)
JOIN engine.task_group AS grp ON grp.workflow = w AND grp.index = g
CROSS JOIN LATERAL (
    SELECT DISTINCT ON (index) *
    FROM engine.task
    WHERE workflow = w AND index >= grp.first_task AND index < grp.first_task + grp.size
    ORDER BY index, attempt DESC
) AS t
"""

LOAD_PAGE: Final = """
SELECT index FROM engine.task_group
WHERE workflow = $1 AND index >= $2 AND ended_at IS NULL
ORDER BY index LIMIT $3
"""

DUE_GROUPS: Final = """
SELECT workflow, index FROM engine.task_group
WHERE partition = ANY($1::smallint[]) AND due_at <= $2
ORDER BY due_at LIMIT $3
"""

NEXT_DUE: Final = """
SELECT min(due_at) FROM engine.task_group WHERE partition = ANY($1::smallint[])
"""

SAVE_WORKFLOWS: Final = """
UPDATE engine.workflow AS w SET
    status = n.status, groups_open = n.groups_open, groups_active = n.groups_active,
    tasks_completed = n.tasks_completed, tasks_failed = n.tasks_failed, failures = n.failures,
    started_at = n.started_at, ended_at = n.ended_at, cancel_by = n.cancel_by,
    cancel_message = n.cancel_message, cancel_force = n.cancel_force, cause = n.cause
FROM unnest(
    $1::text[], $2::text[], $3::int[], $4::int[], $5::int[], $6::int[], $7::jsonb[],
    $8::timestamptz[], $9::timestamptz[], $10::text[], $11::text[], $12::bool[], $13::text[]
) AS n (id, status, groups_open, groups_active, tasks_completed, tasks_failed, failures,
        started_at, ended_at, cancel_by, cancel_message, cancel_force, cause)
WHERE w.id = n.id
"""

SAVE_GROUPS: Final = """
UPDATE engine.task_group AS g SET
    status = n.status, unmet = n.unmet, open = n.open, active = n.active,
    restarting = n.restarting, offered = n.offered, offers = n.offers, tally = n.tally,
    verdict = n.verdict, message = n.message, processing_at = n.processing_at,
    scheduling_at = n.scheduling_at, initializing_at = n.initializing_at,
    started_at = n.started_at, ended_at = n.ended_at, offer_at = n.offer_at,
    queue_deadline = n.queue_deadline, start_deadline = n.start_deadline,
    exec_deadline = n.exec_deadline, retry_at = n.retry_at, drain_deadline = n.drain_deadline,
    linger_until = n.linger_until, due_at = n.due_at
FROM unnest(
    $1::text[], $2::int[], $3::text[], $4::int[], $5::int[], $6::bool[], $7::bool[], $8::int[],
    $9::int[], $10::jsonb[], $11::text[], $12::text[], $13::timestamptz[], $14::timestamptz[],
    $15::timestamptz[], $16::timestamptz[], $17::timestamptz[], $18::timestamptz[],
    $19::timestamptz[], $20::timestamptz[], $21::timestamptz[], $22::timestamptz[],
    $23::timestamptz[], $24::timestamptz[], $25::timestamptz[]
) AS n (workflow, index, status, unmet, open, active, restarting, offered, offers, tally,
        verdict, message, processing_at, scheduling_at, initializing_at, started_at, ended_at,
        offer_at, queue_deadline, start_deadline, exec_deadline, retry_at, drain_deadline,
        linger_until, due_at)
WHERE g.workflow = n.workflow AND g.index = n.index
"""

SAVE_TASKS: Final = """
UPDATE engine.task AS t SET
    status = n.status, exit_code = n.exit_code, reason = n.reason, message = n.message,
    node = n.node, processing_at = n.processing_at, scheduling_at = n.scheduling_at,
    initializing_at = n.initializing_at, started_at = n.started_at, ended_at = n.ended_at,
    retry_at = n.retry_at, archived = n.archived, reported = n.reported
FROM unnest(
    $1::text[], $2::int[], $3::int[], $4::text[], $5::int[], $6::text[], $7::text[], $8::text[],
    $9::timestamptz[], $10::timestamptz[], $11::timestamptz[], $12::timestamptz[],
    $13::timestamptz[], $14::timestamptz[], $15::bool[], $16::bool[]
) AS n (workflow, index, attempt, status, exit_code, reason, message, node, processing_at,
        scheduling_at, initializing_at, started_at, ended_at, retry_at, archived, reported)
WHERE t.workflow = n.workflow AND t.index = n.index AND t.attempt = n.attempt
"""

INSERT_TASKS: Final = f"""
INSERT INTO engine.task ({TASK_COLUMNS})
SELECT {TASK_COLUMNS.replace("exit_actions", "exit_actions::jsonb")} FROM unnest(
    $1::text[], $2::int[], $3::int[], $4::int[], $5::text[], $6::text[], $7::bool[], $8::text[],
    $9::text[], $10::int[], $11::text[], $12::text[], $13::text[], $14::timestamptz[],
    $15::timestamptz[], $16::timestamptz[], $17::timestamptz[], $18::timestamptz[],
    $19::timestamptz[], $20::bool[], $21::bool[]
) AS new ({TASK_COLUMNS})
ON CONFLICT DO NOTHING
"""

INSERT_WORKFLOWS: Final = """
INSERT INTO engine.workflow (
    id, partition, uuid, name, user_name, pool, priority, cluster, labels, traceparent, status,
    submitted_at, exec_timeout, queue_timeout, max_retries, groups_total, tasks_total,
    groups_open, groups_active, tasks_completed, tasks_failed, failures, cancel_force
)
SELECT *, 0, 0, 0, '{}', false FROM unnest(
    $1::text[], $2::smallint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
    $8::text[], $9::jsonb[], $10::text[], $11::text[], $12::timestamptz[], $13::float8[],
    $14::float8[], $15::int[], $16::int[], $17::int[], $18::int[]
)
ON CONFLICT DO NOTHING
RETURNING id
"""

NEW_GROUP_COLUMNS: Final = (
    "workflow", "index", "partition", "name", "uuid", "status", "unmet", "upstream",
    "downstream", "first_task", "size", "open", "lead", "ignore_nonlead", "exec_timeout",
    "queue_timeout", "active", "restarting", "offered", "offers", "tally",
)  # fmt: skip
NEW_TASK_COLUMNS: Final = (
    "workflow", "index", "attempt", "group_index", "name", "uuid", "lead", "status",
    "exit_actions", "archived", "reported",
)  # fmt: skip

LOAD_BODIES: Final = """
SELECT workflow, index, body FROM unnest($1::text[], $2::int[]) AS k (w, i)
JOIN engine.group_body ON workflow = w AND index = i
"""

LOAD_LOCATIONS: Final = """
SELECT DISTINCT ON (workflow, index) workflow, index, attempt
FROM unnest($1::text[], $2::int[]) AS k (w, i)
JOIN engine.task ON workflow = w AND index = i
WHERE status = 'COMPLETED'
ORDER BY workflow, index, attempt DESC
"""

LOAD_SUBMISSIONS: Final = """
SELECT workflow, uuid, name, user_name, pool, priority, labels, traceparent, submitted_at, spec
FROM api.view_submission WHERE workflow = ANY($1::text[])
"""

KNOWN_WORKFLOWS: Final = "SELECT id FROM engine.workflow WHERE id = ANY($1::text[])"

INSERT_OUTBOX: Final = """
INSERT INTO engine.outbox (partitions, messages) VALUES ($1::smallint[], $2) RETURNING id
"""

DELETE_OUTBOX: Final = "DELETE FROM engine.outbox WHERE id = ANY($1::bigint[])"

LEFT_IN_OUTBOX: Final = """
SELECT id, messages FROM engine.outbox
WHERE partitions && $1::smallint[] AND created_at < now() - make_interval(secs => $2)
ORDER BY id LIMIT 100
"""

INSERT_FOLLOW_UPS: Final = """
INSERT INTO engine.follow_up (partition, body)
SELECT * FROM unnest($1::smallint[], $2::jsonb[])
"""

TAKE_FOLLOW_UPS: Final = """
DELETE FROM engine.follow_up WHERE id IN (
    SELECT id FROM engine.follow_up WHERE partition = ANY($1::smallint[]) ORDER BY id LIMIT $2
)
RETURNING id, body
"""

INSERT_ANOMALIES: Final = """
INSERT INTO engine.anomaly (at, workflow, what, story)
SELECT $1, * FROM unnest($2::text[], $3::text[], $4::text[])
"""

OPEN_ATTEMPTS: Final = """
SELECT t.workflow, t.index, t.attempt, t.name, t.status
FROM engine.workflow AS w
JOIN engine.task AS t ON t.workflow = w.id
WHERE w.cluster = $1 AND w.ended_at IS NULL AND t.ended_at IS NULL
  AND t.status IN ('SCHEDULING', 'INITIALIZING', 'RUNNING')
  AND (t.workflow, t.index) > ($2, $3)
ORDER BY t.workflow, t.index LIMIT $4
"""
