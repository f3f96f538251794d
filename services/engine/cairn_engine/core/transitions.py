"""Every legal change of status, in one table.

A fact may come late or skip a step (a bridge that reports `started` after its `scheduled` was
lost), so an open entity may move forward over several steps; it never moves back, and a final
status never changes. Source: OSMO user guide, "Workflow Lifecycle".
"""

from __future__ import annotations

from typing import Final

from cairn_common.status import TaskStatus, WorkflowStatus

_LIFE: Final = (
    TaskStatus.SUBMITTING,
    TaskStatus.WAITING,
    TaskStatus.PROCESSING,
    TaskStatus.SCHEDULING,
    TaskStatus.INITIALIZING,
    TaskStatus.RUNNING,
)
_ENDS: Final = frozenset(status for status in TaskStatus if status.final)
_GROUP_ENDS: Final = _ENDS - {TaskStatus.RESCHEDULED}

TASK: Final[dict[TaskStatus, frozenset[TaskStatus]]] = {
    status: frozenset(_LIFE[position + 1 :]) | _ENDS for position, status in enumerate(_LIFE)
} | {status: frozenset() for status in _ENDS}
"""From each status of a task attempt to those that may follow it."""

GROUP: Final[dict[TaskStatus, frozenset[TaskStatus]]] = {
    status: frozenset(_LIFE[position + 1 :]) | _GROUP_ENDS for position, status in enumerate(_LIFE)
} | {status: frozenset() for status in _GROUP_ENDS}
"""From each status of a group to those that may follow it."""

_OPEN: Final = frozenset(status for status in WorkflowStatus if not status.final)

WORKFLOW: Final[dict[WorkflowStatus, frozenset[WorkflowStatus]]] = {
    WorkflowStatus.PENDING: frozenset(WorkflowStatus) - {WorkflowStatus.PENDING},
    WorkflowStatus.RUNNING: frozenset(WorkflowStatus)
    - {WorkflowStatus.RUNNING, WorkflowStatus.PENDING},
    WorkflowStatus.WAITING: frozenset(WorkflowStatus)
    - {WorkflowStatus.WAITING, WorkflowStatus.PENDING},
} | {status: frozenset() for status in WorkflowStatus if status not in _OPEN}
"""From each status of a workflow to those that may follow it."""
