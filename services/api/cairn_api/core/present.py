"""From what the API reads to what it answers.

The models are built without validation: their values come from our own rows, and a workflow
of a hundred thousand tasks is answered from here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote

from cairn_api.core.answers import (
    GroupAnswer,
    ListAnswer,
    ListEntry,
    ListTaskAnswer,
    ListTaskEntry,
    Plugins,
    TaskAnswer,
    TaskEntry,
    TaskSumAnswer,
    TaskSumEntry,
    WatchAnswer,
    WatchGroup,
    WatchTask,
    WorkflowAnswer,
)
from cairn_api.core.model import Group, ListedTask, Snapshot, Task, TaskSum, Workflow
from cairn_common.status import TaskStatus

_GI = 1 << 30


@dataclass(frozen=True, slots=True)
class Links:
    """The addresses of a workflow's pages; `base` is where the API is reached."""

    base: str

    def overview(self, workflow: str) -> str:
        return f"{self.base}/workflows/{quote(workflow)}"

    def of(self, workflow: str, what: str) -> str:
        return f"{self.base}/api/workflow/{quote(workflow)}/{what}"

    def of_task(self, workflow: str, what: str, task: Task) -> str:
        return f"{self.of(workflow, what)}?task_name={quote(task.name)}&retry_id={task.attempt}"


def queued_seconds(workflow: Workflow, now: datetime) -> float:
    """How long it has waited, or had waited when it started or ended."""
    until = workflow.started_at or workflow.ended_at or now
    return max(0.0, (until - workflow.submitted_at).total_seconds())


def run_seconds(started: datetime | None, ended: datetime | None, now: datetime) -> float | None:
    """How long something has run; None if it has not started."""
    return None if started is None else max(0.0, ((ended or now) - started).total_seconds())


def workflow_answer(
    snapshot: Snapshot, links: Links, now: datetime, *, rendered: str | None, template: str | None
) -> WorkflowAnswer:
    """The full answer. Texts that are None are answered as addresses, as the reference does."""
    workflow = snapshot.workflow
    spec = links.of(workflow.id, "spec")
    return WorkflowAnswer.model_construct(
        name=workflow.id,
        uuid=workflow.uuid,
        submitted_by=workflow.user,
        cancelled_by=workflow.cancel_by,
        spec=spec if rendered is None else rendered,
        template_spec=f"{spec}?use_template=true" if template is None else template,
        logs=links.of(workflow.id, "logs"),
        events=links.of(workflow.id, "events"),
        overview=links.overview(workflow.id),
        parent_name=_name_of(workflow.parent),
        parent_job_id=_number_of(workflow.parent),
        tags=list(workflow.tags),
        submit_time=workflow.submitted_at,
        start_time=workflow.started_at,
        end_time=workflow.ended_at,
        exec_timeout=workflow.exec_timeout,
        queue_timeout=workflow.queue_timeout,
        duration=run_seconds(workflow.started_at, workflow.ended_at, now),
        queued_time=queued_seconds(workflow, now),
        status=workflow.status,
        groups=_groups(snapshot, links),
        pool=workflow.pool,
        backend=workflow.cluster,
        plugins=Plugins(),
        priority=workflow.priority,
        labels=dict(workflow.labels),
        warnings=list(workflow.warnings),
        failure_message=workflow.cause,
    )


def _name_of(workflow: str | None) -> str | None:
    return workflow.rpartition("-")[0] if workflow else None


def _number_of(workflow: str | None) -> int | None:
    return int(workflow.rpartition("-")[2]) if workflow else None


def _groups(snapshot: Snapshot, links: Links) -> list[GroupAnswer]:
    tasks: Mapping[int, Sequence[Task]] = _by_group(snapshot.tasks)
    groups = {group.index: group for group in snapshot.groups}
    workflow = snapshot.workflow.id
    return [
        GroupAnswer.model_construct(
            name=group.name,
            status=TaskStatus(group.status),
            start_time=group.started_at,
            end_time=group.ended_at,
            processing_start_time=group.processing_at,
            scheduling_start_time=group.scheduling_at,
            initializing_start_time=group.initializing_at,
            remaining_upstream_groups=[groups[i].name for i in _remaining(group, groups)],
            downstream_groups=[groups[i].name for i in group.downstream],
            failure_message=group.message,
            tasks=[_task(workflow, task, links) for task in tasks.get(group.index, ())],
        )
        for group in snapshot.groups
    ]


def _remaining(group: Group, groups: Mapping[int, Group]) -> list[int]:
    return [index for index in group.upstream if groups[index].status != TaskStatus.COMPLETED]


def _by_group(tasks: Iterable[Task]) -> Mapping[int, Sequence[Task]]:
    grouped: defaultdict[int, list[Task]] = defaultdict(list)
    for task in tasks:
        grouped[task.group].append(task)
    return grouped


