"""What the API reads: its own rows beside the engine's published views.

Every answer costs a fixed number of statements. Workflows are read from `api.submission` with the
engine's view joined to it, so that a workflow can be seen from the moment its submission is
answered, and can be listed along the indexes of our own table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, func, not_, select, union_all
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel import col

from cairn_api.core.clusters import Registered
from cairn_api.core.labels import Selector
from cairn_api.core.model import Group, ListedTask, Request, Snapshot, Task, TaskSum, Workflow
from cairn_api.core.pools import UserProfile
from cairn_api.store.database import session_of
from cairn_api.store.tables import (
    ClusterView,
    GroupView,
    HandoverRow,
    ProfileRow,
    SubmissionRow,
    TaskRequestRow,
    TaskView,
    WorkflowView,
)
from cairn_common.status import WorkflowStatus

_WORKFLOW: tuple[Any, ...] = (
    col(SubmissionRow.workflow),
    col(SubmissionRow.uuid),
    col(SubmissionRow.name),
    col(SubmissionRow.user_name),
    col(SubmissionRow.pool),
    col(SubmissionRow.priority),
    col(SubmissionRow.labels),
    col(SubmissionRow.tags),
    col(SubmissionRow.warnings),
    col(SubmissionRow.parent),
    col(SubmissionRow.submitted_at),
    col(WorkflowView.cluster),
    col(WorkflowView.status),
    col(WorkflowView.started_at),
    col(WorkflowView.ended_at),
    col(WorkflowView.exec_timeout),
    col(WorkflowView.queue_timeout),
    col(WorkflowView.tasks_total),
    col(WorkflowView.tasks_completed),
    col(WorkflowView.tasks_failed),
    col(WorkflowView.cancel_by),
    col(WorkflowView.cause),
)
"""In the order of the fields of `Workflow`."""

_GROUP: tuple[Any, ...] = (
    col(GroupView.index),
    col(GroupView.name),
    col(GroupView.status),
    col(GroupView.message),
    col(GroupView.upstream),
    col(GroupView.downstream),
    col(GroupView.processing_at),
    col(GroupView.scheduling_at),
    col(GroupView.initializing_at),
    col(GroupView.started_at),
    col(GroupView.ended_at),
)
_TASK: tuple[Any, ...] = (
    col(TaskView.index),
    col(TaskView.attempt),
    col(TaskView.group_index),
    col(TaskView.name),
    col(TaskView.uuid),
    col(TaskView.lead),
    col(TaskView.status),
    col(TaskView.exit_code),
    col(TaskView.reason),
    col(TaskView.message),
    col(TaskView.node),
    col(TaskView.processing_at),
    col(TaskView.scheduling_at),
    col(TaskView.initializing_at),
    col(TaskView.started_at),
    col(TaskView.ended_at),
)
_AMOUNTS = ("cpu", "gpu", "memory", "storage")
_REQUEST: tuple[Any, ...] = tuple(
    func.coalesce(getattr(TaskRequestRow, name), getattr(SubmissionRow, name)) for name in _AMOUNTS
)
_LISTED: tuple[Any, ...] = (
    col(SubmissionRow.workflow),
    col(SubmissionRow.uuid),
    col(SubmissionRow.user_name),
    col(SubmissionRow.pool),
    col(SubmissionRow.priority),
)
_NEWEST = (col(SubmissionRow.submitted_at).desc(), col(SubmissionRow.workflow).desc())
_SAME_WORKFLOW = col(WorkflowView.id) == col(SubmissionRow.workflow)
_OF_SUBMISSION = col(TaskView.workflow) == col(SubmissionRow.workflow)
_REQUEST_OF_TASK = and_(
    col(TaskRequestRow.workflow) == col(TaskView.workflow),
    col(TaskRequestRow.task) == col(TaskView.name),
)


@dataclass(frozen=True, slots=True)
class WorkflowFilter:
    """Which workflows a list holds; empty is no condition."""

    users: Sequence[str] = ()
    name: str | None = None
    statuses: Sequence[str] = ()
    pools: Sequence[str] = ()
    submitted_after: datetime | None = None
    submitted_before: datetime | None = None
    tags: Sequence[str] = ()
    priorities: Sequence[str] = ()
    labels: Sequence[Selector] = ()
    no_labels: Sequence[str] = ()
    limit: int = 20
    offset: int = 0


@dataclass(frozen=True, slots=True)
class TaskFilter:
    """Which attempts a list holds; empty is no condition."""

    workflow: str | None = None
    users: Sequence[str] = ()
    statuses: Sequence[str] = ()
    pools: Sequence[str] = ()
    nodes: Sequence[str] = ()
    started_after: datetime | None = None
    started_before: datetime | None = None
    priorities: Sequence[str] = ()
    limit: int = 20
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Texts:
    """The texts of a submission."""

    spec: str
    rendered: str
    template: str | None


class Reader:
    """Reads; every method is a fixed number of statements."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def workflow(self, workflow: str) -> Workflow | None:
        """A workflow without its groups."""
        async with session_of(self._engine) as session:
            row = (await session.execute(_workflow(workflow))).one_or_none()
        return Workflow(*row) if row else None

    async def exists(self, workflow: str) -> bool:
        """Whether the workflow was ever submitted; asks our own table only."""
        query = select(col(SubmissionRow.uuid)).where(col(SubmissionRow.workflow) == workflow)
        async with session_of(self._engine) as session:
            return await session.scalar(query) is not None

    async def snapshot(self, workflow: str) -> Snapshot | None:
        """A workflow with all of it.

        Its own row is read first: should it say that the workflow has ended, then what is read
        after it is how everything in it ended.
        """
        groups = select(*_GROUP).where(col(GroupView.workflow) == workflow)
        tasks = select(*_TASK).where(col(TaskView.workflow) == workflow)
        async with session_of(self._engine) as session:
            row = (await session.execute(_workflow(workflow))).one_or_none()
            if row is None:
                return None
            found = Workflow(*row)
            if found.engine_status is None:
                return Snapshot(found)
            group_rows = await session.execute(groups.order_by(col(GroupView.index)))
            task_rows = await session.execute(
                tasks.order_by(col(TaskView.index), col(TaskView.attempt))
            )
            return Snapshot(
                found,
                [Group(*group) for group in group_rows],
                [Task(*task) for task in task_rows],
            )

    async def texts(self, workflow: str) -> Texts | None:
        """What was submitted."""
        query = select(
            col(SubmissionRow.spec), col(SubmissionRow.rendered), col(SubmissionRow.template)
        ).where(col(SubmissionRow.workflow) == workflow)
        async with session_of(self._engine) as session:
            row = (await session.execute(query)).one_or_none()
        return Texts(*row) if row else None

    async def list_workflows(self, wanted: WorkflowFilter) -> tuple[list[Workflow], bool]:
        """The newest workflows after the offset, newest first, and whether more follow."""
        conditions = _submission_conditions(wanted.users, wanted.pools, wanted.priorities)
        if wanted.name:
            conditions.append(col(SubmissionRow.workflow).contains(wanted.name, autoescape=True))
        if wanted.submitted_after is not None:
            conditions.append(col(SubmissionRow.submitted_at) >= wanted.submitted_after)
        if wanted.submitted_before is not None:
            conditions.append(col(SubmissionRow.submitted_at) < wanted.submitted_before)
        if wanted.tags:
            conditions.append(col(SubmissionRow.tags).overlap(list(wanted.tags)))  # type: ignore[attr-defined]
        conditions += [_selected(selector) for selector in wanted.labels]
        labels: Any = col(SubmissionRow.labels)
        conditions += [not_(labels.has_key(key)) for key in wanted.no_labels]
        ids = select(col(SubmissionRow.workflow)).where(*conditions)
        if wanted.statuses:
            ids = _of_statuses(ids, wanted.statuses)
        # The page is chosen along an index by its ids alone; rows are read for the page only.
        page = ids.order_by(*_NEWEST).limit(wanted.limit + 1).offset(wanted.offset).subquery("page")
        query = (
            select(*_WORKFLOW)
            .select_from(page)
            .join(SubmissionRow, col(SubmissionRow.workflow) == page.c.workflow)
            .outerjoin(WorkflowView, _SAME_WORKFLOW)
            .order_by(*_NEWEST)
        )
        async with session_of(self._engine) as session:
            rows = (await session.execute(query)).all()
        return [Workflow(*row) for row in rows[: wanted.limit]], len(rows) > wanted.limit

    async def list_tasks(self, wanted: TaskFilter) -> list[ListedTask]:
        """Attempts of the newest workflows first."""
        query = (
            _tasks(wanted, *_LISTED, *_REQUEST, *_TASK)
            .order_by(
                col(SubmissionRow.submitted_at).desc(),
                col(SubmissionRow.workflow).desc(),
                col(TaskView.index),
                col(TaskView.attempt).desc(),
            )
            .limit(wanted.limit)
            .offset(wanted.offset)
        )
        async with session_of(self._engine) as session:
            rows = (await session.execute(query)).all()
        return [_listed(row) for row in rows]

    async def task(self, workflow: str, task: str) -> ListedTask | None:
        """The newest attempt of a task."""
        query = (
            _tasks(TaskFilter(), *_LISTED, *_REQUEST, *_TASK)
            .where(col(SubmissionRow.workflow) == workflow, col(TaskView.name) == task)
            .order_by(col(TaskView.attempt).desc())
            .limit(1)
        )
        async with session_of(self._engine) as session:
            row = (await session.execute(query)).one_or_none()
        return _listed(row) if row else None

    async def sum_tasks(self, wanted: TaskFilter, *, by_workflow: bool) -> list[TaskSum]:
        """What attempts ask for together."""
        keys: list[Any] = [
            col(SubmissionRow.user_name),
            col(SubmissionRow.pool),
            col(SubmissionRow.priority),
        ]
        if by_workflow:
            keys.append(col(SubmissionRow.workflow))
        query = (
            _tasks(wanted, *keys, *(func.sum(amount) for amount in _REQUEST))
            .group_by(*keys)
            .order_by(*keys)
            .limit(wanted.limit)
            .offset(wanted.offset)
        )
        async with session_of(self._engine) as session:
            rows = (await session.execute(query)).all()
        return [
            TaskSum(
                row[0],
                row[1],
                row[2],
                Request(*(int(amount) for amount in row[len(keys) :])),
                row[3] if by_workflow else None,
            )
            for row in rows
        ]

    async def tags(self) -> list[str]:
        """All tags that some workflow has."""
        tag = func.unnest(col(SubmissionRow.tags)).label("tag")
        query = select(tag).distinct().order_by(tag)
        async with session_of(self._engine) as session:
            return list((await session.scalars(query)).all())

    async def clusters(self) -> list[Registered]:
        """The clusters that have registered, by name."""
        query = select(
            col(ClusterView.name),
            col(ClusterView.state),
            col(ClusterView.pools),
            col(ClusterView.registered_at),
        ).order_by(col(ClusterView.name))
        async with session_of(self._engine) as session:
            return [Registered(*row) for row in (await session.execute(query)).all()]

    async def open_tasks_in(self, cluster: str) -> dict[str, int]:
        """How many attempts in a cluster have each status that is not a last one."""
        query = (
            select(col(TaskView.status), func.count())
            .join(WorkflowView, col(WorkflowView.id) == col(TaskView.workflow))
            .where(
                col(WorkflowView.ended_at).is_(None),
                col(TaskView.ended_at).is_(None),
                col(TaskView.cluster) == cluster,
            )
            .group_by(col(TaskView.status))
            .order_by(col(TaskView.status))
        )
        async with session_of(self._engine) as session:
            rows = (await session.execute(query)).all()
        return {row[0]: row[1] for row in rows}

    async def profile(self, user: str) -> UserProfile:
        """What a user chose; nothing yet if they never did."""
        async with session_of(self._engine) as session:
            row = await session.get(ProfileRow, user)
        if row is None:
            return UserProfile(username=user)
        return UserProfile(
            username=user,
            email_notification=row.email_notification,
            slack_notification=row.slack_notification,
            pool=row.pool,
        )


