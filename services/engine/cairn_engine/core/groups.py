"""Decisions about groups: offered, woken, blocked, restarted, timed out, ended, closed."""

from __future__ import annotations

from datetime import timedelta

from cairn_common.status import TaskStatus
from cairn_engine.core import moving, tasks, workflows
from cairn_engine.core.context import Context
from cairn_engine.core.inputs import Block, Place, Stop, Wake
from cairn_engine.core.model import ON_A_NODE, Group, Task, Workflow
from cairn_engine.core.outcome import UPSTREAM_EXIT_CODE

_SEVERITY = (
    TaskStatus.FAILED_CANCELED,
    TaskStatus.FAILED_UPSTREAM,
    TaskStatus.FAILED_SERVER_ERROR,
    TaskStatus.FAILED_EXEC_TIMEOUT,
    TaskStatus.FAILED_QUEUE_TIMEOUT,
    TaskStatus.FAILED_PREEMPTED,
    TaskStatus.FAILED_EVICTED,
    TaskStatus.FAILED_BACKEND_ERROR,
    TaskStatus.FAILED_IMAGE_PULL,
    TaskStatus.FAILED_START_TIMEOUT,
    TaskStatus.FAILED_START_ERROR,
    TaskStatus.FAILED,
    TaskStatus.COMPLETED,
)
"""Of several ends of tasks, the first in this order is the group's."""

_NOT_IN_CLUSTER = frozenset({TaskStatus.WAITING, TaskStatus.PROCESSING})
_OPEN = frozenset(status for status in TaskStatus if not status.final)


def wake(context: Context, workflow: Workflow, group: Group) -> None:
    """Count down the unmet inputs; with the last one the group may run."""
    group.unmet -= 1
    context.ledger.touch_group(group)
    if group.unmet == 0:
        offer(context, workflow, group)


def offer(context: Context, workflow: Workflow, group: Group) -> None:
    """Ask a cluster to place the whole gang."""
    if group.status is not TaskStatus.WAITING or workflow.cancel_by is not None:
        return
    group.status = TaskStatus.PROCESSING
    group.processing_at = context.now
    chosen = moving.choose(context, workflow, group)
    place(context, workflow, group, list(context.ledger.tasks_of(group)), chosen)


def place(
    context: Context, workflow: Workflow, group: Group, attempts: list[Task], cluster: str | None
) -> None:
    """Offer attempts to a cluster; without one they wait until some cluster takes work."""
    for task in attempts:
        if task.status is not TaskStatus.PROCESSING:
            group.offered += 1
        task.status = TaskStatus.PROCESSING
        task.processing_at = context.now
        task.retry_at = None
        task.cluster = cluster
        context.ledger.touch_task(task)
    send_offer(context, group, attempts)
    if not group.active:
        group.active = True
        workflow.groups_active += 1
        workflows.refresh(context, workflow)


def send_offer(context: Context, group: Group, attempts: list[Task]) -> None:
    """Say that attempts may be placed, if a cluster was chosen, and when to look at it again."""
    if attempts and attempts[0].cluster is not None:
        context.decision.effects.append(
            Place(
                group.workflow,
                attempts[0].cluster,
                group.index,
                tuple((task.index, task.attempt) for task in attempts),
                group.offers,
            )
        )
    group.offer_at = context.now + context.policy.offer_delay(group.offers)
    group.offers += 1
    context.ledger.touch_group(group)


def block(context: Context, workflow: Workflow, group: Group, cause: str) -> None:
    """An upstream group has failed, so this one never runs."""
    if group.status is not TaskStatus.WAITING:
        return
    group.message = cause
    for task in context.ledger.open_tasks_of(group):
        task.message = cause
        tasks.end_task(
            context,
            workflow,
            group,
            task,
            TaskStatus.FAILED_UPSTREAM,
            context.now,
            UPSTREAM_EXIT_CODE,
        )
    group.verdict = TaskStatus.FAILED_UPSTREAM
    close(context, workflow, group)


def end(
    context: Context,
    workflow: Workflow,
    group: Group,
    verdict: TaskStatus,
    message: str,
    *,
    force: bool = False,
) -> None:
    """Decide how the group ends and stop what still runs of it.

    Attempts that are not on a node end at once. Those that are on one end when their cluster
    says so, which is when their outputs are safe and their ports free, or when the cluster has
    said nothing for too long. A lead that completes leaves the others a moment to end by
    themselves, as the reference does by its slowness and its users' files rely on.
    """
    if group.status.final or group.verdict is not None:
        return
    group.verdict = verdict
    group.restarting = False
    if group.message is None:
        group.message = message
    _clear_clocks(group)
    context.ledger.touch_group(group)
    if verdict is TaskStatus.COMPLETED:
        _end_tasks(context, workflow, group, verdict, _NOT_IN_CLUSTER)
        group.linger_until = context.now + timedelta(seconds=context.policy.lead_linger)
    else:
        _stop_open_tasks(context, workflow, group, verdict, force=force)
    if group.open == 0:
        close(context, workflow, group)


