"""What the API answers, as values.

Fields that this version does not know are ignored, so a newer server does no harm; for the same
reason a status is text (compare it with `cairn_common.status`). `raw` keeps the answer as it came,
for whoever passes it on. The API's times are UTC without an offset; here they say so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, PrivateAttr

from cairn_common.status import TaskStatus, WorkflowStatus


def _in_utc(at: datetime) -> datetime:
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


Time = Annotated[datetime, AfterValidator(_in_utc)]
_OPEN_WORKFLOW = frozenset(status.value for status in WorkflowStatus if not status.final)
_OPEN_TASK = frozenset(status.value for status in TaskStatus if not status.final)


class Answer(BaseModel):
    """Anything the API says."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    _raw: Mapping[str, Any] = PrivateAttr(default_factory=dict)

    @classmethod
    def parse(cls, data: Any) -> Self:
        """From decoded JSON.

        Raises:
            pydantic.ValidationError: it is something else.
        """
        answer = cls.model_validate(data)
        answer._raw = data
        return answer

    @property
    def raw(self) -> Mapping[str, Any]:
        """The JSON as the server sent it, with the fields that this version does not know."""
        return self._raw


class Submission(Answer):
    """What became of a workflow that was sent. Of a dry run, `spec` is the rendered text."""

    name: str
    overview: str | None = None
    logs: str | None = None
    spec: str | None = None
    dashboard_url: str | None = None
    warnings: tuple[str, ...] = ()


class _TaskLike(Answer):
    name: str
    status: str
    retry_id: int = 0
    exit_code: int | None = None
    failure_message: str | None = None
    node_name: str | None = None
    lead: bool = False
    start_time: Time | None = None
    end_time: Time | None = None

    @property
    def final(self) -> bool:
        """Whether this attempt has ended."""
        return self.status not in _OPEN_TASK

    @property
    def failed(self) -> bool:
        """Whether it ended without success."""
        return self.status.startswith("FAILED")

    def seconds(self, now: datetime) -> float | None:
        """How long the user's command has run, or ran; None before it starts."""
        if self.start_time is None:
            return None
        return max(0.0, ((self.end_time or now) - self.start_time).total_seconds())


class Task(_TaskLike):
    """One attempt of a task; `retry_id` 0 is the first."""

    logs: str = ""
    error_logs: str | None = None
    events: str = ""
    processing_start_time: Time | None = None
    scheduling_start_time: Time | None = None
    initializing_start_time: Time | None = None
    input_download_start_time: Time | None = None
    input_download_end_time: Time | None = None
    output_upload_start_time: Time | None = None
    pod_name: str = ""
    pod_ip: str | None = None
    task_uuid: str = ""


class Group(Answer):
    """Tasks that run together, with all their attempts, the newest of each last."""

    name: str
    status: str
    start_time: Time | None = None
    end_time: Time | None = None
    remaining_upstream_groups: tuple[str, ...] | None = None
    downstream_groups: tuple[str, ...] | None = None
    failure_message: str | None = None
    tasks: tuple[Task, ...] = ()


class _WorkflowLike(Answer):
    name: str
    status: str

    @property
    def final(self) -> bool:
        """Whether nothing about it will change any more."""
        return self.status not in _OPEN_WORKFLOW

    @property
    def succeeded(self) -> bool:
        """Whether it ended as its author wished."""
        return self.status == WorkflowStatus.COMPLETED


class Workflow(_WorkflowLike):
    """Everything about one workflow."""

    uuid: str = ""
    submitted_by: str = ""
    cancelled_by: str | None = None
    failure_message: str | None = None
    overview: str = ""
    logs: str = ""
    tags: tuple[str, ...] = ()
    labels: Mapping[str, str] = {}
    warnings: tuple[str, ...] = ()
    pool: str | None = None
    backend: str | None = None
    priority: str = ""
    submit_time: Time
    start_time: Time | None = None
    end_time: Time | None = None
    duration: float | None = None
    queued_time: float | None = None
    groups: tuple[Group, ...] = ()


class WorkflowEntry(_WorkflowLike):
    """A workflow in a list."""

    user: str = ""
    workflow_uuid: str = ""
    pool: str | None = None
    priority: str = ""
    labels: Mapping[str, str] = {}
    overview: str = ""
    submit_time: Time
    start_time: Time | None = None
    end_time: Time | None = None
    duration: float | None = None
    queued_time: float | None = None


