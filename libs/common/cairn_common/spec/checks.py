"""What must hold between the fields of a workflow: names, references, limits of the language.

Each check looks at one subject and adds its findings to a `Findings`; none stops another. Every
check is one pass over the tasks with sets and dicts, so a workflow of 100,000 tasks costs 100,000
steps. Fields that `structure` had to leave out are not judged a second time (`damaged`).
"""

from __future__ import annotations

import binascii
import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from cairn_common.spec.limits import Limits
from cairn_common.spec.models import (
    DEFAULT_RESOURCE,
    DatasetInput,
    ExitAction,
    FileSpec,
    GroupSpec,
    TaskSpec,
    WorkflowSpec,
)
from cairn_common.spec.problems import ErrorCode, Location, Problem
from cairn_common.spec.references import fold_name, is_image
from cairn_common.spec.units import ExitCodes, format_duration

MAX_NAME = 64
MAX_LABELS = 16
_LABEL_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", re.ASCII)
_LABEL_PREFIX = re.compile(
    r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*", re.ASCII
)
_RESTRICTED_NAME = "osmo-ctrl"
_MAX_SUGGESTION_POOL = 2000


@dataclass(slots=True)
class Findings:
    """The problems found so far, at most `limits.max_problems` of them, and `total` of all."""

    file: str
    limits: Limits
    damaged: Mapping[Location, set[str]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    total: int = 0

    @property
    def full(self) -> bool:
        """Whether further findings would only be counted."""
        return self.total >= self.limits.max_problems

    def add(
        self,
        message: str,
        location: Location,
        *,
        code: ErrorCode = ErrorCode.USER,
        hint: str = "",
        on_key: bool = False,
        token: str = "",
    ) -> None:
        """Record a problem whose position is looked up later."""
        self.total += 1
        if self.total <= self.limits.max_problems:
            self.problems.append(
                Problem(message, location, code, hint, self.file, on_key=on_key, token=token)
            )

    def judges(self, location: Location, name: str) -> bool:
        """Whether a field was read as written and may be judged."""
        return name not in self.damaged.get(location, ())


def nearest(name: str, known: Mapping[str, Any] | set[str]) -> str:
    """`did you mean "train"?`, or "" when nothing is near or there is too much to compare with."""
    if len(known) > _MAX_SUGGESTION_POOL:
        return ""
    near = difflib.get_close_matches(name, list(known), 1)
    return f'did you mean "{near[0]}"?' if near else ""


def check_workflow(spec: WorkflowSpec, findings: Findings) -> None:
    """The checks of the workflow itself; `check_tasks` does the rest."""
    here: Location = ("workflow",)
    if findings.judges(here, "name") and len(spec.name) > MAX_NAME:
        findings.add(
            f"Name {spec.name} is too long. It must be 64 characters or less.", (*here, "name")
        )
    if findings.judges(here, "tasks") and findings.judges(here, "groups"):
        if spec.tasks is not None and spec.groups is not None:
            findings.add(
                "Cannot use both groups and tasks in the same workflow.",
                (*here, "tasks"),
                hint="Move the tasks into groups of their own.",
                on_key=True,
            )
        elif not spec.tasks and not spec.groups:
            findings.add("Workflows need to have at least one group or one task.", here)
    count = len(spec.tasks or ()) + sum(len(group.tasks) for group in spec.groups or ())
    if count > findings.limits.max_tasks:
        findings.add(
            f"Workflow cannot have more than {findings.limits.max_tasks} tasks.",
            (*here, "tasks" if spec.written_as_tasks else "groups"),
            hint=f"This one has {count}.",
            on_key=True,
        )
    _check_labels(spec.labels, findings)
    _check_timeout(spec, "exec_timeout", findings.limits.max_exec_timeout, findings)
    _check_timeout(spec, "queue_timeout", findings.limits.max_queue_timeout, findings)


def _check_labels(labels: Mapping[str, Any], findings: Findings) -> None:
    here = ("workflow", "labels")
    if len(labels) > MAX_LABELS:
        findings.add(f"Workflows can have at most {MAX_LABELS} labels.", here, on_key=True)
    for key, value in labels.items():
        prefix, slash, name = key.rpartition("/")
        valid = _LABEL_NAME.fullmatch(name) is not None
        if slash:
            valid = valid and len(prefix) <= 253 and _LABEL_PREFIX.fullmatch(prefix) is not None
        if not valid:
            findings.add(
                f'Workflow label key "{key}" is not a valid Kubernetes label key.',
                (*here, key),
                hint="Up to 63 letters, digits, -, _ and ., with an optional domain/ in front.",
                on_key=True,
            )
        if not isinstance(value, str):
            findings.add("Workflow label values must be strings.", (*here, key), hint="Quote it.")
        elif not _LABEL_NAME.fullmatch(value):
            findings.add(
                f'Workflow label value "{value}" is not a valid non-empty Kubernetes label value.',
                (*here, key),
                hint="Up to 63 letters, digits, -, _ and .",
            )


def _check_timeout(
    spec: WorkflowSpec, name: str, longest: float | None, findings: Findings
) -> None:
    value: timedelta | None = getattr(spec.timeout, name)
    if value is not None and longest is not None and value.total_seconds() > longest:
        most = format_duration(timedelta(seconds=longest))
        findings.add(
            f"{name} {format_duration(value)} is longer than this installation allows: {most}.",
            ("workflow", "timeout", name),
        )


def check_tasks(spec: WorkflowSpec, findings: Findings) -> None:
    """Groups and tasks, each by itself and their names against each other."""
    seen: set[str] = set()
    used_resources: set[str] = set()
    for g, group in enumerate(spec.all_groups):
        if not spec.written_as_tasks:
            here: Location = ("workflow", "groups", g)
            _check_name(group.name, here, seen, findings)
            _check_group(spec, group, here, findings)
        for t, task in enumerate(group.tasks):
            location = spec.task_location(g, t)
            _check_name(task.name, location, seen, findings)
            _check_task(spec, task, location, findings)
            used_resources.add(task.resource)
    for name in sorted(spec.resources.keys() - used_resources - {DEFAULT_RESOURCE}):
        findings.warnings.append(f"workflow.resources.{name} is not used by any task")


def _check_name(name: str, location: Location, seen: set[str], findings: Findings) -> None:
    if not findings.judges(location, "name"):
        return
    folded = fold_name(name)
    if folded in seen:
        findings.add(
            f'Multiple tasks/groups have the same name: "{folded}". Note that names are not case '
            'sensitive and "-" and "_" count as the same.',
            (*location, "name"),
        )
    seen.add(folded)
    if len(name) > MAX_NAME:
        findings.add(
            f"Name {name} is too long. It must be 64 characters or less.", (*location, "name")
        )


def _check_group(
    spec: WorkflowSpec, group: GroupSpec, location: Location, findings: Findings
) -> None:
    if not findings.judges(location, "tasks"):
        return
    if not group.tasks:
        findings.add(f'Group "{group.name}" needs to have at least one task.', location)
    elif len(group.tasks) > 1:
        leaders = sum(task.lead for task in group.tasks)
        if leaders != 1:
            findings.add(
                f'Group "{group.name}" has {leaders} leader(s) but must have exactly one.',
                location,
                hint="Write lead: true in the task whose end is the end of the group.",
            )
    _check_topology(spec, group, location, findings)


def _check_topology(
    spec: WorkflowSpec, group: GroupSpec, location: Location, findings: Findings
) -> None:
    keys: tuple[str, ...] | None = None
    for t, task in enumerate(group.tasks):
        if task.resource in spec.resources or task.resource == DEFAULT_RESOURCE:
            mine = tuple(sorted(item.key for item in spec.resource_of(task).topology))
            if keys is None:
                keys = mine
            elif mine != keys:
                findings.add(
                    f'All tasks of group "{group.name}" must use the same topology keys: '
                    f"{list(mine)} differs from {list(keys)}.",
                    (*location, "tasks", t),
                    code=ErrorCode.RESOURCE,
                )
                return


def _check_task(spec: WorkflowSpec, task: TaskSpec, location: Location, findings: Findings) -> None:
    if fold_name(task.name) == _RESTRICTED_NAME:
        findings.add(
            f'Container {task.name} cannot be named "{_RESTRICTED_NAME}". '
            "This is a restricted name.",
            (*location, "name"),
        )
    if findings.judges(location, "image") and not is_image(task.image):
        findings.add(
            f"Could not parse docker image {task.image[:200]}. Please provide a valid image.",
            (*location, "image"),
            code=ErrorCode.USAGE,
            hint="An image is [registry/]name[:tag] in lower case, e.g. ubuntu:24.04.",
        )
    if not task.command:
        findings.add(
            f"Container {task.name} should have at least one command.", (*location, "command")
        )
    if task.resource not in spec.resources and task.resource != DEFAULT_RESOURCE:
        findings.add(
            f"Requesting undefined resource {task.resource}.",
            (*location, "resource"),
            code=ErrorCode.RESOURCE,
            hint=nearest(task.resource, spec.resources)
            or f"Define it under workflow.resources.{task.resource}.",
        )
    _check_variables(task.environment, (*location, "environment"), findings)
    for name, use in task.credentials.items():
        here = (*location, "credentials", name)
        if not isinstance(use, str):
            _check_variables(use, here, findings)
            for variable in use.keys() & task.environment.keys():
                findings.add(
                    f"{variable} is set by the task's environment as well",
                    (*here, variable),
                    on_key=True,
                    hint="Remove it here or there.",
                )
        elif not use.startswith("/"):
            findings.add(
                f"Credential {name} needs an absolute path, not {use[:200]!r}.",
                here,
                hint="Write the folder in which its files appear, e.g. /root/.osmo.",
            )
    for i, source in enumerate(task.inputs):
        if isinstance(source, DatasetInput) and source.dataset.localpath is not None:
            findings.add(
                "a local folder can only be uploaded by the command line client",
                (*location, "inputs", i, "dataset", "localpath"),
                code=ErrorCode.USAGE,
                hint="Upload it as a dataset first, then name that dataset here.",
            )
    for i, mount in enumerate(task.volume_mounts):
        parts = mount.split(":")
        if not 1 <= len(parts) <= 2 or not all(parts):
            findings.add(
                f"Invalid task volume mount: {mount}.",
                (*location, "volumeMounts", i),
                hint="Write source or source:destination.",
            )
    _check_files(task, location, findings)
    _check_exit_actions(task, location, findings)


def _check_variables(names: Iterable[str], location: Location, findings: Findings) -> None:
    for name in names:
        if not name or "=" in name or "\0" in name:
            findings.add(
                f"{name!r} is not a name of an environment variable",
                (*location, name),
                on_key=True,
            )


def _check_files(task: TaskSpec, location: Location, findings: Findings) -> None:
    seen: set[str] = set()
    for i, file in enumerate(task.files):
        here = (*location, "files", i)
        path = file.path
        if not path or path == "/osmo" or path.startswith("/osmo/"):
            findings.add(
                f'Empty path or adding file to "/osmo" is forbidden for file: {path}',
                (*here, "path"),
            )
        elif path in seen:
            findings.add(
                f'Task "{task.name}" has multiple files at the same path "{path}". '
                "Each file needs a path of its own.",
                (*here, "path"),
            )
        seen.add(path)
        _check_contents(file, here, findings)


def _check_contents(file: FileSpec, here: Location, findings: Findings) -> None:
    if file.localpath is not None:
        findings.add(
            "a local file can only be read by the command line client",
            (*here, "localpath"),
            code=ErrorCode.USAGE,
            hint="Submit with the command line client, or write the text under contents.",
            on_key=True,
        )
    elif file.contents is None:
        findings.add('the required field "contents" is missing', here, code=ErrorCode.USAGE)
    elif file.base64:
        try:
            binascii.a2b_base64(file.contents)
        except ValueError as error:
            findings.add(f"contents is not base64: {error}", (*here, "contents"))


def _check_exit_actions(task: TaskSpec, location: Location, findings: Findings) -> None:
    known: list[tuple[str, ExitCodes]] = []
    for action, codes in task.exit_actions.items():
        here = (*location, "exitActions", action)
        if action not in ExitAction.__members__:
            findings.add(
                f"Invalid exit action {action} for task {task.name}.",
                here,
                hint=f"Actions are {', '.join(ExitAction)}.",
                on_key=True,
            )
            continue
        for other, taken in known:
            if common := _overlap(codes, taken):
                findings.add(
                    f"exit code {common} of task {task.name} has two actions, {other} and {action}",
                    here,
                    hint="Give each exit code to one action only.",
                )
        known.append((action, codes))


def _overlap(left: ExitCodes, right: ExitCodes) -> str:
    """The first code that two sorted sets of ranges share, as text; "" if none."""
    i = j = 0
    while i < len(left) and j < len(right):
        low, high = max(left[i][0], right[j][0]), min(left[i][1], right[j][1])
        if low <= high:
            return str(low)
        if left[i][1] < right[j][1]:
            i += 1
        else:
            j += 1
    return ""