def _workflow(workflow: str) -> Select[Any]:
    return (
        select(*_WORKFLOW)
        .select_from(SubmissionRow)
        .outerjoin(WorkflowView, _SAME_WORKFLOW)
        .where(col(SubmissionRow.workflow) == workflow)
    )


def _of_statuses(ids: Select[Any], statuses: Sequence[str]) -> Select[Any]:
    """Only those that have one of the statuses.

    Workflows that have not ended are few among many that have: they are looked up first. Only
    PENDING can be a workflow that the engine does not have yet; its submission is then on its way.
    """
    status = col(WorkflowView.status)
    pending = WorkflowStatus.PENDING in statuses
    if any(WorkflowStatus(name).final for name in statuses):
        known: Any = func.coalesce(status, WorkflowStatus.PENDING.value) if pending else status
        return ids.join(WorkflowView, _SAME_WORKFLOW, isouter=pending).where(known.in_(statuses))
    live: Any = select(col(WorkflowView.id)).where(
        col(WorkflowView.ended_at).is_(None), status.in_(statuses)
    )
    if pending:
        on_its_way = (
            select(col(HandoverRow.workflow))
            .outerjoin(WorkflowView, col(WorkflowView.id) == col(HandoverRow.workflow))
            .where(col(WorkflowView.id).is_(None))
        )
        live = union_all(live, on_its_way)
    return ids.where(col(SubmissionRow.workflow).in_(live))


