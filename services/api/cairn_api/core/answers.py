"""The JSON of the reference's answers about workflows and tasks, field by field.

Times are UTC without an offset, because that is the only form that the reference's client reads.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, WithJsonSchema

from cairn_common.status import TaskStatus, WorkflowStatus


def _naive(at: datetime) -> str:
    return at.astimezone(UTC).replace(tzinfo=None).isoformat()


Time = Annotated[
    datetime,
    PlainSerializer(_naive, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]


class Priority(StrEnum):
    """HIGH and NORMAL are not preempted; LOW may borrow what is free and is preempted for them."""

    HIGH = "HIGH"
    NORMAL = "NORMAL"
    LOW = "LOW"


class ListOrder(StrEnum):
    """How a page is ordered. A page always holds the newest entries after its offset."""

    ASC = "ASC"
    DESC = "DESC"


class TemplateSpec(BaseModel):
    """A workflow file to submit."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "file": "workflow:\n  name: hello\n  tasks:\n  - name: greet\n"
                    "    image: ubuntu:24.04\n    command: [echo, hello]\n"
                }
            ]
        }
    )

    file: str = Field(description="The text of the workflow file.")
    set_variables: list[str] = Field(
        default=[], description="`name=value` for templates; numbers are recognised."
    )
    set_string_variables: list[str] = Field(
        default=[], description="`name=value` for templates; values stay text."
    )
    uploaded_templated_spec: str | None = Field(
        default=None, description="The text before its templates were filled in, to be kept."
    )


class SubmitAnswer(BaseModel):
    """What became of a submission."""

    name: str = Field(description="The workflow's id.")
    overview: str | None = None
    logs: str | None = None
    spec: str | None = Field(default=None, description="Where the spec is; of a dry run, the spec.")
    dashboard_url: str | None = None
    warnings: list[str] = []


class CancelAnswer(BaseModel):
    """The workflow that is being canceled."""

    name: str


class TaskAnswer(BaseModel):
    """One attempt of a task."""

    name: str
    retry_id: int
    status: TaskStatus
    failure_message: str | None = None
    exit_code: int | None = None
    logs: str
    error_logs: str | None = None
    processing_start_time: Time | None = None
    scheduling_start_time: Time | None = None
    initializing_start_time: Time | None = None
    events: str
    start_time: Time | None = None
    end_time: Time | None = None
    input_download_start_time: Time | None = None
    input_download_end_time: Time | None = None
    output_upload_start_time: Time | None = None
    dashboard_url: str | None = None
    pod_name: str
    pod_ip: str | None = None
    task_uuid: str
    node_name: str | None = None
    lead: bool = False


class GroupAnswer(BaseModel):
    """A group with the attempts of its tasks, newest attempt last."""

    name: str
    status: TaskStatus
    start_time: Time | None = None
    end_time: Time | None = None
    processing_start_time: Time | None = None
    scheduling_start_time: Time | None = None
    initializing_start_time: Time | None = None
    remaining_upstream_groups: list[str] | None = None
    downstream_groups: list[str] | None = None
    failure_message: str | None = None
    tasks: list[TaskAnswer] = []


class Plugins(BaseModel):
    """What can be done with a running workflow besides."""

    rsync: bool = False


class WorkflowAnswer(BaseModel):
    """Everything about one workflow."""

    name: str
    uuid: str
    submitted_by: str
    cancelled_by: str | None = None
    spec: str
    template_spec: str
    logs: str
    events: str
    overview: str
    parent_name: str | None = None
    parent_job_id: int | None = None
    dashboard_url: str | None = None
    grafana_url: str | None = None
    tags: list[str] = []
    submit_time: Time
    start_time: Time | None = None
    end_time: Time | None = None
    exec_timeout: float | None = None
    queue_timeout: float | None = None
    duration: float | None = None
    queued_time: float
    status: WorkflowStatus
    outputs: str = ""
    groups: list[GroupAnswer]
    pool: str | None = None
    backend: str | None = None
    app_owner: str | None = None
    app_name: str | None = None
    app_version: int | None = None
    plugins: Plugins
    priority: str
    labels: dict[str, str] = {}
    warnings: list[str] = []
    failure_message: str | None = Field(
        default=None, description="Why it is in its status, in words; not in the reference."
    )


class ListEntry(BaseModel):
    """A workflow in a list."""

    user: str
    name: str
    workflow_uuid: str
    submit_time: Time
    start_time: Time | None = None
    end_time: Time | None = None
    queued_time: float
    duration: float | None = None
    status: WorkflowStatus
    overview: str
    logs: str
    error_logs: str | None = None
    grafana_url: str | None = None
    dashboard_url: str | None = None
    pool: str | None = None
    app_owner: str | None = None
    app_name: str | None = None
    app_version: int | None = None
    priority: str
    labels: dict[str, str] = {}


class ListAnswer(BaseModel):
    """A page of workflows."""

    workflows: list[ListEntry]
    more_entries: bool


class TaskEntry(BaseModel):
    """The newest attempt of one task. Memory and storage in Gi."""

    workflow_id: str
    task_name: str
    node: str | None = None
    start_time: Time | None = None
    end_time: Time | None = None
    status: TaskStatus
    storage: float
    cpu: int
    memory: float
    gpu: int


class ListTaskEntry(BaseModel):
    """An attempt in a list. Memory and storage in Gi."""

    user: str
    workflow_id: str
    workflow_uuid: str
    task_name: str
    retry_id: int
    pool: str | None = None
    node: str | None = None
    start_time: Time | None = None
    end_time: Time | None = None
    duration: float | None = None
    status: TaskStatus
    overview: str
    logs: str
    error_logs: str | None = None
    grafana_url: str | None = None
    dashboard_url: str | None = None
    storage: float
    cpu: int
    memory: float
    gpu: int
    priority: str


class ListTaskAnswer(BaseModel):
    """A page of attempts."""

    tasks: list[ListTaskEntry]


class TaskSumEntry(BaseModel):
    """What tasks ask for together. Memory and storage in Gi."""

    user: str
    pool: str | None = None
    storage: float
    cpu: int
    memory: float
    gpu: int
    priority: str
    workflow_id: str | None = None


class TaskSumAnswer(BaseModel):
    """Sums by user, pool and priority, or by workflow."""

    summaries: list[TaskSumEntry]


class WatchTask(BaseModel):
    """An attempt in a watch."""

    name: str
    retry_id: int
    status: TaskStatus
    exit_code: int | None = None
    failure_message: str | None = None
    node_name: str | None = None
    lead: bool = False
    start_time: Time | None = None
    end_time: Time | None = None


class WatchGroup(BaseModel):
    """A group in a watch."""

    name: str
    status: TaskStatus
    failure_message: str | None = None
    upstream: list[str] = []
    tasks: list[WatchTask] = []


class WatchAnswer(BaseModel):
    """How a workflow fares at one moment: the data of a server-sent event."""

    name: str
    status: WorkflowStatus
    failure_message: str | None = None
    submit_time: Time
    start_time: Time | None = None
    end_time: Time | None = None
    tasks_total: int | None = None
    tasks_completed: int | None = None
    tasks_failed: int | None = None
    final: bool = Field(description="Nothing will change any more; no event follows.")
    groups: list[WatchGroup] = []


def json_of(model: BaseModel) -> bytes:
    """A model that we built ourselves as JSON, without validating it a second time."""
    return model.__pydantic_serializer__.to_json(model)


def schema_of(model: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that answers with `json_of`."""
    return {200: {"model": model}}
