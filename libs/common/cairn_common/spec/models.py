"""The workflow language as pydantic models: OSMO's fields, names and defaults (CONTRACT E.2).

The models hold shape and types only. What needs more than one field (names that collide,
references between tasks, tokens) lies in `checks`, so that one fault never hides another. Models
are frozen and hold tuples: a specification is a value. `dump` of a model can be read back into an
equal one.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, PrivateAttr, Tag

from cairn_common.spec.fields import (
    Duration,
    ExitCodeRanges,
    Name,
    Quantity,
    Regex,
    StorageUrl,
    Text,
)
from cairn_common.spec.references import TaskReference

DEFAULT_RESOURCE = "default"


class SpecModel(BaseModel):
    """Settings shared by every model of the language."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        coerce_numbers_to_str=True,
        validate_default=False,
    )


class ExitAction(StrEnum):
    """What an exit code of a task leads to."""

    COMPLETE = "COMPLETE"
    FAIL = "FAIL"
    RESCHEDULE = "RESCHEDULE"
    RESTART = "RESTART"


class TimeoutSpec(SpecModel):
    """How long a workflow may wait and run."""

    exec_timeout: Duration | None = Field(
        default=None, description="Longest run time of each group once it runs, e.g. 2h."
    )
    queue_timeout: Duration | None = Field(
        default=None, description="Longest time a group may wait for a place in the cluster."
    )


class TopologySpec(SpecModel):
    """One co-location requirement."""

    key: str = Field(description="A topology key of the pool, e.g. rack.")
    group: str = Field(
        default="default", description="Tasks with the same key and group are placed together."
    )
    requirement_type: Literal["required", "preferred"] = Field(
        default="required",
        alias="requirementType",
        description="required blocks until it can be met, preferred does not.",
    )


class ResourceSpec(SpecModel):
    """What one task needs of a node. Unset means cpu 1, gpu 0, memory 1Gi and storage 1Gi."""

    cpu: int | None = Field(default=None, ge=0, description="Processor cores.")
    gpu: int | None = Field(default=None, ge=0, description="Graphics processors.")
    memory: Quantity | None = Field(default=None, description="Main memory, e.g. 16Gi.")
    storage: Quantity | None = Field(default=None, description="Local disk, e.g. 100Gi.")
    platform: str | None = Field(
        default=None, description="Kind of node, as the pool names it; the pool's default if unset."
    )
    nodes_excluded: tuple[str, ...] = Field(
        default=(), alias="nodesExcluded", description="Nodes that must not be used."
    )
    topology: tuple[TopologySpec, ...] = Field(
        default=(), description="Tasks that must lie close together."
    )


class TaskInput(SpecModel):
    """The output of another task: this one starts when that one is complete."""

    task: str = Field(
        description="A task of this workflow, or <workflow id>:<task> of an earlier one."
    )
    regex: Regex | None = Field(default=None, description="Only files whose path matches.")

    @property
    def reference(self) -> TaskReference | None:
        """The parsed target; None when the text is no task reference (checks report it)."""
        return TaskReference.parse(self.task)


class UrlInput(SpecModel):
    """Files from object storage."""

    url: StorageUrl = Field(description="Where to download from, e.g. s3://bucket/path.")
    regex: Regex | None = Field(default=None, description="Only files whose path matches.")


class DatasetSource(SpecModel):
    """Which dataset to read."""

    name: str = Field(min_length=1, description="[bucket/]dataset[:tag or version].")
    regex: Regex | None = Field(default=None, description="Only files whose path matches.")
    localpath: str | None = Field(
        default=None,
        description="A local file or folder that the command line client uploads first.",
    )


class DatasetInput(SpecModel):
    """The files of a dataset, found in {{input:N}}/<dataset name>."""

    dataset: DatasetSource = Field(description="The dataset to download.")


class UrlOutput(SpecModel):
    """The output folder goes to object storage."""

    url: StorageUrl = Field(description="Where to upload to, e.g. s3://bucket/path.")
    regex: Regex | None = Field(default=None, description="Only files whose path matches.")


class DatasetTarget(SpecModel):
    """Which dataset to write, and from what."""

    name: str = Field(min_length=1, description="[bucket/]dataset[:tag].")
    path: str | None = Field(
        default=None, description="A path below {{output}}; the whole folder if unset."
    )
    regex: Regex | None = Field(default=None, description="Only files whose path matches.")
    metadata: tuple[str, ...] = Field(
        default=(), description="Metadata files below {{output}} for the new version."
    )
    labels: tuple[str, ...] = Field(
        default=(), description="Label files below {{output}} for the dataset."
    )


class DatasetOutput(SpecModel):
    """The output folder becomes a new version of a dataset."""

    dataset: DatasetTarget = Field(description="The dataset to write.")