def _submission_conditions(
    users: Sequence[str], pools: Sequence[str], priorities: Sequence[str]
) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if users:
        conditions.append(col(SubmissionRow.user_name).in_(users))
    if pools:
        conditions.append(col(SubmissionRow.pool).in_(pools))
    if priorities:
        conditions.append(col(SubmissionRow.priority).in_(priorities))
    return conditions


def _selected(selector: Selector) -> ColumnElement[bool]:
    labels: Any = col(SubmissionRow.labels)
    if selector.pattern is None:
        equal: ColumnElement[bool] = labels.contains({selector.key: selector.value})
        return equal
    matches: ColumnElement[bool] = labels[selector.key].astext.regexp_match(selector.pattern)
    return matches


def _tasks(wanted: TaskFilter, *columns: Any) -> Select[Any]:
    """Attempts of the wanted kind, with their submissions."""
    conditions = _submission_conditions(wanted.users, wanted.pools, wanted.priorities)
    if wanted.workflow:
        conditions.append(col(SubmissionRow.workflow).contains(wanted.workflow, autoescape=True))
    if wanted.statuses:
        conditions.append(col(TaskView.status).in_(wanted.statuses))
    if wanted.nodes:
        conditions.append(col(TaskView.node).in_(wanted.nodes))
    started = col(TaskView.started_at)
    if wanted.started_after is not None:
        conditions.append(started.is_(None) | (started >= wanted.started_after))
    if wanted.started_before is not None:
        conditions.append(started < wanted.started_before)
    return (
        select(*columns)
        .select_from(SubmissionRow)
        .join(TaskView, _OF_SUBMISSION)
        .outerjoin(TaskRequestRow, _REQUEST_OF_TASK)
        .where(*conditions)
    )


def _listed(row: Sequence[Any]) -> ListedTask:
    workflow, uuid, user, pool, priority, *rest = row
    return ListedTask(workflow, uuid, user, pool, priority, Task(*rest[4:]), Request(*rest[:4]))
