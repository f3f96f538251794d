"""What the API reads: a submission together with how it fares, its groups and attempts.

A workflow that the engine has not taken yet is PENDING and has no groups: the submission's row
alone is enough to answer for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from cairn_common.status import WorkflowStatus


@dataclass(frozen=True, slots=True)
class Workflow:
    """A submission and the engine's row of it; what the engine says is None until it has it."""

    id: str
    uuid: str
    name: str
    user: str
    pool: str
    priority: str
    labels: Mapping[str, str]
    tags: Sequence[str]
    warnings: Sequence[str]
    parent: str | None
    submitted_at: datetime
    cluster: str | None = None
    engine_status: str | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    exec_timeout: float | None = None
    queue_timeout: float | None = None
    tasks_total: int | None = None
    tasks_completed: int | None = None
    tasks_failed: int | None = None
    cancel_by: str | None = None
    cause: str | None = None

    @property
    def status(self) -> WorkflowStatus:
        """The engine's status; PENDING until it has one."""
        return WorkflowStatus(self.engine_status or WorkflowStatus.PENDING)


@dataclass(frozen=True, slots=True)
class Group:
    """A group, as the engine publishes it."""

    index: int
    name: str
    status: str
    message: str | None
    upstream: Sequence[int]
    downstream: Sequence[int]
    processing_at: datetime | None
    scheduling_at: datetime | None
    initializing_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class Task:
    """An attempt of a task, as the engine publishes it."""

    index: int
    attempt: int
    group: int
    name: str
    uuid: str
    lead: bool
    status: str
    exit_code: int | None
    reason: str | None
    message: str | None
    node: str | None
    processing_at: datetime | None
    scheduling_at: datetime | None
    initializing_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A workflow with all its groups and attempts, as of one moment."""

    workflow: Workflow
    groups: Sequence[Group] = ()
    tasks: Sequence[Task] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """What one task asks for. Memory and storage in bytes."""

    cpu: int
    gpu: int
    memory: int
    storage: int


@dataclass(frozen=True, slots=True)
class ListedTask:
    """An attempt in a list over workflows."""

    workflow: str
    workflow_uuid: str
    user: str
    pool: str
    priority: str
    task: Task
    request: Request


@dataclass(frozen=True, slots=True)
class TaskSum:
    """What a user's tasks in a pool, or a workflow's, ask for together."""

    user: str
    pool: str
    priority: str
    request: Request
    workflow: str | None = None