class WorkflowPage(Answer):
    """Some workflows; `more_entries` says whether others follow after them."""

    workflows: tuple[WorkflowEntry, ...]
    more_entries: bool = False


class TaskEntry(Answer):
    """A task in a list over all workflows. Memory and storage in Gi."""

    user: str = ""
    workflow_id: str
    task_name: str
    retry_id: int = 0
    status: str
    pool: str | None = None
    priority: str = ""
    node: str | None = None
    start_time: Time | None = None
    end_time: Time | None = None
    duration: float | None = None
    storage: float = 0
    cpu: int = 0
    memory: float = 0
    gpu: int = 0


class TaskPage(Answer):
    """Some tasks."""

    tasks: tuple[TaskEntry, ...]


class SnapshotTask(_TaskLike):
    """One attempt of a task at the moment of a snapshot."""


class SnapshotGroup(Answer):
    """A group at the moment of a snapshot; `upstream` names the groups it needs."""

    name: str
    status: str
    failure_message: str | None = None
    upstream: tuple[str, ...] = ()
    tasks: tuple[SnapshotTask, ...] = ()

    @property
    def newest(self) -> tuple[SnapshotTask, ...]:
        """The newest attempt of each task."""
        return tuple({task.name: task for task in self.tasks}.values())


class Snapshot(_WorkflowLike):
    """How a workflow fares at one moment. Each is complete: nothing of an earlier one is needed."""

    failure_message: str | None = None
    submit_time: Time | None = None
    start_time: Time | None = None
    end_time: Time | None = None
    groups: tuple[SnapshotGroup, ...] = ()

    @property
    def tasks(self) -> Iterator[SnapshotTask]:
        """The newest attempt of every task."""
        return (task for group in self.groups for task in group.newest)


class DeadLetterEntry(Answer):
    """A message that a service could not handle; `size` in bytes."""

    id: int
    service: str
    subject: str
    reason: str
    time: Time
    size: int


class DeadLetter(DeadLetterEntry):
    """One with its headers and its body: text, or base64; the beginning, if not `complete`."""

    headers: Mapping[str, str]
    body: str
    base64: bool = False
    complete: bool = True


class DeadLetterPage(Answer):
    """The newest dead letters, the newest of them last."""

    dead_letters: tuple[DeadLetterEntry, ...]
    more_entries: bool = False


class Cluster(Answer):
    """A cluster; `features` and `tasks` (by status) are given for one only. Memory in bytes."""

    name: str
    state: str
    status: str
    pools: tuple[str, ...] = ()
    registered: Time
    nodes: int = 0
    cpu: int = 0
    used_cpu: int = 0
    gpu: int = 0
    used_gpu: int = 0
    memory: int = 0
    used_memory: int = 0
    features: tuple[str, ...] = ()
    tasks: Mapping[str, int] = {}


class ClusterList(Answer):
    """The clusters that have registered."""

    clusters: tuple[Cluster, ...] = ()


class ResourceUsage(Answer):
    """Counts of GPUs, which the API writes as text."""

    quota_used: str
    quota_free: str
    quota_limit: str
    total_usage: str
    total_capacity: str
    total_free: str


class Pool(Answer):
    """A pool with its use."""

    name: str
    description: str = ""
    status: str | None = None
    backend: str = ""
    resource_usage: ResourceUsage


class NodeSet(Answer):
    """Pools that share nodes."""

    pools: tuple[Pool, ...] = ()


class PoolUse(Answer):
    """The use of pools, and of all of them together."""

    node_sets: tuple[NodeSet, ...] = ()
    resource_sum: ResourceUsage

    @property
    def pools(self) -> Iterator[Pool]:
        """All of them."""
        return (pool for each in self.node_sets for pool in each.pools)


class Resource(Answer):
    """A node; amounts as Kubernetes writes them."""

    hostname: str
    backend: str = ""
    allocatable_fields: Mapping[str, Any] = {}
    usage_fields: Mapping[str, Any] = {}
    pool_platform_labels: Mapping[str, tuple[str, ...]] = {}
    conditions: tuple[str, ...] | None = None


class ResourceList(Answer):
    """Nodes."""

    resources: tuple[Resource, ...] = ()


class Version(Answer):
    """The contract the server keeps (`major.minor.revision`); its own version is `hash`."""

    major: str
    minor: str
    revision: str
    hash: str | None = None

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.revision}"