def _stop_open_tasks(
    context: Context, workflow: Workflow, group: Group, verdict: TaskStatus, *, force: bool
) -> None:
    grace = 0.0 if force else context.policy.stop_grace
    running = [task for task in context.ledger.open_tasks_of(group) if task.status in ON_A_NODE]
    _end_tasks(context, workflow, group, verdict, _OPEN if force else _OPEN - ON_A_NODE)
    stop(context, group, running, group.message or "stopped", grace)
    group.drain_deadline = context.now + timedelta(seconds=grace + context.policy.drain_patience)


def _end_tasks(
    context: Context,
    workflow: Workflow,
    group: Group,
    verdict: TaskStatus,
    statuses: frozenset[TaskStatus],
) -> None:
    """End the open tasks that have one of these statuses, here and wherever they may be."""
    queued: list[Task] = []
    for task in context.ledger.open_tasks_of(group):
        if task.status in statuses:
            if task.status is not TaskStatus.WAITING and task.status not in ON_A_NODE:
                queued.append(task)
            task.message = group.message
            tasks.end_task(context, workflow, group, task, verdict, context.now, None)
    stop(context, group, queued, group.message or "stopped", 0.0)


def restart(context: Context, workflow: Workflow, group: Group, message: str) -> None:
    """Stop the other tasks of a strict group, so that all start again together."""
    if group.status.final or group.verdict is not None or group.restarting:
        return
    group.restarting = True
    group.offer_at = group.queue_deadline = group.start_deadline = None
    stopped: list[Task] = []
    for task in list(context.ledger.tasks_of(group)):
        if task.status.final:
            if task.status is TaskStatus.COMPLETED:  # it ran with a peer that is gone
                _reopen(context, workflow, group, task)
        elif task.status is TaskStatus.WAITING:
            continue
        elif task.status in ON_A_NODE:
            stopped.append(task)
        else:
            stopped.append(task)
            tasks.reschedule(context, workflow, group, task, context.now, None)
    stop(context, group, stopped, message, context.policy.stop_grace)
    waiting = [task.retry_at for task in context.ledger.open_tasks_of(group) if task.retry_at]
    group.retry_at = max(waiting, default=context.now)
    group.drain_deadline = context.now + timedelta(
        seconds=context.policy.stop_grace + context.policy.drain_patience
    )
    context.ledger.touch_group(group)


def _reopen(context: Context, workflow: Workflow, group: Group, task: Task) -> None:
    """A completed task of a gang that restarts runs again, as a further attempt."""
    context.ledger.create_task(task.successor(context.now))
    group.open += 1
    group.tally[task.status] -= 1
    workflow.tasks_completed -= 1
    context.ledger.touch_workflow(workflow)


def stop(context: Context, group: Group, stopped: list[Task], cause: str, grace: float) -> None:
    """Tell the clusters of attempts to end them; what waits for a cluster is in none."""
    clusters: dict[str, list[tuple[int, str, int]]] = {}
    for task in stopped:
        if task.cluster is not None:
            attempts = clusters.setdefault(task.cluster, [])
            attempts.append((task.index, task.name, task.attempt))
    context.decision.effects.extend(
        Stop(group.workflow, cluster, tuple(attempts), cause, grace)
        for cluster, attempts in clusters.items()
    )


