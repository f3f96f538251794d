"""The entities of the engine: workflow, group, and task attempt.

They are plain values with counters, so that an event costs the same in a workflow of ten tasks
and of a hundred thousand: a group knows how many of its tasks are open, a workflow how many of
its groups, and nobody has to look at all of them to see whether the last one has ended.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from cairn_common.status import TaskStatus, WorkflowStatus

ON_A_NODE: Final = frozenset({TaskStatus.INITIALIZING, TaskStatus.RUNNING})
"""An attempt that is so far has begun to do something."""


@dataclass(slots=True)
class Workflow:
    """A submitted workflow. `failures` counts its failed groups by their last status."""

    id: str
    uuid: str
    status: WorkflowStatus
    cluster: str
    pool: str
    submitted_at: datetime
    groups_total: int
    groups_open: int
    parent: str | None = None
    traceparent: str | None = None
    groups_active: int = 0
    tasks_completed: int = 0
    tasks_failed: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    started_at: datetime | None = None
    ended_at: datetime | None = None
    cancel_by: str | None = None
    cancel_message: str | None = None
    cancel_force: bool = False
    cause: str | None = None


@dataclass(slots=True)
class Group:
    """A gang of tasks: the unit that is placed, and the node of the graph.

    `unmet` counts the upstream groups that have not completed. `offered` counts its tasks in
    PROCESSING, `open` those that have not ended. `tally` counts the ended tasks that decide the
    group's own status. While `verdict` is set, the group's end is decided and its last tasks are
    being stopped; while `restarting` is set, they are being stopped to start again. `cluster` is
    where its next attempts go.
    Each clock is the moment at which something is due; `due_at` is the next of them.
    """

    workflow: str
    index: int
    name: str
    uuid: str
    status: TaskStatus
    unmet: int
    downstream: list[int]
    first_task: int
    size: int
    open: int
    lead: int
    cluster: str
    ignore_nonlead: bool = True
    exec_timeout: float | None = None
    queue_timeout: float | None = None
    active: bool = False
    restarting: bool = False
    offered: int = 0
    offers: int = 0
    tally: dict[str, int] = field(default_factory=dict)
    verdict: TaskStatus | None = None
    message: str | None = None
    processing_at: datetime | None = None
    scheduling_at: datetime | None = None
    initializing_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    offer_at: datetime | None = None
    queue_deadline: datetime | None = None
    start_deadline: datetime | None = None
    exec_deadline: datetime | None = None
    retry_at: datetime | None = None
    drain_deadline: datetime | None = None
    linger_until: datetime | None = None

    @property
    def due_at(self) -> datetime | None:
        """The next moment at which a clock of the group rings."""
        clocks = (
            self.offer_at,
            self.queue_deadline,
            self.start_deadline,
            self.exec_deadline,
            self.retry_at,
            self.drain_deadline,
            self.linger_until,
        )
        return min((clock for clock in clocks if clock is not None), default=None)


@dataclass(slots=True)
class Task:
    """One attempt of a task. The attempt's number is a fencing token: see DESIGN, rule 5.

    `max_retries` is how many attempts may follow the first, those that only moved not counted;
    `cluster` where the attempt was offered, if any takes it; `location` the key of its outputs,
    where an earlier workflow made them.
    """

    workflow: str
    index: int
    attempt: int
    group: int
    name: str
    uuid: str
    lead: bool
    status: TaskStatus
    max_retries: int
    exit_actions: list[tuple[str, int, int]] | None = None
    exit_code: int | None = None
    reason: str | None = None
    message: str | None = None
    node: str | None = None
    processing_at: datetime | None = None
    scheduling_at: datetime | None = None
    initializing_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    retry_at: datetime | None = None
    archived: bool = False
    reported: bool = False  # the cluster itself has said that the attempt ended
    cluster: str | None = None
    location: str | None = None

    @property
    def key(self) -> tuple[str, int, int]:
        """Workflow, task index, attempt."""
        return self.workflow, self.index, self.attempt

    def successor(self, retry_at: datetime) -> Task:
        """The next attempt of the same task, waiting for its time."""
        return Task(
            workflow=self.workflow,
            index=self.index,
            attempt=self.attempt + 1,
            group=self.group,
            name=self.name,
            uuid=self.uuid,
            lead=self.lead,
            status=TaskStatus.WAITING,
            max_retries=self.max_retries,
            exit_actions=self.exit_actions,
            retry_at=retry_at,
        )
