"""Decisions about whole workflows: their status, and their cancellation."""

from __future__ import annotations

from datetime import datetime

from cairn_common.status import TaskStatus, WorkflowStatus
from cairn_engine.core import groups
from cairn_engine.core.context import Context
from cairn_engine.core.inputs import Announce, CancelPage, CancelRequested, Decision
from cairn_engine.core.ledger import Ledger
from cairn_engine.core.model import Workflow

_DOMINANT = (
    TaskStatus.FAILED_CANCELED,
    TaskStatus.FAILED_SERVER_ERROR,
    TaskStatus.FAILED_EXEC_TIMEOUT,
    TaskStatus.FAILED_QUEUE_TIMEOUT,
)
"""If any group ended so, the workflow did. Source: OSMO user guide, workflow statuses."""


def status_of(workflow: Workflow) -> WorkflowStatus:
    """The status that follows from the counters, in constant time."""
    if workflow.groups_open:
        if workflow.started_at is None:
            return WorkflowStatus.PENDING
        return WorkflowStatus.RUNNING if workflow.groups_active else WorkflowStatus.WAITING
    failures = workflow.failures
    for status in _DOMINANT:
        if failures.get(status):
            return WorkflowStatus(status)
    own = [status for status in failures if status != TaskStatus.FAILED_UPSTREAM]
    if not failures:
        return WorkflowStatus.COMPLETED
    return WorkflowStatus(own[0]) if len(own) == 1 else WorkflowStatus.FAILED


def refresh(context: Context, workflow: Workflow) -> None:
    """Remember that the workflow's counters have changed; `conclude` looks at them."""
    context.ledger.recounted.add(workflow.id)
    context.ledger.touch_workflow(workflow)


def conclude(ledger: Ledger, now: datetime, decision: Decision) -> None:
    """Give workflows the status that their counters say, and announce the changes.

    Called once at the end of a transaction, so that a status which lasts only between two
    decisions of the same moment is never seen.
    """
    for name in sorted(ledger.recounted):
        workflow = ledger.workflows[name]
        status = status_of(workflow)
        if status is workflow.status:
            continue
        previous, workflow.status = workflow.status, status
        if status.final:
            workflow.ended_at = now
            if status is WorkflowStatus.COMPLETED:
                workflow.cause = None
        decision.effects.append(Announce(name, status, previous, workflow.cause))
    ledger.recounted.clear()


def cancel(context: Context, workflow: Workflow, request: CancelRequested) -> None:
    """Take note of the request and begin to end the groups, a page at a time."""
    if workflow.status.final or (workflow.cancel_by is not None and not request.force):
        return
    workflow.cancel_by = request.user
    workflow.cancel_message = request.message
    workflow.cancel_force = request.force
    workflow.cause = cancel_cause(workflow)
    context.ledger.touch_workflow(workflow)
    context.decision.follow_ups.append(CancelPage(workflow.id))


def cancel_cause(workflow: Workflow) -> str:
    """Who canceled the workflow, and why."""
    words = f": {workflow.cancel_message}" if workflow.cancel_message else ""
    return f"canceled by {workflow.cancel_by}{words}"


def cancel_page(context: Context, workflow: Workflow, page: CancelPage) -> None:
    """End the open groups of a page, and go on with the next page if this one was full."""
    ledger = context.ledger
    indices = ledger.pages.get(workflow.id, [])
    for index in indices:
        group = ledger.groups[workflow.id, index]
        if workflow.cancel_force:
            group.verdict = None  # force overrides a graceful end that is under way
        groups.end(
            context,
            workflow,
            group,
            TaskStatus.FAILED_CANCELED,
            cancel_cause(workflow),
            force=workflow.cancel_force,
        )
    if len(indices) >= context.policy.page:
        context.decision.follow_ups.append(CancelPage(workflow.id, indices[-1] + 1))
