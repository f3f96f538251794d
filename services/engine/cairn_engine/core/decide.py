"""The one entrance to the core: an input comes in, it is decided, effects and follow-ups go out."""

from __future__ import annotations

from datetime import datetime

from cairn_engine.core import groups, moving, tasks, workflows
from cairn_engine.core.clusters import Clusters
from cairn_engine.core.context import Context
from cairn_engine.core.inputs import (
    Accepted,
    Anomaly,
    Archived,
    Block,
    CancelPage,
    CancelRequested,
    Decision,
    Due,
    EndGroup,
    Finished,
    GroupInput,
    Held,
    Input,
    Lose,
    Offer,
    Relocate,
    RestartGroup,
    Scheduled,
    Started,
    TaskInput,
    Wake,
)
from cairn_engine.core.ledger import Ledger
from cairn_engine.core.model import Workflow
from cairn_engine.core.policy import Policy


def decide(
    ledger: Ledger,
    input_: Input,
    now: datetime,
    policy: Policy,
    decision: Decision,
    clusters: Clusters,
) -> None:
    """Apply one input to the ledger and add what follows to `decision`.

    The entities that the input is about must be in the ledger already; one that is missing does
    not exist, which is an anomaly and changes nothing.
    """
    context = Context(ledger, now, policy, decision, clusters)
    workflow = ledger.workflows.get(input_.workflow)
    if workflow is None:
        _unknown(decision, input_, "workflow")
    elif isinstance(input_, TaskInput):
        _about_task(context, workflow, input_)
    elif isinstance(input_, CancelRequested):
        workflows.cancel(context, workflow, input_)
    elif isinstance(input_, CancelPage):
        workflows.cancel_page(context, workflow, input_)
    else:
        _about_group(context, workflow, input_)


def _about_task(context: Context, workflow: Workflow, fact: TaskInput) -> None:
    task = context.ledger.tasks.get((fact.workflow, fact.index, fact.attempt))
    if task is None:
        _unknown(context.decision, fact, "task attempt")
        return
    group = context.ledger.groups[task.workflow, task.group]
    match fact:
        case Accepted():
            tasks.accepted(context, workflow, group, task, fact)
        case Held():
            tasks.held(context, task, fact)
        case Scheduled():
            tasks.scheduled(context, workflow, group, task, fact)
        case Started():
            tasks.started(context, workflow, group, task, fact)
        case Finished():
            tasks.finished(context, workflow, group, task, fact)
        case Archived():
            tasks.archived(context, group, task)


def _about_group(context: Context, workflow: Workflow, input_: GroupInput) -> None:
    group = context.ledger.groups.get((input_.workflow, input_.group))
    if group is None:
        _unknown(context.decision, input_, "group")
        return
    match input_:
        case Offer():
            groups.offer(context, workflow, group)
        case Wake():
            groups.wake(context, workflow, group)
        case Block():
            groups.block(context, workflow, group, input_.cause)
        case EndGroup():
            groups.end(context, workflow, group, input_.verdict, input_.message)
        case RestartGroup():
            groups.restart(context, workflow, group, input_.message)
        case Due():
            groups.due(context, workflow, group)
        case Relocate():
            moving.relocate(context, workflow, group)
        case Lose():
            moving.lose(context, workflow, group)


def _unknown(decision: Decision, input_: Input | TaskInput | GroupInput, what: str) -> None:
    fact = input_ if isinstance(input_, TaskInput) else None
    decision.effects.append(
        Anomaly(input_.workflow, repr(input_), f"the engine knows no such {what}", fact)
    )
