"""The statements of the engine's hot path. Each works on a whole batch through arrays.

`SAVE` is a whole transaction in one statement: fence, rows, outbox. It costs one round trip, and
whoever has lost a partition changes nothing with it.

The column lists stand in the order of the fields of the core's dataclasses, which is how rows
become entities.
"""

from __future__ import annotations

from typing import Final

WORKFLOW_COLUMNS: Final = (
    "id, uuid, status, cluster, pool, submitted_at, groups_total, groups_open, parent, "
    "traceparent, groups_active, tasks_completed, tasks_failed, failures, started_at, ended_at, "
    "cancel_by, cancel_message, cancel_force, cause"
)
GROUP_COLUMNS: Final = (
    "workflow, index, name, uuid, status, unmet, downstream, first_task, size, open, lead, "
    "cluster, ignore_nonlead, exec_timeout, queue_timeout, active, restarting, offered, offers, "
    "tally, verdict, message, processing_at, scheduling_at, initializing_at, started_at, ended_at, "
    "offer_at, queue_deadline, start_deadline, exec_deadline, retry_at, drain_deadline, "
    "linger_until"
)
TASK_COLUMNS: Final = (
    "workflow, index, attempt, group_index, name, uuid, lead, status, max_retries, exit_actions, "
    "exit_code, reason, message, node, processing_at, scheduling_at, initializing_at, started_at, "
    "ended_at, retry_at, archived, reported, cluster, location"
)

_T_COLUMNS: Final = ", ".join(f"t.{column.strip()}" for column in TASK_COLUMNS.split(","))

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
SELECT {_T_COLUMNS}
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

CLOCKS: Final = """
SELECT g.workflow, g.index, g.due_at
FROM engine.workflow AS w
JOIN engine.task_group AS g ON g.workflow = w.id
WHERE w.partition = ANY($1::smallint[]) AND w.ended_at IS NULL AND g.due_at IS NOT NULL
"""

_TASK_CHANGES: Final = (
    ("status", "text"), ("exit_code", "int"), ("reason", "text"), ("message", "text"),
    ("node", "text"), ("processing_at", "timestamptz"), ("scheduling_at", "timestamptz"),
    ("initializing_at", "timestamptz"), ("started_at", "timestamptz"),
    ("ended_at", "timestamptz"), ("retry_at", "timestamptz"), ("archived", "bool"),
    ("reported", "bool"), ("cluster", "text"),
)  # fmt: skip
_GROUP_CHANGES: Final = (
    ("status", "text"), ("unmet", "int"), ("open", "int"), ("cluster", "text"),
    ("active", "bool"), ("restarting", "bool"), ("offered", "int"), ("offers", "int"),
    ("tally", "jsonb"), ("verdict", "text"), ("message", "text"),
    ("processing_at", "timestamptz"), ("scheduling_at", "timestamptz"),
    ("initializing_at", "timestamptz"), ("started_at", "timestamptz"),
    ("ended_at", "timestamptz"), ("offer_at", "timestamptz"),
    ("queue_deadline", "timestamptz"), ("start_deadline", "timestamptz"),
    ("exec_deadline", "timestamptz"), ("retry_at", "timestamptz"),
    ("drain_deadline", "timestamptz"), ("linger_until", "timestamptz"),
    ("due_at", "timestamptz"),
)  # fmt: skip
_WORKFLOW_CHANGES: Final = (
    ("status", "text"), ("groups_open", "int"), ("groups_active", "int"),
    ("tasks_completed", "int"), ("tasks_failed", "int"), ("failures", "jsonb"),
    ("started_at", "timestamptz"), ("ended_at", "timestamptz"), ("cancel_by", "text"),
    ("cancel_message", "text"), ("cancel_force", "bool"), ("cause", "text"),
)  # fmt: skip


def _update(
    table: str,
    keys: tuple[tuple[str, str], ...],
    changes: tuple[tuple[str, str], ...],
    first: int,
) -> str:
    """An UPDATE of many rows from one array for each column; arguments count from `first`."""
    columns = keys + changes
    arrays = ", ".join(f"${first + n}::{kind}[]" for n, (_, kind) in enumerate(columns))
    return f"""
    UPDATE engine.{table} AS row SET {", ".join(f"{name} = n.{name}" for name, _ in changes)}
    FROM unnest({arrays}) AS n ({", ".join(name for name, _ in columns)}), held
    WHERE held.all_of_them AND {" AND ".join(f"row.{name} = n.{name}" for name, _ in keys)}
    """


