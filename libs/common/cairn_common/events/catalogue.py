"""The catalogue: one model per event, changed only by adding optional fields.

An event names its `type` and derives its subject from its own fields. Facts about tasks carry a
list, because a gang starts and ends together and one message for a thousand tasks is cheaper
than a thousand messages; every list is about one workflow, which is what subscribers filter by.
Models ignore fields that they do not know: a newer sender may say more.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import datetime
from enum import StrEnum
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from cairn_common.events.subjects import partition_of, token
from cairn_common.pools.model import Pool

Priority = Literal["HIGH", "NORMAL", "LOW"]


class Model(BaseModel):
    """What all parts of events have in common."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Event(Model, ABC):
    """Something that happened or is asked for; the base of the catalogue."""

    type: ClassVar[str]

    @abstractmethod
    def subject(self) -> str:
        """The NATS subject that the event is published on."""

    @abstractmethod
    def about(self) -> str:
        """The CloudEvents `subject`: the workflow or cluster that the event is about."""


class WorkflowEvent(Event):
    """An event about one workflow: `<type>.<partition>.<workflow>`."""

    workflow: str = Field(description="The workflow's id, `<name>-<number>`.")

    def subject(self) -> str:
        return f"{self.type}.{partition_of(self.workflow)}.{token(self.workflow)}"

    def about(self) -> str:
        return self.workflow


class BridgeEvent(Event):
    """An event from the engine to one cluster's bridge: `<type>.<cluster>.<workflow>`."""

    cluster: str
    workflow: str

    def subject(self) -> str:
        return f"{self.type}.{token(self.cluster)}.{token(self.workflow)}"

    def about(self) -> str:
        return self.workflow


class ClusterEvent(Event):
    """An event about one cluster: `<type>.<cluster>`."""

    cluster: str

    def subject(self) -> str:
        return f"{self.type}.{token(self.cluster)}"

    def about(self) -> str:
        return self.cluster


# --- requests about workflows: api -> engine -------------------------------------------------


class WorkflowSubmitted(WorkflowEvent):
    """A validated workflow waits to be run; its body is in the view `api.view_submission`."""

    type: ClassVar[str] = "workflow.submitted"

    uuid: str
    user: str
    pool: str
    priority: Priority = "NORMAL"
    submitted_at: datetime


class WorkflowCancel(WorkflowEvent):
    """Somebody asks for a workflow to be canceled."""

    type: ClassVar[str] = "workflow.cancel"

    user: str
    message: str | None = None
    force: bool = Field(default=False, description="Kill at once, without a grace period.")


# --- how workflows fare: engine -> all --------------------------------------------------------


class WorkflowChanged(WorkflowEvent):
    """A workflow has a new status."""

    type: ClassVar[str] = "workflow.changed"

    status: str
    previous: str | None = None
    cause: str | None = Field(default=None, description="Why, in words.")
    at: datetime


class WorkflowFinished(WorkflowEvent):
    """A workflow has its last status; nothing about it will change any more."""

    type: ClassVar[str] = "workflow.finished"

    status: str
    cause: str | None = None
    submitted_at: datetime
    started_at: datetime | None = None
    at: datetime
    tasks_completed: int
    tasks_failed: int


# --- placements: engine -> bridge -------------------------------------------------------------


class Resources(Model):
    """What one task asks for. CPU in cores, memory and storage in bytes."""

    cpu: int | None = None
    gpu: int = 0
    memory: int | None = None
    storage: int | None = None
    platform: str | None = None


class InjectedFile(Model):
    """A file that must stand at an absolute path when the task starts."""

    path: str
    contents: str
    base64: bool = False


class InputSource(Model):
    """Where one input comes from; `{{input:N}}` is its place in the task's list.

    Either the outputs of another task (`task`, and `location`: the key below the store's root
    where that attempt left them) or a storage `url`.
    """

    task: str | None = None
    location: str | None = None
    url: str | None = None
    regex: str | None = None


class OutputTarget(Model):
    """Where the output folder is copied to besides the store."""

    url: str
    regex: str | None = None


class Checkpoint(Model):
    """A folder that is copied to `url` while the task runs, and once more when it ends.

    Source: OSMO user guide, "Checkpointing". `path` and `url` may hold tokens.
    """

    path: str
    url: str
    frequency: float = Field(description="Seconds between the end of one copy and the next one.")
    regex: str | None = None


class Topology(Model):
    """Tasks of a gang with the same `key` and `group` lie close together.

    `key` is one of the pool's topology keys. What is `required` blocks until it can be met.
    """

    key: str
    group: str = "default"
    required: bool = True


