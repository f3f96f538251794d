"""Facts about attempts: how far they have come, and how they ended.

A fact about an attempt that has ended changes nothing. If the cluster still works on such an
attempt (it never heard the stop), it is told again; if it only wants to be rid of it (it never
heard that all is settled), it is told that again.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from cairn_common.events import FinishReason
from cairn_common.status import TaskStatus
from cairn_engine.core import groups, workflows
from cairn_engine.core.context import Context
from cairn_engine.core.inputs import (
    Accepted,
    EndGroup,
    Finished,
    Held,
    RestartGroup,
    Scheduled,
    Settle,
    Started,
    Stop,
    TaskInput,
)
from cairn_engine.core.model import Group, Task, Workflow
from cairn_engine.core.outcome import judge
from cairn_engine.core.transitions import TASK

LEAD_FINISHED = "Lead task finished"


def accepted(
    context: Context, workflow: Workflow, group: Group, task: Task, fact: Accepted
) -> None:
    """The attempt waits in its cluster's queue; said again when what it waits for changes."""
    _waits_for(context, task, TaskStatus.SCHEDULING, fact)
    if _advance(context, group, task, TaskStatus.SCHEDULING, fact):
        task.message = fact.message
        task.scheduling_at = fact.at
        if group.status is TaskStatus.PROCESSING:
            group.status = TaskStatus.SCHEDULING
            group.scheduling_at = fact.at
            if group.queue_timeout is not None and group.verdict is None:
                group.queue_deadline = context.now + timedelta(seconds=group.queue_timeout)


def held(context: Context, task: Task, fact: Held) -> None:
    """The attempt stays offered; who looks at it sees what is in the way."""
    _waits_for(context, task, TaskStatus.PROCESSING, fact)


def _waits_for(
    context: Context, task: Task, status: TaskStatus, fact: Accepted | Held | Scheduled
) -> None:
    """Note what an attempt of this status says that it waits for, if that is new."""
    if task.status is status and fact.message not in {None, task.message}:
        task.message = fact.message
        context.ledger.touch_task(task)


def scheduled(
    context: Context, workflow: Workflow, group: Group, task: Task, fact: Scheduled
) -> None:
    """The attempt has a node; said again when what keeps it from starting changes."""
    _waits_for(context, task, TaskStatus.INITIALIZING, fact)
    if _advance(context, group, task, TaskStatus.INITIALIZING, fact):
        task.message = fact.message
        task.initializing_at = fact.at
        task.node = fact.node or task.node
        group.queue_deadline = None
        if group.status in {TaskStatus.PROCESSING, TaskStatus.SCHEDULING}:
            group.status = TaskStatus.INITIALIZING
            group.initializing_at = fact.at
            if group.verdict is None:
                patience = timedelta(seconds=context.policy.start_timeout)
                group.start_deadline = context.now + patience


def started(context: Context, workflow: Workflow, group: Group, task: Task, fact: Started) -> None:
    """The user's command runs."""
    if _advance(context, group, task, TaskStatus.RUNNING, fact):
        task.started_at = fact.at
        _catch_up(task, fact)
        task.node = fact.node or task.node
        _mark_running(context, workflow, group, fact.at)


def _catch_up(task: Task, fact: Started | Finished) -> None:
    """Note what was not said in facts of its own."""
    task.scheduling_at = task.scheduling_at or fact.accepted_at
    task.initializing_at = task.initializing_at or fact.scheduled_at


def _mark_running(context: Context, workflow: Workflow, group: Group, at: datetime) -> None:
    group.queue_deadline = group.start_deadline = None
    group.status = TaskStatus.RUNNING
    if group.started_at is None:
        group.started_at = at
    # A group whose end is decided has one clock only: how long the cluster may take to confirm.
    clock_runs = group.exec_deadline is not None or group.verdict is not None
    if group.exec_timeout is not None and not clock_runs:
        group.exec_deadline = context.now + timedelta(seconds=group.exec_timeout)
    if workflow.started_at is None:
        workflow.started_at = at
        workflows.refresh(context, workflow)


def _advance(
    context: Context, group: Group, task: Task, status: TaskStatus, fact: TaskInput
) -> bool:
    """Move an attempt forward; False if the fact is late or repeated."""
    if task.status.final:
        _stop_again(context, group, task)
        return False
    if status not in TASK[task.status]:
        return False
    _leave_processing(group, task)
    task.status = status
    task.message = None  # it waits no more for what it said
    context.ledger.touch_task(task)
    context.ledger.touch_group(group)
    return True


def _leave_processing(group: Group, task: Task) -> None:
    if task.status is TaskStatus.PROCESSING:
        group.offered -= 1
        if group.offered == 0:
            group.offer_at = None
            group.offers = 0


def _stop_again(context: Context, group: Group, task: Task) -> None:
    """The cluster works on an attempt that has ended here: unless it knows better by now."""
    if not task.reported:
        context.decision.effects.append(
            Stop(
                task.workflow,
                task.cluster or group.cluster,
                ((task.index, task.name, task.attempt),),
                group.message or f"the attempt is {task.status}",
                context.policy.stop_grace,
            )
        )


def archived(context: Context, group: Group, task: Task) -> None:
    """The attempt's log is safe; with its outcome stored too, the cluster may forget it."""
    if not task.archived:
        task.archived = True
        context.ledger.touch_task(task)
    if task.status.final:
        settle(context, group, task)


def settle(context: Context, group: Group, task: Task) -> None:
    """Tell the cluster that it may forget an attempt."""
    attempts = ((task.index, task.name, task.attempt),)
    cluster = task.cluster or group.cluster
    context.decision.effects.append(Settle(task.workflow, cluster, attempts))