_TASK_KEY: Final = (("workflow", "text"), ("index", "int"), ("attempt", "int"))
_GROUP_KEY: Final = (("workflow", "text"), ("index", "int"))
_WORKFLOW_KEY: Final = (("id", "text"),)
_TASKS_FROM: Final = 7
_GROUPS_FROM: Final = _TASKS_FROM + len(_TASK_KEY + _TASK_CHANGES)
_WORKFLOWS_FROM: Final = _GROUPS_FROM + len(_GROUP_KEY + _GROUP_CHANGES)

SAVE: Final = f"""
WITH held AS MATERIALIZED (
    SELECT count(*) = cardinality($2::smallint[]) AS all_of_them FROM (
        SELECT 1 FROM engine.lease
        JOIN unnest($2::smallint[], $3::bigint[]) AS mine (partition, epoch)
          USING (partition, epoch)
        WHERE owner = $1
        FOR SHARE OF lease
    ) AS rows
), tasks AS ({_update("task", _TASK_KEY, _TASK_CHANGES, _TASKS_FROM)}
), groups AS ({_update("task_group", _GROUP_KEY, _GROUP_CHANGES, _GROUPS_FROM)}
), workflows AS ({_update("workflow", _WORKFLOW_KEY, _WORKFLOW_CHANGES, _WORKFLOWS_FROM)}
), forgotten AS (
    DELETE FROM engine.outbox WHERE id = ANY($4::bigint[])
), said AS (
    INSERT INTO engine.outbox (partitions, messages)
    SELECT $5::smallint[], $6::bytea FROM held WHERE all_of_them AND $6 IS NOT NULL
    RETURNING id
)
SELECT (SELECT all_of_them FROM held) AS held, (SELECT id FROM said) AS outbox
"""
"""Owner, partitions, epochs; outbox rows to delete, the partitions and messages of a new one;
then the changed tasks, groups and workflows, an array for each column."""

INSERT_TASKS: Final = f"""
INSERT INTO engine.task ({TASK_COLUMNS})
SELECT {TASK_COLUMNS.replace("exit_actions", "exit_actions::jsonb")} FROM unnest(
    $1::text[], $2::int[], $3::int[], $4::int[], $5::text[], $6::text[], $7::bool[], $8::text[],
    $9::int[], $10::text[], $11::int[], $12::text[], $13::text[], $14::text[],
    $15::timestamptz[], $16::timestamptz[], $17::timestamptz[], $18::timestamptz[],
    $19::timestamptz[], $20::timestamptz[], $21::bool[], $22::bool[], $23::text[], $24::text[]
) AS new ({TASK_COLUMNS})
ON CONFLICT DO NOTHING
"""

INSERT_WORKFLOWS: Final = """
INSERT INTO engine.workflow (
    id, partition, uuid, name, user_name, pool, priority, cluster, labels, traceparent, parent,
    submitted_at, exec_timeout, queue_timeout, groups_total, tasks_total, status, groups_open,
    groups_active, tasks_completed, tasks_failed, failures, cancel_force
)
SELECT *, '{}', false FROM unnest(
    $1::text[], $2::smallint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
    $8::text[], $9::jsonb[], $10::text[], $11::text[], $12::timestamptz[], $13::float8[],
    $14::float8[], $15::int[], $16::int[], $17::text[], $18::int[], $19::int[], $20::int[],
    $21::int[]
)
"""

NEW_GROUP_COLUMNS: Final = (
    *(name.strip() for name in GROUP_COLUMNS.split(",")), "partition", "upstream", "due_at",
)  # fmt: skip
NEW_TASK_COLUMNS: Final = tuple(name.strip() for name in TASK_COLUMNS.split(","))

LOAD_BODIES: Final = """
SELECT workflow, index, body FROM unnest($1::text[], $2::int[]) AS k (w, i)
JOIN engine.group_body ON workflow = w AND index = i
"""

