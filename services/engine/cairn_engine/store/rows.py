"""From rows to entities and back. Columns stand in the order of the entities' fields."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from cairn_common.events import Envelope, partition_of
from cairn_common.persistence import Row
from cairn_common.status import TaskStatus, WorkflowStatus
from cairn_engine.core import Group, Task, Workflow
from cairn_engine.core.plan import Plan

Columns = list[Sequence[Any]]

TASK_WIDTH = len(dataclasses.fields(Task))


def to_workflow(row: Row) -> Workflow:
    """A row of `LOAD_WORKFLOWS`."""
    values = list(row.values())
    values[2] = WorkflowStatus(values[2])
    return Workflow(*values)


def to_group(row: Row) -> Group:
    """A row of `LOAD_GROUPS`."""
    values = list(row.values())
    values[4] = TaskStatus(values[4])
    if values[20] is not None:
        values[20] = TaskStatus(values[20])
    return Group(*values)


def to_task(row: Row) -> Task:
    """A row that begins with `TASK_COLUMNS`."""
    values = list(row.values())[:TASK_WIDTH]
    values[7] = TaskStatus(values[7])
    return Task(*values)


def columns(rows: Iterable[tuple[Any, ...]], width: int) -> Columns:
    """Rows to the arrays, one for each column, that `unnest` wants."""
    return list(zip(*rows, strict=True)) or [()] * width


def task_changes(tasks: Iterable[Task]) -> Columns:
    """What `SAVE` writes of tasks."""
    return columns(
        (
            (t.workflow, t.index, t.attempt, t.status._value_, t.exit_code, t.reason, t.message,
             t.node, t.processing_at, t.scheduling_at, t.initializing_at, t.started_at,
             t.ended_at, t.retry_at, t.archived, t.reported, t.cluster)
            for t in tasks
        ),
        17,
    )  # fmt: skip


def group_changes(groups: Iterable[Group]) -> Columns:
    """What `SAVE` writes of groups."""
    return columns(
        (
            (g.workflow, g.index, g.status._value_, g.unmet, g.open, g.cluster, g.active,
             g.restarting, g.offered, g.offers, g.tally, g.verdict and g.verdict._value_,
             g.message, g.processing_at, g.scheduling_at, g.initializing_at, g.started_at,
             g.ended_at, g.offer_at, g.queue_deadline, g.start_deadline, g.exec_deadline,
             g.retry_at, g.drain_deadline, g.linger_until, g.due_at)
            for g in groups
        ),
        26,
    )  # fmt: skip


def workflow_changes(workflows: Iterable[Workflow]) -> Columns:
    """What `SAVE` writes of workflows."""
    return columns(
        (
            (w.id, w.status._value_, w.groups_open, w.groups_active, w.tasks_completed,
             w.tasks_failed, w.failures, w.started_at, w.ended_at, w.cancel_by,
             w.cancel_message, w.cancel_force, w.cause)
            for w in workflows
        ),
        13,
    )  # fmt: skip


def new_group(group: Group, upstream: list[int]) -> tuple[Any, ...]:
    """A whole row of `task_group`, in the order of `NEW_GROUP_COLUMNS`."""
    g = group
    return (
        g.workflow, g.index, g.name, g.uuid, g.status._value_, g.unmet, g.downstream,
        g.first_task, g.size, g.open, g.lead, g.cluster, g.ignore_nonlead, g.exec_timeout,
        g.queue_timeout, g.active, g.restarting, g.offered, g.offers, g.tally,
        g.verdict and g.verdict._value_, g.message, g.processing_at, g.scheduling_at,
        g.initializing_at, g.started_at, g.ended_at, g.offer_at, g.queue_deadline,
        g.start_deadline, g.exec_deadline, g.retry_at, g.drain_deadline, g.linger_until,
        partition_of(g.workflow), upstream, g.due_at,
    )  # fmt: skip


def new_task(task: Task) -> tuple[Any, ...]:
    """A whole row of `task`, in the order of `NEW_TASK_COLUMNS`."""
    t = task
    return (
        t.workflow, t.index, t.attempt, t.group, t.name, t.uuid, t.lead, t.status._value_,
        t.max_retries, t.exit_actions, t.exit_code, t.reason, t.message, t.node,
        t.processing_at, t.scheduling_at, t.initializing_at, t.started_at, t.ended_at,
        t.retry_at, t.archived, t.reported, t.cluster, t.location,
    )  # fmt: skip


def added_tasks(tasks: Iterable[Task]) -> Columns:
    """Whole rows for `INSERT_TASKS`."""
    rows = (list(new_task(task)) for task in tasks)
    # A list within an array would be one more dimension of it, so JSON goes as text.
    return columns(((*row[:9], _json(row[9]), *row[10:]) for row in rows), 24)


def new_workflows(plans: Iterable[Plan]) -> Columns:
    """Whole rows for `INSERT_WORKFLOWS`."""
    return columns(
        (
            (w.id, partition_of(w.id), w.uuid, plan.name, plan.user, plan.pool, plan.priority,
             w.cluster, plan.labels, w.traceparent, w.parent, w.submitted_at, plan.exec_timeout,
             plan.queue_timeout, w.groups_total, len(plan.tasks), w.status._value_,
             w.groups_open, w.groups_active, w.tasks_completed, w.tasks_failed)
            for plan in plans
            for w in (plan.workflow,)
        ),
        21,
    )  # fmt: skip


def pack(envelopes: Sequence[Envelope]) -> bytes:
    """Messages as one value of the outbox."""
    return orjson.dumps([(e.subject, e.headers, e.body.decode()) for e in envelopes])


def unpack(value: bytes) -> list[Envelope]:
    """The messages of a value of the outbox."""
    return [Envelope(s, h, body.encode()) for s, h, body in orjson.loads(value)]


def _json(value: Any) -> str | None:
    return None if value is None else orjson.dumps(value).decode()