class DatasetUpdateTarget(SpecModel):
    """Which dataset version to extend, and with what."""

    name: str = Field(min_length=1, description="[bucket/]dataset[:tag or version].")
    path: str | None = Field(
        default=None, description="A path below {{output}}; the whole folder if unset."
    )
    metadata: tuple[str, ...] = Field(
        default=(), description="Metadata files below {{output}} for the new version."
    )
    labels: tuple[str, ...] = Field(
        default=(), description="Label files below {{output}} for the dataset."
    )


class DatasetUpdateOutput(SpecModel):
    """The output folder is merged with an existing version into a new one."""

    update_dataset: DatasetUpdateTarget = Field(description="The dataset version to extend.")


def _kind_of(value: Any, kinds: tuple[str, ...]) -> str | None:
    """The tag of the one key that decides which input or output this is.

    Tags stand in angle brackets so that an error's location tells them from keys of the file.
    """
    if isinstance(value, dict):
        present = [kind for kind in kinds if kind in value]
    else:
        present = [kind for kind in kinds if hasattr(value, kind)]
    return f"<{present[0]}>" if len(present) == 1 else None


INPUT_KINDS = ("task", "url", "dataset")
OUTPUT_KINDS = ("url", "dataset", "update_dataset")


def _input_kind(value: Any) -> str | None:
    return _kind_of(value, INPUT_KINDS)


def _output_kind(value: Any) -> str | None:
    return _kind_of(value, OUTPUT_KINDS)


Input = Annotated[
    Annotated[TaskInput, Tag("<task>")]
    | Annotated[UrlInput, Tag("<url>")]
    | Annotated[DatasetInput, Tag("<dataset>")],
    Discriminator(
        _input_kind,
        custom_error_type="input_kind",
        custom_error_message="an input needs exactly one of task, url or dataset",
    ),
]
Output = Annotated[
    Annotated[UrlOutput, Tag("<url>")]
    | Annotated[DatasetOutput, Tag("<dataset>")]
    | Annotated[DatasetUpdateOutput, Tag("<update_dataset>")],
    Discriminator(
        _output_kind,
        custom_error_type="output_kind",
        custom_error_message="an output needs exactly one of url, dataset or update_dataset",
    ),
]


class FileSpec(SpecModel):
    """A file put into the container before the command starts."""

    path: str = Field(description="Absolute path in the container.")
    contents: str | None = Field(default=None, description="The text of the file.")
    base64: bool = Field(default=False, description="Whether contents is base64 of the bytes.")
    localpath: str | None = Field(
        default=None,
        description="A file beside this workflow; the command line client replaces it by contents.",
    )


class CheckpointSpec(SpecModel):
    """A folder copied to object storage while the task runs, and once more when it ends."""

    path: str = Field(
        description="The folder in the container; unless it is below {{output}}, the task finds "
        "an empty one there."
    )
    url: StorageUrl = Field(description="Where to copy it.")
    frequency: Duration = Field(
        description="Pause between the end of one copy and the next one, e.g. 30m; at least 1s."
    )
    regex: Regex | None = Field(default=None, description="Only files whose path matches.")


class KpiSpec(SpecModel):
    """A result file to index."""

    index: str = Field(description="Name of the index.")
    path: str = Field(description="The file below {{output}}.")


class TaskSpec(SpecModel):
    """One container with its command, data and needs."""

    name: Name = Field(
        description="Unique in the workflow; case and _ versus - do not distinguish."
    )
    image: str = Field(description="Container image, e.g. ubuntu:24.04.")
    command: tuple[str, ...] = Field(description="The command as a list of words.")
    args: tuple[str, ...] = Field(default=(), description="Arguments after the command.")
    environment: dict[str, Text] = Field(default_factory=dict, description="Environment variables.")
    lead: bool = Field(
        default=False, description="Whether this task decides its group; exactly one does."
    )
    resource: str = Field(
        default=DEFAULT_RESOURCE, description="A name of workflow.resources; default if unset."
    )
    inputs: tuple[Input, ...] = Field(
        default=(), description="Data fetched before the start, found in {{input:0}}, {{input:1}}."
    )
    outputs: tuple[Output, ...] = Field(
        default=(), description="Where {{output}} goes when the task ends."
    )
    files: tuple[FileSpec, ...] = Field(default=(), description="Files put into the container.")
    credentials: dict[str, str | dict[str, str]] = Field(
        default_factory=dict,
        description="Credential name to a folder, or to environment variables and their keys.",
    )
    exit_actions: dict[str, ExitCodeRanges] = Field(
        default_factory=dict,
        alias="exitActions",
        description="What exit codes lead to, e.g. RESCHEDULE: 11-20.",
        json_schema_extra={"propertyNames": {"enum": [action.value for action in ExitAction]}},
    )
    max_retries: int | None = Field(
        default=None,
        alias="maxRetries",
        ge=0,
        le=1000,
        description="How often RESCHEDULE and RESTART may run it again; the pool decides if unset.",
    )
    checkpoint: tuple[CheckpointSpec, ...] = Field(
        default=(), description="Folders saved while the task runs."
    )
    kpis: tuple[KpiSpec, ...] = Field(default=(), description="Result files to index.")
    privileged: bool = Field(default=False, description="Run with the rights of the host.")
    host_network: bool = Field(
        default=False, alias="hostNetwork", description="Use the network of the host."
    )
    volume_mounts: tuple[str, ...] = Field(
        default=(), alias="volumeMounts", description="Host folders: source or source:destination."
    )
    download_type: Literal["download"] | None = Field(
        default=None, alias="downloadType", description="How inputs arrive; only download exists."
    )
    cache_size: str | None = Field(
        default=None, alias="cacheSize", description="Cache for inputs, e.g. 10Gi."
    )
    resources: Any = Field(default=None, description="Accepted and ignored, as OSMO does.")
    backend: str | None = Field(default=None, description="Accepted and ignored, as OSMO does.")


