"""From a validated specification to the rows of a new workflow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from cairn_common.spec.graph import GroupNode, build_graph
from cairn_common.spec.models import GroupSpec, TaskInput, TaskSpec, UrlOutput, WorkflowSpec
from cairn_common.status import TaskStatus, WorkflowStatus
from cairn_engine.core.inputs import Offer
from cairn_engine.core.model import Group, Task, Workflow


@dataclass(frozen=True, slots=True)
class Plan:
    """The rows of a new workflow; `bodies` are the unchanging parts of its groups' placements."""

    workflow: Workflow
    exec_timeout: float | None
    queue_timeout: float | None
    groups: list[Group]
    upstream: list[list[int]]
    tasks: list[Task]
    bodies: list[dict[str, Any]]

    @property
    def roots(self) -> list[Offer]:
        """The groups that wait for nothing."""
        return [Offer(group.workflow, group.index) for group in self.groups if not group.unmet]


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
) -> Plan:
    """Build the graph and lay out its entities, linear in the size of the specification.

    Raises:
        SpecError: the graph has a cycle or an input that points nowhere.
    """
    graph = build_graph(spec)
    exec_timeout = _seconds(spec.timeout.exec_timeout)
    queue_timeout = _seconds(spec.timeout.queue_timeout)
    groups: list[Group] = []
    tasks: list[Task] = []
    bodies: list[dict[str, Any]] = []
    for node, group_spec in zip(graph.groups, spec.all_groups, strict=True):
        group_uuid = f"{uuid[:16]}{node.index:08x}"
        groups.append(
            Group(
                workflow=workflow,
                index=node.index,
                name=node.name,
                uuid=group_uuid,
                status=TaskStatus.WAITING,
                unmet=len(node.upstream),
                downstream=list(node.downstream),
                first_task=node.tasks[0].index,
                size=len(node.tasks),
                open=len(node.tasks),
                lead=next(task.index for task in node.tasks if task.lead),
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
                    exit_actions=_exit_actions(task_spec),
                )
            )
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
                "tasks": _task_bodies(spec, group_spec, node, uuid),
            }
        )
    return Plan(
        workflow=Workflow(
            id=workflow,
            uuid=uuid,
            status=WorkflowStatus.PENDING,
            cluster=cluster,
            submitted_at=submitted_at,
            groups_total=len(groups),
            groups_open=len(groups),
            max_retries=max_retries,
            traceparent=traceparent,
        ),
        exec_timeout=exec_timeout,
        queue_timeout=queue_timeout,
        groups=groups,
        upstream=[list(node.upstream) for node in graph.groups],
        tasks=tasks,
        bodies=bodies,
    )


def _seconds(duration: timedelta | None) -> float | None:
    return None if duration is None else duration.total_seconds()


def _task_uuid(workflow_uuid: str, index: int) -> str:
    return f"{workflow_uuid[:16]}{index:016x}"


def _exit_actions(task: TaskSpec) -> list[tuple[str, int, int]] | None:
    return [
        (action, low, high) for action, ranges in task.exit_actions.items() for low, high in ranges
    ] or None


def _task_bodies(
    spec: WorkflowSpec, group: GroupSpec, node: GroupNode, uuid: str
) -> list[dict[str, Any]]:
    bodies = []
    for task_node, task in zip(node.tasks, group.tasks, strict=True):
        resource = spec.resource_of(task)
        sources = iter(task_node.inputs)
        body: dict[str, Any] = {
            "index": task_node.index,
            "name": task.name,
            "uuid": _task_uuid(uuid, task_node.index),
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
            "args": list(task.args),
            "environment": dict(task.environment),
            "files": [
                {"path": file.path, "contents": file.contents or "", "base64": file.base64}
                for file in task.files
            ],
            "inputs": [
                {"task": source.task, "source": next(sources), "regex": source.regex}
                if isinstance(source, TaskInput)
                else {"url": getattr(source, "url", None), "regex": getattr(source, "regex", None)}
                for source in task.inputs
            ],
            "outputs": [
                {"url": target.url, "regex": target.regex}
                for target in task.outputs
                if isinstance(target, UrlOutput)
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
        }
        body |= {name: value for name, value in optional.items() if value}
        bodies.append(body)
    return bodies


def complete_body(
    body: Mapping[str, Any],
    attempts: Mapping[int, int],
    completed: Mapping[int, int],
) -> dict[str, Any]:
    """A placement of some tasks of a group: the stored body with what was open until now.

    Args:
        body: as `make_plan` made it.
        attempts: task index to the attempt to place; tasks that are not in it are left out.
        completed: task index of an upstream task to the attempt that left the outputs.
    """
    uuid = body["workflow_uuid"]
    tasks = []
    for task in body["tasks"]:
        attempt = attempts.get(task["index"])
        if attempt is None:
            continue
        placed = {**task, "attempt": attempt}
        placed["location"] = location_of(uuid, task["name"], attempt)
        if "inputs" in task:
            placed["inputs"] = [
                source
                if "source" not in source
                else {
                    "task": source["task"],
                    "regex": source["regex"],
                    "location": location_of(
                        uuid, source["task"], completed.get(source["source"], 0)
                    ),
                }
                for source in task["inputs"]
            ]
        tasks.append(placed)
    return {**body, "tasks": tasks}


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