class RestartPolicy(Model):
    """Exit codes after which the command runs again in its place, where it left its files.

    Source: OSMO user guide, "Workflow Lifecycle": RESTART re-runs the command on the same task.
    Waits double from `backoff_seconds` to `backoff_max_seconds`.
    """

    exit_codes: list[tuple[int, int]] = Field(description="Ranges, both ends included.")
    limit: int = Field(description="How often at the most.")
    backoff_seconds: float = 1.0
    backoff_max_seconds: float = 300.0


class TaskPlacement(Model):
    """One attempt of one task, with all that is needed to run it."""

    index: int = Field(description="The task's number within its workflow.")
    name: str
    uuid: str
    attempt: int = Field(default=0, description="0 for the first; a fencing token.")
    lead: bool = False
    image: str
    command: list[str]
    args: list[str] = []
    environment: dict[str, str] = {}
    files: list[InjectedFile] = []
    inputs: list[InputSource] = []
    outputs: list[OutputTarget] = []
    checkpoints: list[Checkpoint] = []
    restart: RestartPolicy | None = None
    location: str = Field(default="", description="Key below the store's root for its outputs.")
    resources: Resources = Resources()
    topology: list[Topology] = []
    nodes_excluded: list[str] = []
    privileged: bool = False
    host_network: bool = False
    volume_mounts: list[str] = Field(
        default=[], description="Folders of the node, `source` or `source:destination`."
    )
    credentials: dict[str, str | dict[str, str]] = Field(
        default={},
        description="By name the folder for its files, or variables and the keys they show.",
    )


class GroupPlacement(Model):
    """A gang: all of these tasks run, or none."""

    workflow: str
    workflow_uuid: str
    group: str
    group_index: int
    group_uuid: str
    barrier: bool = True
    user: str = ""
    pool: str = "default"
    priority: Priority = "NORMAL"
    start_timeout: float | None = Field(default=None, description="Seconds.")
    tasks: list[TaskPlacement]


class TaskReady(BridgeEvent):
    """Groups of one workflow may run, each for itself; those that may run at one moment are said
    together. Offered again until they are accepted, so applying it twice is once."""

    type: ClassVar[str] = "task.ready"

    placements: list[GroupPlacement]
    traceparent: str | None = None


class AttemptRef(Model):
    """Names one attempt of one task within the event's workflow."""

    index: int
    name: str
    attempt: int


class TaskStop(BridgeEvent):
    """These attempts are to end; each still reports that it finished."""

    type: ClassVar[str] = "task.stop"

    attempts: list[AttemptRef]
    cause: str
    grace_seconds: float = Field(default=10.0, description="Between SIGTERM and SIGKILL.")


class TaskSettled(BridgeEvent):
    """The outcomes of these attempts are stored and their logs archived: forget them."""

    type: ClassVar[str] = "task.settled"

    attempts: list[AttemptRef]


# --- facts: bridge -> engine -------------------------------------------------------------------


class TaskFacts(WorkflowEvent):
    """Facts of one kind about attempts of one workflow."""

    cluster: str
    at: datetime


class TaskAccepted(TaskFacts):
    """The cluster has taken the attempts into its queue and will not forget them."""

    type: ClassVar[str] = "task.accepted"

    attempts: list[AttemptRef]
    message: str | None = Field(
        default=None,
        description="What they wait for, in the scheduler's words; said again when it changes.",
    )


class TaskHeld(TaskFacts):
    """The cluster cannot take the attempts at present; it takes them when they are offered again.

    Said at each offer, so the reason may be another one each time.
    """

    type: ClassVar[str] = "task.held"

    attempts: list[AttemptRef]
    message: str = Field(description="What is in the way, say a quota that is used up.")


class TaskScheduled(TaskFacts):
    """The attempts have a node; images are pulled, inputs are fetched."""

    type: ClassVar[str] = "task.scheduled"

    attempts: list[AttemptRef]
    node: str | None = None
    message: str | None = Field(
        default=None,
        description="What keeps them from starting, where that takes long; said when it changes.",
    )


class TaskStarted(TaskFacts):
    """The user's command runs."""

    type: ClassVar[str] = "task.started"

    attempts: list[AttemptRef]
    node: str | None = None
    accepted_at: datetime | None = Field(
        default=None, description="If no `task.accepted` was sent: the start came too soon after."
    )
    scheduled_at: datetime | None = None