class GroupSpec(SpecModel):
    """Tasks that are placed and run together."""

    name: Name = Field(description="Unique among all tasks and groups of the workflow.")
    barrier: bool = Field(
        default=True, description="Start the commands only when every task of the group is ready."
    )
    ignore_nonlead_status: bool = Field(
        default=True,
        alias="ignoreNonleadStatus",
        description="Whether a failed task other than the lead leaves the group running.",
    )
    tasks: tuple[TaskSpec, ...] = Field(description="The tasks; exactly one has lead: true.")


class WorkflowSpec(SpecModel):
    """A workflow: its tasks or groups, what they need and how long they may take.

    Language files have `tasks` or `groups`. What `load_workflow` returns always has `groups`, a
    `resources.default` and one lead per group; `written_as_tasks` then says which form its author
    used, so that messages can name places in the author's own file. That flag is not serialised.
    """

    name: Name = Field(description="At most 64 characters.")
    labels: dict[str, Any] = Field(
        default_factory=dict, description="Up to 16 Kubernetes labels for every task."
    )
    pool: str | None = Field(default=None, description="Accepted; the submission names the pool.")
    backend: str | None = Field(default=None, description="Accepted and ignored.")
    timeout: TimeoutSpec = Field(default=TimeoutSpec(), description="Longest times.")
    resources: dict[str, ResourceSpec] = Field(
        default_factory=dict, description="Named needs; tasks without a name of one use default."
    )
    tasks: tuple[TaskSpec, ...] | None = Field(
        default=None, description="Independent tasks; each becomes a group of its own."
    )
    groups: tuple[GroupSpec, ...] | None = Field(
        default=None, description="Groups of tasks that run together."
    )

    _written_as_tasks: bool = PrivateAttr(default=False)

    @property
    def written_as_tasks(self) -> bool:
        """Whether the author wrote `tasks:`; see the class."""
        return self._written_as_tasks or (self.tasks is not None and self.groups is None)

    @property
    def all_groups(self) -> tuple[GroupSpec, ...]:
        """The groups in file order, whichever form was written."""
        if self.groups is not None:
            return self.groups
        return tuple(single_task_group(task) for task in self.tasks or ())

    def normalised(self) -> WorkflowSpec:
        """The same workflow with groups, a lead in lone tasks, and a default resource."""
        groups = tuple(
            group
            if len(group.tasks) != 1 or group.tasks[0].lead
            else group.model_copy(
                update={"tasks": (group.tasks[0].model_copy(update={"lead": True}),)}
            )
            for group in self.all_groups
        )
        resources = {DEFAULT_RESOURCE: ResourceSpec(), **self.resources}
        spec = self.model_copy(update={"groups": groups, "tasks": None, "resources": resources})
        return spec.marked_as_tasks() if self.written_as_tasks else spec

    def marked_as_tasks(self) -> WorkflowSpec:
        """A copy that remembers that its author wrote `tasks:`."""
        spec = self.model_copy()
        spec._written_as_tasks = True
        return spec

    def task_location(self, group: int, task: int) -> tuple[str | int, ...]:
        """Where a task stands in the author's file, by its group and place in the group."""
        if self.written_as_tasks:
            return ("workflow", "tasks", group)
        return ("workflow", "groups", group, "tasks", task)

    def resource_of(self, task: TaskSpec) -> ResourceSpec:
        """The needs of a task; an empty default when none is defined."""
        return self.resources.get(task.resource) or ResourceSpec()


def single_task_group(task: TaskSpec) -> GroupSpec:
    """The group that OSMO makes of a task written outside groups: `<task>-group`, with it as lead.

    Skips validation: the task is valid, and the name of the group follows from its.
    """
    lead = task if task.lead else task.model_copy(update={"lead": True})
    return GroupSpec.model_construct(name=f"{task.name}-group", tasks=(lead,))


class WorkflowFile(SpecModel):
    """A whole file."""

    version: Any = Field(default=None, description="Any value; not used.")
    workflow: WorkflowSpec = Field(description="The workflow.")
    default_values: dict[str, Any] = Field(
        default_factory=dict,
        alias="default-values",
        description="Values of template variables that the submission does not set.",
    )