def _task(workflow: str, task: Task, links: Links) -> TaskAnswer:
    status = TaskStatus(task.status)
    return TaskAnswer.model_construct(
        name=task.name,
        retry_id=task.attempt,
        status=status,
        failure_message=task.message,
        exit_code=task.exit_code,
        logs=links.of_task(workflow, "logs", task),
        error_logs=links.of_task(workflow, "error_logs", task) if status.failed else None,
        processing_start_time=task.processing_at,
        scheduling_start_time=task.scheduling_at,
        initializing_start_time=task.initializing_at,
        events=links.of_task(workflow, "events", task),
        start_time=task.started_at,
        end_time=task.ended_at,
        pod_name=f"{task.name}-{task.attempt}",
        task_uuid=task.uuid,
        node_name=task.node,
        lead=task.lead,
    )


def list_answer(
    workflows: Sequence[Workflow], links: Links, now: datetime, *, more: bool
) -> ListAnswer:
    """A page of workflows."""
    return ListAnswer.model_construct(
        workflows=[
            ListEntry.model_construct(
                user=workflow.user,
                name=workflow.id,
                workflow_uuid=workflow.uuid,
                submit_time=workflow.submitted_at,
                start_time=workflow.started_at,
                end_time=workflow.ended_at,
                queued_time=queued_seconds(workflow, now),
                duration=run_seconds(workflow.started_at, workflow.ended_at, now),
                status=workflow.status,
                overview=links.overview(workflow.id),
                logs=links.of(workflow.id, "logs"),
                error_logs=links.of(workflow.id, "error_logs") if workflow.tasks_failed else None,
                pool=workflow.pool,
                priority=workflow.priority,
                labels=dict(workflow.labels),
            )
            for workflow in workflows
        ],
        more_entries=more,
    )


def task_list_answer(tasks: Sequence[ListedTask], links: Links, now: datetime) -> ListTaskAnswer:
    """A page of attempts."""
    return ListTaskAnswer.model_construct(
        tasks=[
            ListTaskEntry.model_construct(
                user=listed.user,
                workflow_id=listed.workflow,
                workflow_uuid=listed.workflow_uuid,
                task_name=listed.task.name,
                retry_id=listed.task.attempt,
                pool=listed.pool,
                node=listed.task.node,
                start_time=listed.task.started_at,
                end_time=listed.task.ended_at,
                duration=run_seconds(listed.task.started_at, listed.task.ended_at, now),
                status=TaskStatus(listed.task.status),
                overview=links.overview(listed.workflow),
                logs=links.of_task(listed.workflow, "logs", listed.task),
                error_logs=links.of_task(listed.workflow, "error_logs", listed.task)
                if TaskStatus(listed.task.status).failed
                else None,
                storage=listed.request.storage / _GI,
                cpu=listed.request.cpu,
                memory=listed.request.memory / _GI,
                gpu=listed.request.gpu,
                priority=listed.priority,
            )
            for listed in tasks
        ]
    )


def task_entry(listed: ListedTask) -> TaskEntry:
    """One task by its newest attempt."""
    return TaskEntry.model_construct(
        workflow_id=listed.workflow,
        task_name=listed.task.name,
        node=listed.task.node,
        start_time=listed.task.started_at,
        end_time=listed.task.ended_at,
        status=TaskStatus(listed.task.status),
        storage=listed.request.storage / _GI,
        cpu=listed.request.cpu,
        memory=listed.request.memory / _GI,
        gpu=listed.request.gpu,
    )


def sums_answer(sums: Sequence[TaskSum]) -> TaskSumAnswer:
    """Sums of what tasks ask for."""
    return TaskSumAnswer.model_construct(
        summaries=[
            TaskSumEntry.model_construct(
                user=total.user,
                pool=total.pool,
                priority=total.priority,
                storage=total.request.storage / _GI,
                cpu=total.request.cpu,
                memory=total.request.memory / _GI,
                gpu=total.request.gpu,
                workflow_id=total.workflow,
            )
            for total in sums
        ]
    )


def watch_answer(snapshot: Snapshot) -> WatchAnswer:
    """The data of a server-sent event."""
    workflow = snapshot.workflow
    tasks = _by_group(snapshot.tasks)
    names = {group.index: group.name for group in snapshot.groups}
    return WatchAnswer.model_construct(
        name=workflow.id,
        status=workflow.status,
        failure_message=workflow.cause,
        submit_time=workflow.submitted_at,
        start_time=workflow.started_at,
        end_time=workflow.ended_at,
        tasks_total=workflow.tasks_total,
        tasks_completed=workflow.tasks_completed,
        tasks_failed=workflow.tasks_failed,
        final=workflow.status.final,
        groups=[
            WatchGroup.model_construct(
                name=group.name,
                status=TaskStatus(group.status),
                failure_message=group.message,
                upstream=[names[index] for index in group.upstream],
                tasks=[
                    WatchTask.model_construct(
                        name=task.name,
                        retry_id=task.attempt,
                        status=TaskStatus(task.status),
                        exit_code=task.exit_code,
                        failure_message=task.message,
                        node_name=task.node,
                        lead=task.lead,
                        start_time=task.started_at,
                        end_time=task.ended_at,
                    )
                    for task in tasks.get(group.index, ())
                ],
            )
            for group in snapshot.groups
        ],
    )
