"""From a validated specification to the rows of a new workflow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeAlias

from cairn_common.spec.graph import GroupNode, build_graph
from cairn_common.spec.models import GroupSpec, TaskInput, TaskSpec, UrlOutput, WorkflowSpec
from cairn_common.status import TaskStatus, WorkflowStatus
from cairn_engine.core.inputs import Offer
from cairn_engine.core.model import Group, Task, Workflow
from cairn_engine.core.policy import ExitRule, Policy

Finished: TypeAlias = dict[str, dict[str, Task]]
"""Groups that need not run again, by name: the last attempt of each of their tasks, by name."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The rows of a new workflow; `bodies` are the unchanging parts of its groups' placements."""

    workflow: Workflow
    name: str
    user: str
    pool: str
    priority: str
    labels: dict[str, str]
    exec_timeout: float | None
    queue_timeout: float | None
    groups: list[Group]
    upstream: list[list[int]]
    tasks: list[Task]
    bodies: list[dict[str, Any]]

    @property
    def roots(self) -> list[Offer]:
        """The groups that wait for nothing."""
        return [
            Offer(group.workflow, group.index)
            for group in self.groups
            if not group.unmet and not group.status.final
        ]


def make_plan(
    spec: WorkflowSpec,
    *,
    workflow: str,
    uuid: str,
    user: str,
    pool: str,
    priority: str,
    cluster: str,
    submitted_at: datetime,
    traceparent: str | None,
    max_retries: int,
    policy: Policy | None = None,
    exit_actions: Sequence[ExitRule] = (),
    labels: dict[str, str] | None = None,
    parent: str | None = None,
    finished: Finished | None = None,
) -> Plan:
    """Build the graph and lay out its entities, linear in the size of the specification.

    Args:
        spec: what was submitted; the other arguments are how and by whom.
        max_retries: of tasks that do not say it themselves.
        policy: whose back-off is that of restarts, too.
        exit_actions: the pool's, which come after each task's own.
        parent: the earlier workflow that this one restarts.
        finished: what of that one is taken over as it is.

    Raises:
        SpecError: the graph has a cycle or an input that points nowhere.
    """
    graph = build_graph(spec)
    exec_timeout = _seconds(spec.timeout.exec_timeout)
    queue_timeout = _seconds(spec.timeout.queue_timeout)
    groups: list[Group] = []
    tasks: list[Task] = []
    bodies: list[dict[str, Any]] = []
    taken_over = {
        node.index
        for node in graph.groups
        if (known := (finished or {}).get(node.name))
        and known.keys() >= {task.name for task in node.tasks}
    }
    for node, group_spec in zip(graph.groups, spec.all_groups, strict=True):
        group_uuid = f"{uuid[:16]}{node.index:08x}"
        groups.append(
            Group(
                workflow=workflow,
                index=node.index,
                name=node.name,
                uuid=group_uuid,
                status=TaskStatus.WAITING,
                unmet=sum(index not in taken_over for index in node.upstream),
                downstream=list(node.downstream),
                first_task=node.tasks[0].index,
                size=len(node.tasks),
                open=len(node.tasks),
                lead=next(task.index for task in node.tasks if task.lead),
                cluster=cluster,
                ignore_nonlead=group_spec.ignore_nonlead_status,
                exec_timeout=exec_timeout,
                queue_timeout=queue_timeout,
            )
        )
        for task_node, task_spec in zip(node.tasks, group_spec.tasks, strict=True):
            tasks.append(
                Task(
                    workflow=workflow,
                    index=task_node.index,
                    attempt=0,
                    group=node.index,
                    name=task_node.name,
                    uuid=_task_uuid(uuid, task_node.index),
                    lead=task_node.lead,
                    status=TaskStatus.WAITING,
                    max_retries=_either(task_spec.max_retries, max_retries),
                    exit_actions=[*_exit_actions(task_spec), *exit_actions] or None,
                )
            )
        if finished and node.index in taken_over:
            _take_over(groups[-1], tasks[-len(node.tasks) :], finished[node.name])
        bodies.append(
            {
                "workflow": workflow,
                "workflow_uuid": uuid,
                "group": node.name,
                "group_index": node.index,
                "group_uuid": group_uuid,
                "barrier": group_spec.barrier,
                "user": user,
                "pool": pool,
                "priority": priority,
                "tasks": _task_bodies(
                    spec, group_spec, node, tasks[-len(node.tasks) :], policy or Policy()
                ),
            }
        )
    return Plan(
        workflow=Workflow(
            id=workflow,
            uuid=uuid,
            status=WorkflowStatus.PENDING,
            cluster=cluster,
            pool=pool,
            submitted_at=submitted_at,
            groups_total=len(groups),
            groups_open=len(groups) - len(taken_over),
            parent=parent,
            traceparent=traceparent,
            tasks_completed=sum(task.status is TaskStatus.COMPLETED for task in tasks),
            tasks_failed=sum(task.status.failed for task in tasks),
        ),
        name=spec.name,
        user=user,
        pool=pool,
        priority=priority,
        labels=labels or {},
        exec_timeout=exec_timeout,
        queue_timeout=queue_timeout,
        groups=groups,
        upstream=[list(node.upstream) for node in graph.groups],
        tasks=tasks,
        bodies=bodies,
    )


def _take_over(group: Group, tasks: list[Task], known: dict[str, Task]) -> None:
    """Give a new group and its tasks the end that they had in an earlier workflow."""
    for task in tasks:
        earlier = known[task.name]
        for name in _TAKEN_OVER:
            setattr(task, name, getattr(earlier, name))
        task.archived = task.reported = True
    group.status = TaskStatus.COMPLETED
    group.open = 0
    group.started_at = min((t.started_at for t in tasks if t.started_at), default=None)
    group.ended_at = max((t.ended_at for t in tasks if t.ended_at), default=None)


