"""The statuses of workflows, groups and tasks, as clients see them.

Source: OSMO user guide, "Workflow Lifecycle", status reference.
"""

from __future__ import annotations

from enum import StrEnum


class WorkflowStatus(StrEnum):
    """PENDING: no group has run yet; WAITING: some ran, none runs now; RUNNING: one runs."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    WAITING = "WAITING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    FAILED_SUBMISSION = "FAILED_SUBMISSION"
    FAILED_SERVER_ERROR = "FAILED_SERVER_ERROR"
    FAILED_EXEC_TIMEOUT = "FAILED_EXEC_TIMEOUT"
    FAILED_QUEUE_TIMEOUT = "FAILED_QUEUE_TIMEOUT"
    FAILED_CANCELED = "FAILED_CANCELED"
    FAILED_BACKEND_ERROR = "FAILED_BACKEND_ERROR"
    FAILED_IMAGE_PULL = "FAILED_IMAGE_PULL"
    FAILED_EVICTED = "FAILED_EVICTED"
    FAILED_START_ERROR = "FAILED_START_ERROR"
    FAILED_START_TIMEOUT = "FAILED_START_TIMEOUT"
    FAILED_PREEMPTED = "FAILED_PREEMPTED"

    @property
    def final(self) -> bool:
        """Whether nothing about the workflow will change any more."""
        return self not in _OPEN_WORKFLOW


_OPEN_WORKFLOW = frozenset({WorkflowStatus.PENDING, WorkflowStatus.RUNNING, WorkflowStatus.WAITING})


class TaskStatus(StrEnum):
    """The life of a task or a group, in the order in which it is lived."""

    SUBMITTING = "SUBMITTING"
    WAITING = "WAITING"
    PROCESSING = "PROCESSING"
    SCHEDULING = "SCHEDULING"
    INITIALIZING = "INITIALIZING"
    RUNNING = "RUNNING"
    RESCHEDULED = "RESCHEDULED"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    FAILED_CANCELED = "FAILED_CANCELED"
    FAILED_SERVER_ERROR = "FAILED_SERVER_ERROR"
    FAILED_BACKEND_ERROR = "FAILED_BACKEND_ERROR"
    FAILED_EXEC_TIMEOUT = "FAILED_EXEC_TIMEOUT"
    FAILED_QUEUE_TIMEOUT = "FAILED_QUEUE_TIMEOUT"
    FAILED_IMAGE_PULL = "FAILED_IMAGE_PULL"
    FAILED_UPSTREAM = "FAILED_UPSTREAM"
    FAILED_EVICTED = "FAILED_EVICTED"
    FAILED_START_ERROR = "FAILED_START_ERROR"
    FAILED_START_TIMEOUT = "FAILED_START_TIMEOUT"
    FAILED_PREEMPTED = "FAILED_PREEMPTED"

    @property
    def final(self) -> bool:
        """Whether the entity has ended. A RESCHEDULED attempt has; its task goes on."""
        return self not in _OPEN_TASK

    @property
    def failed(self) -> bool:
        """Whether it ended without success."""
        return self.value.startswith("FAILED")


_OPEN_TASK = frozenset(
    {
        TaskStatus.SUBMITTING,
        TaskStatus.WAITING,
        TaskStatus.PROCESSING,
        TaskStatus.SCHEDULING,
        TaskStatus.INITIALIZING,
        TaskStatus.RUNNING,
    }
)