class FinishReason(StrEnum):
    """Why an attempt ended, as the cluster saw it; the engine maps it to a status."""

    EXITED = "exited"
    OUT_OF_MEMORY = "out-of-memory"
    STOPPED = "stopped"
    EVICTED = "evicted"
    PREEMPTED = "preempted"
    NODE_LOST = "node-lost"
    IMAGE_PULL = "image-pull"
    START_ERROR = "start-error"
    START_TIMEOUT = "start-timeout"
    INPUT_FAILED = "input-failed"
    OUTPUT_FAILED = "output-failed"
    UNSCHEDULABLE = "unschedulable"
    BACKEND_ERROR = "backend-error"


class TaskOutcome(AttemptRef):
    """How one attempt ended."""

    exit_code: int | None = Field(default=None, description="As the shell reports it: 128+signal.")
    reason: FinishReason
    message: str | None = None
    node: str | None = None
    accepted_at: datetime | None = Field(
        default=None, description="If no `task.accepted` was sent: the end came too soon after it."
    )
    scheduled_at: datetime | None = None
    started_at: datetime | None = None
    at: datetime | None = None
    restarts: int = Field(default=0, description="How often the command ran again in its place.")
    log_lines: int = Field(default=0, description="How many lines the log has in all.")


class TaskFinished(TaskFacts):
    """Attempts have ended, each with its outcome."""

    type: ClassVar[str] = "task.finished"

    outcomes: list[TaskOutcome]


# --- logs ---------------------------------------------------------------------------------------


class LogLine(Model):
    """One line of a task's log; `seq` counts from 0 without a gap within the attempt."""

    seq: int
    at: datetime
    stream: Literal["stdout", "stderr", "cairn"] = "stdout"
    text: str


class TaskLog(WorkflowEvent):
    """Lines of one attempt's log, in order."""

    type: ClassVar[str] = "task.log"

    task: str
    index: int
    attempt: int
    lines: list[LogLine] = []
    final: bool = Field(default=False, description="No line follows: the log is whole.")

    def subject(self) -> str:
        return f"{super().subject()}.{token(self.task)}"


class TaskArchived(WorkflowEvent):
    """The whole logs of these attempts lie in the archive."""

    type: ClassVar[str] = "task.archived"

    attempts: list[AttemptRef]


# --- clusters -----------------------------------------------------------------------------------


class NodeInfo(Model):
    """One node of a cluster. CPU in cores, memory and storage in bytes."""

    name: str
    cpu: int
    gpu: int = 0
    memory: int
    storage: int
    used_cpu: int = 0
    used_gpu: int = 0
    used_memory: int = 0
    platforms: list[str] = []
    labels: dict[str, str] = {}
    pools: list[str] = Field(default=[], description="Pools that may use it; all if empty.")
    used_storage: int = 0
    gpu_type: str | None = None
    architecture: str | None = None
    ready: bool = True
    taints: list[str] = Field(default=[], description="As kubectl writes them: key=value:effect.")


class ClusterHeartbeat(ClusterEvent):
    """The cluster's bridge is alive."""

    type: ClassVar[str] = "cluster.heartbeat"

    at: datetime
    interval_seconds: float


class ClusterResources(ClusterEvent):
    """What the cluster has and what of it is in use."""

    type: ClassVar[str] = "cluster.resources"

    at: datetime
    pools: list[str]
    nodes: list[NodeInfo]
    definitions: dict[str, Pool] = Field(
        default={}, description="What each pool has and allows, without its pod templates."
    )
    features: list[str] | None = Field(
        default=None,
        description="What workflows may use there beyond running commands: `privileged`, "
        "`host_network`, `volume_mounts`, `topology`, `nodes_excluded`, `platform`, `gpu`, "
        "`credentials`, `checkpoint`.",
    )


class ClusterChanged(ClusterEvent):
    """The engine treats the cluster otherwise from now on; from engine to all.

    ACTIVE takes new work, DRAINING only ends what it has, REMOVED is forgotten until its bridge
    announces it again.
    """

    type: ClassVar[str] = "cluster.changed"

    at: datetime
    state: Literal["ACTIVE", "DRAINING", "REMOVED"]


CATALOGUE: dict[str, type[Event]] = {
    model.type: model
    for model in (
        WorkflowSubmitted,
        WorkflowCancel,
        WorkflowChanged,
        WorkflowFinished,
        TaskReady,
        TaskStop,
        TaskSettled,
        TaskAccepted,
        TaskHeld,
        TaskScheduled,
        TaskStarted,
        TaskFinished,
        TaskLog,
        TaskArchived,
        ClusterHeartbeat,
        ClusterResources,
        ClusterChanged,
    )
}
"""Every event by its CloudEvents type."""
