"""Decisions about where a gang lies: chosen when it is offered, changed when it must leave.

A gang lies in one cluster, since its tasks talk to each other: as long as one of them is on a
node, the others go where it is. What moves does so as new attempts, so that a cluster which comes
back with old ones changes nothing; that costs no retry.
"""

from __future__ import annotations

from cairn_common.status import TaskStatus
from cairn_engine.core import groups, tasks
from cairn_engine.core.context import Context
from cairn_engine.core.gangs import Need
from cairn_engine.core.model import ON_A_NODE, Group, Workflow

_QUEUED = frozenset({TaskStatus.PROCESSING, TaskStatus.SCHEDULING})
_ANY = Need()


def choose(context: Context, workflow: Workflow, group: Group) -> str | None:
    """Where the group's next attempts go, which the group then remembers; None: nowhere yet."""
    clusters = context.clusters
    if clusters.only(workflow.pool) == group.cluster or _is_bound(context, group):
        return group.cluster
    need = context.ledger.needs.get((group.workflow, group.index), _ANY)
    chosen = clusters.choose(workflow.pool, group.cluster, need)
    if chosen is not None and chosen != group.cluster:
        group.cluster = chosen
        context.ledger.touch_group(group)
    return chosen


def _is_bound(context: Context, group: Group) -> bool:
    """Whether the others of the gang hold it where it is."""
    return group.size > 1 and any(
        task.status in ON_A_NODE or (task.status in _QUEUED and task.cluster is not None)
        for task in context.ledger.tasks_of(group)
    )


def offer_again(context: Context, workflow: Workflow, group: Group) -> None:
    """Nobody has answered an offer: say it again, here or elsewhere."""
    if not relocate(context, workflow, group):
        offered = [
            task for task in context.ledger.tasks_of(group) if task.status is TaskStatus.PROCESSING
        ]
        groups.send_offer(context, group, offered)


def relocate(context: Context, workflow: Workflow, group: Group) -> bool:
    """Take what is queued out of a cluster that it should leave, and out of none.

    Returns:
        Whether it is offered elsewhere now; False if it stays, or must not be touched.
    """
    if group.status.final or group.verdict is not None or group.restarting:
        return False
    attempts = context.ledger.open_tasks_of(group)
    queued = [task for task in attempts if task.status in _QUEUED]
    if any(task.status in ON_A_NODE for task in attempts):
        held = [task for task in queued if task.cluster is None]
        if held:
            groups.place(context, workflow, group, held, group.cluster)
        return bool(held)
    leaving = [
        task for task in queued if not context.clusters.may_stay(workflow.pool, task.cluster)
    ]
    if not leaving:
        return False
    left = {task.cluster for task in leaving if task.cluster is not None}
    need = context.ledger.needs.get((group.workflow, group.index), _ANY)
    chosen = context.clusters.choose(workflow.pool, group.cluster, need)
    if chosen is None and not left:
        return False
    group.cluster = chosen or group.cluster
    where = f"cluster {chosen}" if chosen else "no cluster, for none takes work"
    cause = f"moved from cluster {', '.join(sorted(left))} to {where}"
    # The gang goes as a whole, so those come along that could have stayed.
    moving = [task for task in queued if task.cluster is not None and task.cluster != chosen]
    waiting = [task for task in queued if task.cluster is None]
    groups.stop(context, group, moving, cause, 0.0)
    successors = [tasks.supersede(context, group, task, cause) for task in moving]
    groups.place(context, workflow, group, waiting + successors, chosen)
    return True


def lose(context: Context, workflow: Workflow, group: Group) -> None:
    """What is on a node of a cluster that is lost has ended: its cluster will not say so.

    Should the cluster come back, it drops them at once.
    """
    lost = [
        task
        for task in context.ledger.open_tasks_of(group)
        if task.status in ON_A_NODE and context.clusters.is_lost(task.cluster)
    ]
    groups.stop(context, group, lost, "its cluster was lost", 0.0)
    for task in lost:
        message = f"cluster {task.cluster} is lost: it was removed, or says nothing any more"
        tasks.lose(context, workflow, group, task, message)
