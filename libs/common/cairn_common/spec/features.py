"""What a workflow asks for beyond running commands, and refusing by name what is not there.

An installation states which features it executes. What it does not execute is refused at
submission, with the place and a way out: a field that is silently ignored is a workflow that
silently does something else.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

from cairn_common.spec.models import (
    DatasetInput,
    DatasetOutput,
    ResourceSpec,
    TaskInput,
    TaskSpec,
    UrlInput,
    UrlOutput,
    WorkflowSpec,
)
from cairn_common.spec.problems import ErrorCode, Location, Problem
from cairn_common.spec.references import url_scheme


class Feature(StrEnum):
    """One thing that an installation either executes or refuses."""

    GROUPS = "groups"
    TASK_INPUT = "task_input"
    OTHER_WORKFLOW_INPUT = "other_workflow_input"
    DATASET_INPUT = "dataset_input"
    DATASET_OUTPUT = "dataset_output"
    DATASET_UPDATE = "dataset_update"
    URL_S3 = "url_s3"
    URL_GS = "url_gs"
    URL_AZURE = "url_azure"
    URL_SWIFT = "url_swift"
    URL_TOS = "url_tos"
    URL_FILE = "url_file"
    FILES = "files"
    CREDENTIALS = "credentials"
    EXIT_ACTIONS = "exit_actions"
    CHECKPOINT = "checkpoint"
    VOLUME_MOUNTS = "volume_mounts"
    PRIVILEGED = "privileged"
    HOST_NETWORK = "host_network"
    TIMEOUTS = "timeouts"
    LABELS = "labels"
    GPU = "gpu"
    PLATFORM = "platform"
    NODES_EXCLUDED = "nodes_excluded"
    TOPOLOGY = "topology"
    KPIS = "kpis"
    CACHE = "cache"


_URL_FEATURES = {
    "s3": Feature.URL_S3,
    "gs": Feature.URL_GS,
    "azure": Feature.URL_AZURE,
    "swift": Feature.URL_SWIFT,
    "tos": Feature.URL_TOS,
    "file": Feature.URL_FILE,
}
# Subject of the message, and what to do instead ("" when nothing comes close).
_WORDS: dict[Feature, tuple[str, str]] = {
    Feature.GROUPS: ("groups of several tasks are", "Write independent tasks under `tasks:`."),
    Feature.TASK_INPUT: ("inputs from other tasks are", "Pass data through a storage URL."),
    Feature.OTHER_WORKFLOW_INPUT: (
        "inputs from other workflows are",
        "Let the other workflow write to a storage URL or dataset, and read that.",
    ),
    Feature.DATASET_INPUT: (
        "dataset inputs are",
        "Read the files from a storage URL: `- url: s3://bucket/path`.",
    ),
    Feature.DATASET_OUTPUT: (
        "dataset outputs are",
        "Write the files to a storage URL: `- url: s3://bucket/path`.",
    ),
    Feature.DATASET_UPDATE: (
        "updates of datasets are",
        "Write a new dataset, or to a storage URL.",
    ),
    Feature.URL_S3: ("s3:// URLs are", ""),
    Feature.URL_GS: ("gs:// URLs are", "Use the S3-compatible endpoint of the bucket."),
    Feature.URL_AZURE: ("azure:// URLs are", ""),
    Feature.URL_SWIFT: ("swift:// URLs are", "Use the S3-compatible endpoint of the store."),
    Feature.URL_TOS: ("tos:// URLs are", "Use the S3-compatible endpoint of the store."),
    Feature.URL_FILE: ("file:// URLs are", "Use object storage, such as s3://bucket/path."),
    Feature.FILES: ("injected files are", "Build the file into the image."),
    Feature.CREDENTIALS: ("credentials are", "Ask the operator where the task finds its secrets."),
    Feature.EXIT_ACTIONS: ("exit actions are", "Repeat or translate exit codes in the command."),
    Feature.CHECKPOINT: ("checkpoints are", "Copy the folder to storage from the command itself."),
    Feature.VOLUME_MOUNTS: ("volume mounts are", "Bring the data as an input."),
    Feature.PRIVILEGED: ("privileged tasks are", "Remove `privileged`."),
    Feature.HOST_NETWORK: (
        "tasks on the host network are",
        "Tasks of one group reach each other through {{host:task}}.",
    ),
    Feature.TIMEOUTS: ("timeouts are", "Use the timeout program in the command."),
    Feature.LABELS: ("labels are", "Remove them."),
    Feature.GPU: ("GPUs are", "Remove `gpu` from the resource."),
    Feature.PLATFORM: ("platforms are", "Remove `platform` from the resource."),
    Feature.NODES_EXCLUDED: ("excluded nodes are", "Choose a platform instead."),
    Feature.TOPOLOGY: ("topology requirements are", "Put the tasks into one group."),
    Feature.KPIS: ("KPIs are", "Write the file to an output."),
    Feature.CACHE: ("input caches are", "Remove `cacheSize`."),
}


def unsupported(
    spec: WorkflowSpec, features: frozenset[str], *, file: str = "workflow.yaml"
) -> list[Problem]:
    """A problem for each place that needs a feature outside `features` (values of `Feature`).

    Problems have no position; `LoadedWorkflow.locate` adds it.
    """
    problems: list[Problem] = []
    for feature, location in used_features(spec):
        if feature not in features:
            subject, instead = _WORDS[feature]
            problems.append(
                Problem(
                    f"{subject} not executed by this installation yet",
                    location,
                    ErrorCode.USAGE,
                    instead,
                    file,
                )
            )
    return problems


def used_features(spec: WorkflowSpec) -> Iterator[tuple[Feature, Location]]:
    """Every feature that a specification uses, with each place that uses it."""
    if spec.labels:
        yield Feature.LABELS, ("workflow", "labels")
    if spec.timeout.exec_timeout is not None or spec.timeout.queue_timeout is not None:
        yield Feature.TIMEOUTS, ("workflow", "timeout")
    for name, resource in spec.resources.items():
        yield from _of_resource(resource, ("workflow", "resources", name))
    for g, group in enumerate(spec.all_groups):
        if len(group.tasks) > 1:
            yield Feature.GROUPS, ("workflow", "groups", g)
        for t, task in enumerate(group.tasks):
            yield from _of_task(task, spec.task_location(g, t))


def _of_resource(resource: ResourceSpec, here: Location) -> Iterator[tuple[Feature, Location]]:
    if resource.gpu:
        yield Feature.GPU, (*here, "gpu")
    if resource.platform is not None:
        yield Feature.PLATFORM, (*here, "platform")
    if resource.nodes_excluded:
        yield Feature.NODES_EXCLUDED, (*here, "nodesExcluded")
    if resource.topology:
        yield Feature.TOPOLOGY, (*here, "topology")


def _of_task(task: TaskSpec, here: Location) -> Iterator[tuple[Feature, Location]]:
    for i, source in enumerate(task.inputs):
        if isinstance(source, TaskInput):
            reference = source.reference
            other = reference is not None and bool(reference.workflow)
            feature = Feature.OTHER_WORKFLOW_INPUT if other else Feature.TASK_INPUT
            yield feature, (*here, "inputs", i, "task")
        elif isinstance(source, UrlInput):
            yield _URL_FEATURES[url_scheme(source.url)], (*here, "inputs", i, "url")
        elif isinstance(source, DatasetInput):
            yield Feature.DATASET_INPUT, (*here, "inputs", i, "dataset")
    for i, target in enumerate(task.outputs):
        if isinstance(target, UrlOutput):
            yield _URL_FEATURES[url_scheme(target.url)], (*here, "outputs", i, "url")
        elif isinstance(target, DatasetOutput):
            yield Feature.DATASET_OUTPUT, (*here, "outputs", i, "dataset")
        else:
            yield Feature.DATASET_UPDATE, (*here, "outputs", i, "update_dataset")
    for i, save in enumerate(task.checkpoint):
        yield Feature.CHECKPOINT, (*here, "checkpoint", i)
        yield _URL_FEATURES[url_scheme(save.url)], (*here, "checkpoint", i, "url")
    flags = (
        (bool(task.files), Feature.FILES, "files"),
        (bool(task.credentials), Feature.CREDENTIALS, "credentials"),
        (bool(task.exit_actions), Feature.EXIT_ACTIONS, "exitActions"),
        (bool(task.volume_mounts), Feature.VOLUME_MOUNTS, "volumeMounts"),
        (task.privileged, Feature.PRIVILEGED, "privileged"),
        (task.host_network, Feature.HOST_NETWORK, "hostNetwork"),
        (bool(task.kpis), Feature.KPIS, "kpis"),
        (task.cache_size is not None, Feature.CACHE, "cacheSize"),
    )
    for used, feature, name in flags:
        if used:
            yield feature, (*here, name)