def due(context: Context, workflow: Workflow, group: Group) -> None:
    """Act on every clock of the group that has rung."""
    now = context.now
    if group.status.final:
        return
    if group.linger_until is not None and group.linger_until <= now:
        group.linger_until = None
        context.ledger.touch_group(group)
        _stop_open_tasks(
            context, workflow, group, group.verdict or TaskStatus.COMPLETED, force=False
        )
        if group.open == 0:
            close(context, workflow, group)
    elif group.drain_deadline is not None and group.drain_deadline <= now:
        _drain(context, workflow, group)
    elif group.exec_deadline is not None and group.exec_deadline <= now:
        limit = timedelta(seconds=group.exec_timeout or 0)
        message = f"the group ran longer than its exec_timeout of {limit}"
        end(context, workflow, group, TaskStatus.FAILED_EXEC_TIMEOUT, message)
    elif group.queue_deadline is not None and group.queue_deadline <= now:
        limit = timedelta(seconds=group.queue_timeout or 0)
        message = f"the group waited for a node longer than its queue_timeout of {limit}"
        waiting = next((t.message for t in context.ledger.tasks_of(group) if t.message), None)
        if waiting is not None:
            message = f"{message}; {waiting}"
        end(context, workflow, group, TaskStatus.FAILED_QUEUE_TIMEOUT, message)
    elif group.start_deadline is not None and group.start_deadline <= now:
        limit = timedelta(seconds=context.policy.start_timeout)
        message = f"the group did not start within {limit} on its node"
        end(context, workflow, group, TaskStatus.FAILED_START_TIMEOUT, message)
    else:
        if group.retry_at is not None and group.retry_at <= now:
            _retry(context, workflow, group)
        if group.offer_at is not None and group.offer_at <= now:
            moving.offer_again(context, workflow, group)


def _drain(context: Context, workflow: Workflow, group: Group) -> None:
    """The cluster has not confirmed a stop for too long: go on without it."""
    group.drain_deadline = None
    context.ledger.touch_group(group)
    silent = [
        task
        for task in context.ledger.open_tasks_of(group)
        if task.status is not TaskStatus.WAITING
    ]
    stop(context, group, silent, group.message or "stopped", 0.0)
    if group.verdict is None:
        for task in silent:
            task.message = "the cluster did not confirm that it stopped"
            tasks.reschedule(context, workflow, group, task, context.now, None)
        return
    for task in silent:
        task.message = group.message
        tasks.end_task(context, workflow, group, task, group.verdict, context.now, None)
    if group.open == 0:
        close(context, workflow, group)


def _retry(context: Context, workflow: Workflow, group: Group) -> None:
    """Place the attempts whose back-off is over; a restarting gang only as a whole."""
    attempts = context.ledger.open_tasks_of(group)
    waiting = [task for task in attempts if task.status is TaskStatus.WAITING]
    context.ledger.touch_group(group)
    if group.restarting:
        if len(waiting) < len(attempts):
            group.retry_at = None  # the last one that stops sets it again
            return
        group.restarting = False
        group.drain_deadline = None
        group.retry_at = None
        place(context, workflow, group, waiting, moving.choose(context, workflow, group))
        return
    ready = [t for t in waiting if t.retry_at is not None and t.retry_at <= context.now]
    later = [t.retry_at for t in waiting if t.retry_at is not None and t.retry_at > context.now]
    group.retry_at = min(later, default=None)
    if ready:
        place(context, workflow, group, ready, moving.choose(context, workflow, group))


def close(context: Context, workflow: Workflow, group: Group) -> None:
    """All tasks have ended: give the group its last status and tell those downstream."""
    group.status = group.verdict or next(
        (status for status in _SEVERITY if group.tally.get(status)), TaskStatus.COMPLETED
    )
    group.ended_at = context.now
    if group.status is TaskStatus.COMPLETED:
        group.message = None
    _clear_clocks(group)
    context.ledger.touch_group(group)
    if group.active:
        group.active = False
        workflow.groups_active -= 1
    workflow.groups_open -= 1
    if group.status.failed:
        failures = workflow.failures
        failures[group.status.value] = failures.get(group.status, 0) + 1
        if workflow.cause is None and group.status is not TaskStatus.FAILED_UPSTREAM:
            reason = f": {group.message}" if group.message else ""
            workflow.cause = f"group {group.name} ended {group.status}{reason}"
    if workflow.cancel_by is None:
        if group.status is TaskStatus.COMPLETED:
            context.decision.follow_ups.extend(
                Wake(group.workflow, index) for index in group.downstream
            )
        else:
            cause = f"upstream group {group.name} ended {group.status}"
            context.decision.follow_ups.extend(
                Block(group.workflow, index, cause) for index in group.downstream
            )
    workflows.refresh(context, workflow)


def deactivate(context: Context, workflow: Workflow, group: Group) -> None:
    """Nothing of the group is in the cluster while it waits to be tried again."""
    if group.active:
        group.active = False
        workflow.groups_active -= 1
        workflows.refresh(context, workflow)


def _clear_clocks(group: Group) -> None:
    group.offer_at = group.queue_deadline = group.start_deadline = None
    group.exec_deadline = group.retry_at = group.drain_deadline = group.linger_until = None
