"""Loading and saving: a batch is one transaction, an entity kind one statement."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from cairn_common.events import Envelope, partition_of
from cairn_common.persistence import Database, Row
from cairn_common.status import TaskStatus, WorkflowStatus
from cairn_engine.core import Group, Ledger, Task, Workflow
from cairn_engine.core.inputs import Anomaly
from cairn_engine.core.plan import Plan
from cairn_engine.store import sql


class FencedError(Exception):
    """A partition of the batch belongs to another engine by now."""


@dataclass(frozen=True, slots=True)
class Submission:
    """A submitted workflow as the API stored it; `spec` is the validated spec as JSON."""

    workflow: str
    uuid: str
    name: str
    user: str
    pool: str
    priority: str
    labels: dict[str, str]
    traceparent: str | None
    submitted_at: datetime
    spec: str


class Store:
    """The engine's schema."""

    def __init__(self, database: Database, owner: str) -> None:
        self._database = database
        self._owner = owner

    @asynccontextmanager
    async def transaction(self, epochs: dict[int, int]) -> AsyncIterator[Transaction]:
        """A transaction that commits only while this engine holds these partitions.

        Raises:
            FencedError: another engine has taken one of them.
        """
        async with self._database.acquire() as connection, connection.transaction():
            held = await connection.fetchval(
                sql.FENCE, self._owner, list(epochs), list(epochs.values())
            )
            if held != len(epochs):
                raise FencedError(f"{len(epochs) - held} of {len(epochs)} partitions were taken")
            yield Transaction(connection)

    async def due_groups(
        self, partitions: Sequence[int], now: datetime, limit: int
    ) -> list[tuple[str, int]]:
        """Groups with a clock that has rung, the longest overdue first."""
        rows = await self._database.fetch(sql.DUE_GROUPS, partitions, now, limit)
        return [(row["workflow"], row["index"]) for row in rows]

    async def next_due(self, partitions: Sequence[int]) -> datetime | None:
        """When the next clock rings."""
        value: datetime | None = await self._database.fetchval(sql.NEXT_DUE, partitions)
        return value

    async def left_in_outbox(
        self, partitions: Sequence[int], older_than: float
    ) -> list[tuple[int, list[Envelope]]]:
        """Messages that were decided long ago and that nobody has confirmed as sent."""
        rows = await self._database.fetch(sql.LEFT_IN_OUTBOX, partitions, older_than)
        return [(row["id"], _unpack(row["messages"])) for row in rows]

    async def forget_outbox(self, ids: Sequence[int]) -> None:
        """Drop messages that are sent."""
        await self._database.execute(sql.DELETE_OUTBOX, ids)

    async def open_attempts(
        self, cluster: str, after: tuple[str, int], limit: int
    ) -> list[tuple[str, int, int, str, str]]:
        """Attempts that the cluster has accepted and that have not ended, a page of them."""
        rows = await self._database.fetch(sql.OPEN_ATTEMPTS, cluster, *after, limit)
        return [tuple(row) for row in rows]


