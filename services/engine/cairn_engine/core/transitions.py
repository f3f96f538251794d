"""Every legal change of status, and what brings it about, in one table for each kind of entity.

A fact may come late or not at all (a bridge that reports `started` after its `scheduled` was
lost), so an open attempt may move forward over several steps; it never moves back, and a final
status never changes. `docs/lifecycle.md` is made from these tables, the simulation holds every
change that it sees against them. Source: OSMO user guide, "Workflow Lifecycle".
"""

from __future__ import annotations

from typing import Final, NamedTuple, TypeVar

from cairn_common.status import TaskStatus as T
from cairn_common.status import WorkflowStatus as W

S = TypeVar("S", T, W)


class TaskRow(NamedTuple):
    """From any of these statuses of a task or group to the one, and when."""

    sources: tuple[T, ...]
    target: T
    when: str


class WorkflowRow(NamedTuple):
    """From any of these statuses of a workflow to the one, and when."""

    sources: tuple[W, ...]
    target: W
    when: str


_PLACED: Final = (T.PROCESSING, T.SCHEDULING, T.INITIALIZING, T.RUNNING)
_OPEN: Final = (T.WAITING, *_PLACED)

TASKS: Final = (
    TaskRow((T.SUBMITTING,), T.WAITING, "the engine has its workflow"),
    TaskRow((T.WAITING,), T.PROCESSING, "its group is offered to a cluster"),
    TaskRow((T.PROCESSING,), T.SCHEDULING, "the cluster has accepted it"),
    TaskRow((T.PROCESSING, T.SCHEDULING), T.INITIALIZING, "it has a node"),
    TaskRow((T.PROCESSING, T.SCHEDULING, T.INITIALIZING), T.RUNNING, "its command runs"),
    TaskRow(_OPEN, T.COMPLETED, "it ends well, or the lead of its group has"),
    TaskRow(
        _PLACED, T.RESCHEDULED, "it is tried again, or goes to another cluster, as the next attempt"
    ),
    TaskRow(_OPEN, T.FAILED, "it ends with a failure of its own, or its group does"),
    TaskRow(_OPEN, T.FAILED_CANCELED, "somebody cancels the workflow"),
    TaskRow(_OPEN, T.FAILED_SERVER_ERROR, "the cluster can never run it"),
    TaskRow(_OPEN, T.FAILED_BACKEND_ERROR, "its node or its cluster is lost"),
    TaskRow(_OPEN, T.FAILED_EXEC_TIMEOUT, "its group runs longer than exec_timeout"),
    TaskRow(_OPEN, T.FAILED_QUEUE_TIMEOUT, "its group waits for nodes longer than queue_timeout"),
    TaskRow(_OPEN, T.FAILED_IMAGE_PULL, "its image cannot be had"),
    TaskRow((T.WAITING,), T.FAILED_UPSTREAM, "a group that it needs has failed"),
    TaskRow(_OPEN, T.FAILED_EVICTED, "it needs more memory or disk than it may, or is evicted"),
    TaskRow(_OPEN, T.FAILED_START_ERROR, "its container or its room cannot be made"),
    TaskRow(_OPEN, T.FAILED_START_TIMEOUT, "it does not start on its node in time"),
    TaskRow(_OPEN, T.FAILED_PREEMPTED, "a higher priority takes its place"),
)
"""One attempt of a task."""

GROUPS: Final = (
    TaskRow((T.SUBMITTING,), T.WAITING, "the engine has its workflow"),
    TaskRow((T.WAITING,), T.PROCESSING, "all that it needs has completed: it is offered"),
    TaskRow((T.PROCESSING,), T.SCHEDULING, "the cluster has accepted one of its tasks"),
    TaskRow((T.PROCESSING, T.SCHEDULING), T.INITIALIZING, "one of its tasks has a node"),
    TaskRow((T.PROCESSING, T.SCHEDULING, T.INITIALIZING), T.RUNNING, "one of its tasks runs"),
    TaskRow(_PLACED, T.COMPLETED, "all tasks have ended, those that count well"),
    TaskRow((T.WAITING,), T.FAILED_UPSTREAM, "a group that it needs has failed"),
    TaskRow(_OPEN, T.FAILED_CANCELED, "all tasks have ended after a cancel"),
    *(
        TaskRow(_PLACED, status, "all tasks have ended, the gravest end that counts is this one")
        for status in T
        if status.failed and status not in {T.FAILED_UPSTREAM, T.FAILED_CANCELED}
    ),
)
"""A group. Of its tasks the lead counts, and with `ignoreNonleadStatus: false` all of them."""

_RUN: Final = (W.PENDING, W.RUNNING, W.WAITING)

WORKFLOWS: Final = (
    WorkflowRow((W.PENDING, W.WAITING), W.RUNNING, "one of its groups runs"),
    WorkflowRow((W.PENDING, W.RUNNING), W.WAITING, "some groups have run, and none is placed now"),
    WorkflowRow(_RUN, W.COMPLETED, "all groups have completed"),
    WorkflowRow(_RUN, W.FAILED, "all have ended, with failures of several kinds or plain ones"),
    WorkflowRow(_RUN, W.FAILED_CANCELED, "all have ended, one of them canceled"),
    WorkflowRow(_RUN, W.FAILED_SERVER_ERROR, "all have ended, one of them so, none canceled"),
    WorkflowRow(_RUN, W.FAILED_EXEC_TIMEOUT, "all have ended, one of them so, none as above"),
    WorkflowRow(_RUN, W.FAILED_QUEUE_TIMEOUT, "all have ended, one of them so, none as above"),
    *(
        WorkflowRow(_RUN, status, "all have ended, and all failures are of this kind")
        for status in (
            W.FAILED_BACKEND_ERROR,
            W.FAILED_IMAGE_PULL,
            W.FAILED_EVICTED,
            W.FAILED_START_ERROR,
            W.FAILED_START_TIMEOUT,
            W.FAILED_PREEMPTED,
        )
    ),
)
"""A workflow. FAILED_UPSTREAM of a group is no failure of its own here. FAILED_SUBMISSION is what
the API answers; such a workflow never reaches the engine."""


def _table(rows: tuple[tuple[tuple[S, ...], S, str], ...], all_: type[S]) -> dict[S, frozenset[S]]:
    return {
        status: frozenset(target for sources, target, _ in rows if status in sources)
        for status in all_
    }


TASK: Final[dict[T, frozenset[T]]] = _table(TASKS, T)
"""From each status of a task attempt to those that may follow it."""

GROUP: Final[dict[T, frozenset[T]]] = _table(GROUPS, T)
"""From each status of a group to those that may follow it."""

WORKFLOW: Final[dict[W, frozenset[W]]] = _table(WORKFLOWS, W)
"""From each status of a workflow to those that may follow it."""