LOAD_LOCATIONS: Final = """
SELECT DISTINCT ON (workflow, index) workflow, index, attempt, location, cluster
FROM unnest($1::text[], $2::int[]) AS k (w, i)
JOIN engine.task ON workflow = w AND index = i
WHERE status = 'COMPLETED'
ORDER BY workflow, index, attempt DESC
"""

LOAD_SUBMISSIONS: Final = """
SELECT workflow, uuid, name, user_name, pool, priority, labels, traceparent, submitted_at,
       CASE WHEN sum(octet_length(spec)) OVER (ORDER BY workflow) - octet_length(spec) < $2
            THEN spec END AS spec,
       restarts
FROM api.view_submission WHERE workflow = ANY($1::text[])
"""
"""Specifications of so many bytes and one more; the rest without. None is read for its length."""

KNOWN_WORKFLOWS: Final = "SELECT id FROM engine.workflow WHERE id = ANY($1::text[])"

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

LOAD_FOLLOW_UPS: Final = """
SELECT id, body FROM engine.follow_up WHERE partition = ANY($1::smallint[]) ORDER BY id LIMIT $2
"""

DELETE_FOLLOW_UPS: Final = "DELETE FROM engine.follow_up WHERE id = ANY($1::bigint[])"

ANOMALIES_KEPT: Final = 10_000
DROP_OLD_ANOMALIES: Final = """
DELETE FROM engine.anomaly WHERE id <= (SELECT max(id) FROM engine.anomaly) - $1::bigint
"""

INSERT_ANOMALIES: Final = """
INSERT INTO engine.anomaly (at, workflow, what, story)
SELECT now(), * FROM unnest($1::text[], $2::text[], $3::text[])
"""

OPEN_ATTEMPTS: Final = """
SELECT t.workflow, t.index, t.attempt, t.name, t.status
FROM engine.workflow AS w
JOIN engine.task AS t ON t.workflow = w.id
WHERE w.ended_at IS NULL AND t.ended_at IS NULL AND t.cluster = $1
  AND t.status IN ('SCHEDULING', 'INITIALIZING', 'RUNNING')
  AND (t.workflow, t.index) > ($2, $3)
ORDER BY t.workflow, t.index LIMIT $4
"""

QUEUED_ELSEWHERE: Final = """
SELECT DISTINCT t.workflow, t.group_index
FROM engine.workflow AS w
JOIN engine.task AS t ON t.workflow = w.id
WHERE w.partition = ANY($1::smallint[]) AND w.ended_at IS NULL
  AND t.ended_at IS NULL AND t.status IN ('PROCESSING', 'SCHEDULING')
  AND (w.pool = ANY($2::text[]) AND (t.cluster IS NULL OR t.cluster <> ALL($3::text[]))
       OR t.cluster = ANY($4::text[]))
  AND (t.workflow, t.group_index) > ($5, $6)
ORDER BY t.workflow, t.group_index LIMIT $7
"""
"""Groups of these pools with something queued in none of these clusters, or of any pool in one of
those: a page."""

ON_NODES_OF: Final = """
SELECT DISTINCT t.workflow, t.group_index
FROM engine.workflow AS w
JOIN engine.task AS t ON t.workflow = w.id
WHERE w.partition = ANY($1::smallint[]) AND w.ended_at IS NULL
  AND t.ended_at IS NULL AND t.status IN ('INITIALIZING', 'RUNNING')
  AND t.cluster = ANY($2::text[])
  AND (t.workflow, t.group_index) > ($3, $4)
ORDER BY t.workflow, t.group_index LIMIT $5
"""
"""Groups with something on a node of one of these clusters: a page."""

COMPLETED_OF: Final = f"""
SELECT {_T_COLUMNS}, g.name AS group_name, w.uuid AS workflow_uuid
FROM engine.workflow AS w
JOIN engine.task_group AS g ON g.workflow = w.id
JOIN engine.task AS t
  ON t.workflow = g.workflow AND t.index >= g.first_task AND t.index < g.first_task + g.size
WHERE w.id = $1 AND g.status = 'COMPLETED' AND t.status <> 'RESCHEDULED'
ORDER BY t.index, t.attempt
"""
"""What a restart need not run again: the last attempt of each task of each completed group."""