class Transaction:
    """What a batch may do within its transaction."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def load_workflows(self, ledger: Ledger, ids: Iterable[str]) -> None:
        """Load the workflows that are not loaded yet."""
        missing = sorted(set(ids) - ledger.workflows.keys())
        if missing:
            for row in await self._connection.fetch(sql.LOAD_WORKFLOWS, missing):
                ledger.workflows[row["id"]] = _workflow(row)

    async def load_tasks(self, ledger: Ledger, keys: Iterable[tuple[str, int, int]]) -> None:
        """Load attempts, each with its group and workflow."""
        missing = sorted(set(keys) - ledger.tasks.keys())
        if missing:
            rows = await self._connection.fetch(
                sql.LOAD_TASKS,
                [key[0] for key in missing],
                [key[1] for key in missing],
                [key[2] for key in missing],
            )
            for row in rows:
                ledger.add_task(_task(row))
            await self._load_groups(ledger, {(r["workflow"], r["group_index"]) for r in rows})

    async def _load_groups(self, ledger: Ledger, keys: Iterable[tuple[str, int]]) -> None:
        missing = sorted(set(keys) - ledger.groups.keys())
        if missing:
            rows = await self._connection.fetch(
                sql.LOAD_GROUPS, [key[0] for key in missing], [key[1] for key in missing]
            )
            for row in rows:
                ledger.groups[row["workflow"], row["index"]] = _group(row)

    async def load_whole_groups(self, ledger: Ledger, keys: Iterable[tuple[str, int]]) -> None:
        """Load groups with the newest attempt of each of their tasks."""
        missing = sorted(set(keys) - ledger.whole)
        if missing:
            await self._load_groups(ledger, missing)
            rows = await self._connection.fetch(
                sql.LOAD_CURRENT_TASKS, [key[0] for key in missing], [key[1] for key in missing]
            )
            for row in rows:
                ledger.add_task(_task(row))
            ledger.mark_whole(missing)

    async def load_page(self, ledger: Ledger, workflow: str, first: int, limit: int) -> None:
        """Load the next open groups of a workflow, whole."""
        rows = await self._connection.fetch(sql.LOAD_PAGE, workflow, first, limit)
        indices = [row["index"] for row in rows]
        ledger.pages[workflow] = indices
        await self.load_whole_groups(ledger, [(workflow, index) for index in indices])

    async def load_submissions(self, ids: Sequence[str]) -> list[Submission]:
        """Submissions that the engine does not have yet."""
        known = await self._connection.fetch(sql.KNOWN_WORKFLOWS, ids)
        new = sorted(set(ids) - {row["id"] for row in known})
        if not new:
            return []
        return [
            Submission(
                row["workflow"],
                row["uuid"],
                row["name"],
                row["user_name"],
                row["pool"],
                row["priority"],
                row["labels"],
                row["traceparent"],
                row["submitted_at"],
                row["spec"],
            )
            for row in await self._connection.fetch(sql.LOAD_SUBMISSIONS, new)
        ]

    async def load_bodies(self, keys: Iterable[tuple[str, int]]) -> dict[tuple[str, int], str]:
        """The unchanging parts of placements."""
        wanted = sorted(set(keys))
        rows = await self._connection.fetch(
            sql.LOAD_BODIES, [key[0] for key in wanted], [key[1] for key in wanted]
        )
        return {(row["workflow"], row["index"]): row["body"] for row in rows}

    async def load_completed_attempts(
        self, keys: Iterable[tuple[str, int]]
    ) -> dict[tuple[str, int], int]:
        """Which attempt of each of these tasks has completed."""
        wanted = sorted(set(keys))
        if not wanted:
            return {}
        rows = await self._connection.fetch(
            sql.LOAD_LOCATIONS, [key[0] for key in wanted], [key[1] for key in wanted]
        )
        return {(row["workflow"], row["index"]): row["attempt"] for row in rows}

    async def insert(self, new: Sequence[tuple[Submission, Plan]]) -> None:
        """Store new workflows with all that belongs to them."""
        await self._connection.fetch(
            sql.INSERT_WORKFLOWS,
            *_columns(
                (
                    plan.workflow.id, partition_of(plan.workflow.id), plan.workflow.uuid,
                    sent.name, sent.user, sent.pool, sent.priority, plan.workflow.cluster,
                    sent.labels, plan.workflow.traceparent, plan.workflow.status.value,
                    plan.workflow.submitted_at, plan.exec_timeout, plan.queue_timeout,
                    plan.workflow.max_retries, plan.workflow.groups_total, len(plan.tasks),
                    plan.workflow.groups_open,
                )
                for sent, plan in new
            ),
        )  # fmt: skip
        await self._copy(
            "task_group",
            sql.NEW_GROUP_COLUMNS,
            (
                (
                    group.workflow, group.index, partition_of(group.workflow), group.name,
                    group.uuid, group.status.value, group.unmet, upstream, group.downstream,
                    group.first_task, group.size, group.open, group.lead, group.ignore_nonlead,
                    group.exec_timeout, group.queue_timeout, False, False, 0, 0, {},
                )
                for _, plan in new
                for group, upstream in zip(plan.groups, plan.upstream, strict=True)
            ),
        )  # fmt: skip
        await self._copy(
            "group_body",
            ("workflow", "index", "body"),
            (
                (plan.workflow.id, index, orjson.dumps(body).decode())
                for _, plan in new
                for index, body in enumerate(plan.bodies)
            ),
        )
        await self._copy(
            "task",
            sql.NEW_TASK_COLUMNS,
            (
                (
                    task.workflow, task.index, task.attempt, task.group, task.name, task.uuid,
                    task.lead, task.status.value, task.exit_actions, False, False,
                )
                for _, plan in new
                for task in plan.tasks
            ),
        )  # fmt: skip

    async def _copy(
        self, table: str, columns: Sequence[str], records: Iterable[tuple[Any, ...]]
    ) -> None:
        await self._connection.copy_records_to_table(
            table, schema_name="engine", columns=columns, records=records
        )

    async def save(self, ledger: Ledger) -> None:
        """Write back everything that has changed."""
        if ledger.new_tasks:
            rows = _columns(
                # A list within an array would be one more dimension of it, so JSON goes as text.
                (*t.key, t.group, t.name, t.uuid, t.lead, t.status.value, _json(t.exit_actions),
                 t.exit_code, t.reason, t.message, t.node, t.processing_at, t.scheduling_at,
                 t.initializing_at, t.started_at, t.ended_at, t.retry_at, t.archived, t.reported)
                for t in (ledger.tasks[key] for key in sorted(ledger.new_tasks))
            )  # fmt: skip
            await self._connection.execute(sql.INSERT_TASKS, *rows)
        if ledger.changed_tasks:
            rows = _columns(
                (*t.key, t.status.value, t.exit_code, t.reason, t.message, t.node,
                 t.processing_at, t.scheduling_at, t.initializing_at, t.started_at, t.ended_at,
                 t.retry_at, t.archived, t.reported)
                for t in (ledger.tasks[key] for key in sorted(ledger.changed_tasks))
            )  # fmt: skip
            await self._connection.execute(sql.SAVE_TASKS, *rows)
        if ledger.changed_groups:
            rows = _columns(
                (g.workflow, g.index, g.status.value, g.unmet, g.open, g.active, g.restarting,
                 g.offered, g.offers, g.tally, g.verdict and g.verdict.value, g.message,
                 g.processing_at, g.scheduling_at, g.initializing_at, g.started_at, g.ended_at,
                 g.offer_at, g.queue_deadline, g.start_deadline, g.exec_deadline, g.retry_at,
                 g.drain_deadline, g.linger_until, g.due_at)
                for g in (ledger.groups[key] for key in sorted(ledger.changed_groups))
            )  # fmt: skip
            await self._connection.execute(sql.SAVE_GROUPS, *rows)
        if ledger.changed_workflows:
            rows = _columns(
                (w.id, w.status.value, w.groups_open, w.groups_active, w.tasks_completed,
                 w.tasks_failed, w.failures, w.started_at, w.ended_at, w.cancel_by,
                 w.cancel_message, w.cancel_force, w.cause)
                for w in (ledger.workflows[key] for key in sorted(ledger.changed_workflows))
            )  # fmt: skip
            await self._connection.execute(sql.SAVE_WORKFLOWS, *rows)

    async def put_in_outbox(self, envelopes: Sequence[Envelope], forget: Sequence[int]) -> int:
        """Store what is to be said with the decision itself; drops what has been said.

        Returns:
            The id under which `forget_outbox` drops it once it is sent.
        """
        if forget:
            await self._connection.execute(sql.DELETE_OUTBOX, forget)
        partitions = sorted(
            {partition_of(envelope.headers["ce-subject"]) for envelope in envelopes}
        )
        number: int = await self._connection.fetchval(
            sql.INSERT_OUTBOX, partitions, _pack(envelopes)
        )
        return number

    async def put_off(self, follow_ups: Sequence[tuple[str, dict[str, Any]]]) -> None:
        """Store follow-ups that are too many for this transaction."""
        await self._connection.execute(
            sql.INSERT_FOLLOW_UPS,
            [partition_of(workflow) for workflow, _ in follow_ups],
            [body for _, body in follow_ups],
        )

    async def take_follow_ups(self, partitions: Sequence[int], limit: int) -> list[dict[str, Any]]:
        """Take follow-ups that were put off, oldest first."""
        rows = await self._connection.fetch(sql.TAKE_FOLLOW_UPS, partitions, limit)
        return [row["body"] for row in sorted(rows, key=lambda row: row["id"])]

    async def record(self, at: datetime, anomalies: Sequence[Anomaly]) -> None:
        """Keep inputs that could not be, with the story of their entities."""
        await self._connection.execute(
            sql.INSERT_ANOMALIES,
            at,
            [anomaly.workflow for anomaly in anomalies],
            [anomaly.what for anomaly in anomalies],
            [anomaly.story for anomaly in anomalies],
        )


def _columns(rows: Iterable[tuple[Any, ...]]) -> list[list[Any]]:
    """Rows to the column arrays that `unnest` wants."""
    return [list(column) for column in zip(*rows, strict=True)]


def _json(value: Any) -> str | None:
    return None if value is None else orjson.dumps(value).decode()


def _pack(envelopes: Sequence[Envelope]) -> str:
    return orjson.dumps([(e.subject, e.headers, e.body.decode()) for e in envelopes]).decode()


def _unpack(text: str) -> list[Envelope]:
    return [Envelope(s, h, body.encode()) for s, h, body in orjson.loads(text)]


def _workflow(row: Row) -> Workflow:
    values = list(row.values())
    values[2] = WorkflowStatus(values[2])
    return Workflow(*values)


def _group(row: Row) -> Group:
    values = list(row.values())
    values[4] = TaskStatus(values[4])
    if values[19] is not None:
        values[19] = TaskStatus(values[19])
    return Group(*values)


def _task(row: Row) -> Task:
    values = list(row.values())
    values[7] = TaskStatus(values[7])
    return Task(*values)