def finished(
    context: Context, workflow: Workflow, group: Group, task: Task, fact: Finished
) -> None:
    """The attempt has ended in its cluster."""
    if fact.log_lines == 0 and not task.archived:
        task.archived = True
        context.ledger.touch_task(task)
    if not task.reported:
        task.reported = True
        context.ledger.touch_task(task)
    if task.status.final:
        if task.archived:
            settle(context, group, task)
        return
    _catch_up(task, fact)
    if fact.started_at is not None and task.started_at is None:
        task.started_at = fact.started_at
        _mark_running(context, workflow, group, fact.started_at)
    task.node = fact.node or task.node
    task.reason = fact.reason.value
    task.message = fact.message
    _conclude(context, workflow, group, task, fact)
    if task.archived:
        settle(context, group, task)


def _conclude(
    context: Context, workflow: Workflow, group: Group, task: Task, fact: Finished
) -> None:
    verdict = judge(
        fact.reason,
        fact.exit_code,
        task.exit_actions,
        restarts_left=fact.restarts < task.max_retries,
    )
    stopped = fact.reason is FinishReason.STOPPED
    if group.verdict is not None:
        status = group.verdict if stopped or verdict.retry else verdict.status
        if stopped:
            task.message = task.message or group.message
        end_task(context, workflow, group, task, status, fact.at, verdict.exit_code)
    elif group.restarting:
        if verdict.status is TaskStatus.COMPLETED or stopped or verdict.retry:
            reschedule(context, workflow, group, task, fact.at, verdict.exit_code)
        else:
            end_task(context, workflow, group, task, verdict.status, fact.at, verdict.exit_code)
            _react_to_failure(context, group, task)
    elif verdict.retry and task.attempt < task.max_retries and workflow.cancel_by is None:
        reschedule(context, workflow, group, task, fact.at, verdict.exit_code)
        if not group.ignore_nonlead and group.size > 1:
            context.decision.follow_ups.append(
                RestartGroup(group.workflow, group.index, f"{task.name} starts again")
            )
    else:
        end_task(context, workflow, group, task, verdict.status, fact.at, verdict.exit_code)
        if task.status is TaskStatus.COMPLETED:
            if task.lead and group.open:
                context.decision.follow_ups.append(
                    EndGroup(group.workflow, group.index, TaskStatus.COMPLETED, LEAD_FINISHED)
                )
        else:
            _react_to_failure(context, group, task)
    if group.open == 0:
        groups.close(context, workflow, group)


def _react_to_failure(context: Context, group: Group, task: Task) -> None:
    """A failed lead ends its group, and so does any failed task of a strict group."""
    if group.open and (task.lead or not group.ignore_nonlead):
        message = LEAD_FINISHED if task.lead else f"Task {task.name} failed"
        verdict = task.status
        context.decision.follow_ups.append(EndGroup(group.workflow, group.index, verdict, message))


def supersede(context: Context, group: Group, task: Task, cause: str) -> Task:
    """End a queued attempt because its task goes elsewhere; the next one waits for no time.

    Returns:
        The next attempt, which has as many retries before it as this one had.
    """
    _leave_processing(group, task)
    task.status = TaskStatus.RESCHEDULED
    task.message = cause
    task.ended_at = context.now
    context.decision.ended.append(task)
    context.ledger.touch_task(task)
    context.ledger.touch_group(group)
    successor = task.successor(context.now)
    successor.max_retries += 1
    context.ledger.create_task(successor)
    return successor


def lose(context: Context, workflow: Workflow, group: Group, task: Task, message: str) -> None:
    """The attempt ran in a cluster that is lost; should it report after all, it is told to stop."""
    reason = FinishReason.BACKEND_ERROR
    task.reason = reason.value
    task.message = message
    fact = Finished(*task.key, context.now, reason, message=message)
    _conclude(context, workflow, group, task, fact)


def end_task(
    context: Context,
    workflow: Workflow,
    group: Group,
    task: Task,
    status: TaskStatus,
    at: datetime,
    exit_code: int | None,
) -> None:
    """Give an attempt its last status and count it."""
    _leave_processing(group, task)
    task.status = status
    task.exit_code = exit_code
    task.ended_at = at
    task.retry_at = None
    group.open -= 1
    context.decision.ended.append(task)
    if task.lead or not group.ignore_nonlead:
        group.tally[status.value] = group.tally.get(status, 0) + 1
        if status.failed and group.message is None:
            code = "" if exit_code is None else f" with exit code {exit_code}"
            group.message = task.message or f"task {task.name} ended {status}{code}"
    if status is TaskStatus.COMPLETED:
        workflow.tasks_completed += 1
    else:
        workflow.tasks_failed += 1
    context.ledger.touch_task(task)
    context.ledger.touch_group(group)
    context.ledger.touch_workflow(workflow)


def reschedule(
    context: Context,
    workflow: Workflow,
    group: Group,
    task: Task,
    at: datetime,
    exit_code: int | None,
) -> None:
    """End an attempt as RESCHEDULED and let its successor wait for its time."""
    _leave_processing(group, task)
    task.status = TaskStatus.RESCHEDULED
    task.exit_code = exit_code
    task.ended_at = at
    context.decision.ended.append(task)
    context.ledger.touch_task(task)
    retry_at = context.now + context.policy.backoff(task.uuid, task.attempt)
    context.ledger.create_task(task.successor(retry_at))
    if group.restarting:  # the gang starts together, so the latest of its times counts
        group.retry_at = max(retry_at, group.retry_at or retry_at)
    else:
        group.retry_at = min(retry_at, group.retry_at or retry_at)
    context.ledger.touch_group(group)
    if group.size == 1:
        groups.deactivate(context, workflow, group)
