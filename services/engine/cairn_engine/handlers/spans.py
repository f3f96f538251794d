"""Spans of attempts and workflows that have ended; see `cairn_common.telemetry.tracing`.

They are recorded when a batch is stored, from what is in memory anyway, and only where somebody
wants spans: the core knows nothing of them.
"""

from __future__ import annotations

from opentelemetry.trace import StatusCode

from cairn_common.status import TaskStatus, WorkflowStatus
from cairn_common.telemetry import attempt_traceparent, record_span, workflow_traceparent
from cairn_engine.core import Decision, Ledger, Task, Workflow
from cairn_engine.core.inputs import Announce


class EndSpans:
    """Spans of the attempts and workflows that end in a batch: gathered before it is stored, when
    all entities are at hand, and recorded after it was."""

    def __init__(self, ledger: Ledger, decision: Decision) -> None:
        workflows = ledger.workflows
        self._tasks = [(task, workflows[task.workflow]) for task in decision.ended]
        self._workflows = [
            workflows[effect.workflow]
            for effect in decision.effects
            if isinstance(effect, Announce) and effect.status.final
        ]
        self.traceparents = {
            name: workflow.traceparent
            for name, workflow in workflows.items()
            if workflow.traceparent
        }

    def record(self) -> None:
        """Make the spans."""
        for task, workflow in self._tasks:
            _record_attempt(task, workflow)
        for workflow in self._workflows:
            _record_workflow(workflow)


def _record_attempt(task: Task, workflow: Workflow) -> None:
    started = task.started_at or task.processing_at
    if workflow.traceparent is None or started is None or task.ended_at is None:
        return  # what was never handed to a cluster has no time of its own
    attributes: dict[str, str | int] = {
        "cairn.workflow": task.workflow,
        "cairn.task": task.name,
        "cairn.attempt": task.attempt,
        "cairn.status": task.status.value,
    }
    if task.exit_code is not None:
        attributes["process.exit.code"] = task.exit_code
    if task.node is not None:
        attributes["cairn.node"] = task.node
    completed = task.status is TaskStatus.COMPLETED
    record_span(
        f"task {task.name}",
        workflow_traceparent(workflow.traceparent, workflow.uuid),
        started,
        task.ended_at,
        attributes,
        own=attempt_traceparent(workflow.traceparent, task.uuid, task.attempt),
        status=StatusCode.OK if completed else StatusCode.ERROR,
        message=task.message or task.status.value,
    )


def _record_workflow(workflow: Workflow) -> None:
    if workflow.traceparent is None or workflow.ended_at is None:
        return
    completed = workflow.status is WorkflowStatus.COMPLETED
    record_span(
        # The name in the file: an id without its number.
        f"workflow {workflow.id.rpartition('-')[0] or workflow.id}",
        workflow.traceparent,
        workflow.submitted_at,
        workflow.ended_at,
        {
            "cairn.workflow": workflow.id,
            "cairn.status": workflow.status.value,
            "cairn.tasks_completed": workflow.tasks_completed,
            "cairn.tasks_failed": workflow.tasks_failed,
        },
        own=workflow_traceparent(workflow.traceparent, workflow.uuid),
        status=StatusCode.OK if completed else StatusCode.ERROR,
        message=workflow.cause or workflow.status.value,
    )