_TAKEN_OVER = (
    "attempt", "status", "exit_code", "reason", "message", "node", "processing_at",
    "scheduling_at", "initializing_at", "started_at", "ended_at", "cluster", "location",
)  # fmt: skip


def _either(own: int | None, usual: int) -> int:
    return usual if own is None else own


def _seconds(duration: timedelta | None) -> float | None:
    return None if duration is None else duration.total_seconds()


def _task_uuid(workflow_uuid: str, index: int) -> str:
    return f"{workflow_uuid[:16]}{index:016x}"


def _exit_actions(task: TaskSpec) -> list[ExitRule]:
    return [
        (action, low, high) for action, ranges in task.exit_actions.items() for low, high in ranges
    ]


def _restart(rules: Sequence[ExitRule], limit: int, policy: Policy) -> dict[str, Any] | None:
    """What the cluster does about RESTART by itself: see `RestartPolicy` of the catalogue."""
    codes = [(low, high) for action, low, high in rules if action == "RESTART"]
    if not codes or not limit:
        return None
    return {
        "exit_codes": codes,
        "limit": limit,
        "backoff_seconds": policy.backoff_base,
        "backoff_max_seconds": policy.backoff_max,
    }


def _task_bodies(
    spec: WorkflowSpec,
    group: GroupSpec,
    node: GroupNode,
    planned: Sequence[Task],
    policy: Policy,
) -> list[dict[str, Any]]:
    bodies = []
    for task_node, task, plan in zip(node.tasks, group.tasks, planned, strict=True):
        resource = spec.resource_of(task)
        sources = iter(task_node.inputs)
        body: dict[str, Any] = {
            "index": task_node.index,
            "name": task.name,
            "uuid": plan.uuid,
            "image": task.image,
            "command": list(task.command),
            "resources": {
                "cpu": resource.cpu,
                "gpu": resource.gpu or 0,
                "memory": resource.memory,
                "storage": resource.storage,
                "platform": resource.platform,
            },
        }
        optional: dict[str, Any] = {
            "lead": task.lead,
            "restart": _restart(plan.exit_actions or (), plan.max_retries, policy),
            "args": list(task.args),
            "environment": dict(task.environment),
            "files": [
                {"path": file.path, "contents": file.contents or "", "base64": file.base64}
                for file in task.files
            ],
            "inputs": [
                {"task": source.task, "source": next(sources), "regex": source.regex}
                if type(source) is TaskInput
                else {"url": getattr(source, "url", None), "regex": getattr(source, "regex", None)}
                for source in task.inputs
            ],
            "outputs": [
                {"url": target.url, "regex": target.regex}
                for target in task.outputs
                if type(target) is UrlOutput
            ],
            "checkpoints": [
                {
                    "path": save.path,
                    "url": save.url,
                    "frequency": save.frequency.total_seconds(),
                    "regex": save.regex,
                }
                for save in task.checkpoint
            ],
            "topology": [
                {
                    "key": each.key,
                    "group": each.group,
                    "required": each.requirement_type == "required",
                }
                for each in resource.topology
            ],
            "nodes_excluded": list(resource.nodes_excluded),
            "privileged": task.privileged,
            "host_network": task.host_network,
            "volume_mounts": list(task.volume_mounts),
            "credentials": task.credentials,
        }
        body |= {name: value for name, value in optional.items() if value}
        bodies.append(body)
    return bodies


def complete_body(
    body: Mapping[str, Any],
    attempts: Mapping[int, int],
    completed: Mapping[tuple[str, int], tuple[int, str | None]],
    limits: Mapping[int, int] | None = None,
) -> dict[str, Any]:
    """A placement of some tasks of a group: the stored body with what was open until now.

    Args:
        body: as `make_plan` made it.
        attempts: task index to the attempt to place; tasks that are not in it are left out.
        completed: workflow and index of an upstream task to the attempt that left the outputs,
            and where, if that is not the usual place.
        limits: task index to how often it may be restarted, where that is not as `make_plan` had
            it: an attempt that moved has one more before it.
    """
    uuid = body["workflow_uuid"]
    tasks = []
    for task in body["tasks"]:
        attempt = attempts.get(task["index"])
        if attempt is None:
            continue
        placed = {**task, "attempt": attempt}
        placed["location"] = location_of(uuid, task["name"], attempt)
        if limits and "restart" in task and task["index"] in limits:
            placed["restart"] = {**task["restart"], "limit": limits[task["index"]]}
        if "inputs" in task:
            placed["inputs"] = [
                source
                if "source" not in source
                else {
                    "task": source["task"],
                    "regex": source["regex"],
                    "location": _source(
                        uuid,
                        source["task"],
                        completed.get((body["workflow"], source["source"])),
                    ),
                }
                for source in task["inputs"]
            ]
        tasks.append(placed)
    return {**body, "tasks": tasks}


def _source(uuid: str, task: str, completed: tuple[int, str | None] | None) -> str:
    attempt, location = completed or (0, None)
    return location or location_of(uuid, task, attempt)


def sources_of(body: Mapping[str, Any]) -> set[int]:
    """The indices of the tasks that a group reads from."""
    return {
        source["source"]
        for task in body["tasks"]
        for source in task.get("inputs", ())
        if "source" in source
    }


def location_of(uuid: str, task: str, attempt: int) -> str:
    """The key below the store's root where an attempt leaves its outputs."""
    return f"workflows/{uuid}/{task}/{attempt}"
