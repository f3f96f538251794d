"""Whether the special tokens in a task's texts can be filled in when it runs.

`{{input:N}}` needs an N-th input, `{{input:name}}` an input of that name, and `{{host:task}}` a
task of the same group: hosts are names within the network that one group gets.
"""

from __future__ import annotations

from collections.abc import Iterator

from cairn_common.spec.checks import Findings, nearest
from cairn_common.spec.models import (
    DatasetInput,
    DatasetOutput,
    DatasetUpdateOutput,
    Input,
    Output,
    TaskInput,
    TaskSpec,
    UrlInput,
    UrlOutput,
    WorkflowSpec,
)
from cairn_common.spec.problems import ErrorCode, Location
from cairn_common.spec.references import dataset_basename
from cairn_common.spec.tokens import Token, iter_tokens

_MAX_INDEX_DIGITS = 9


def check_tokens(spec: WorkflowSpec, findings: Findings) -> None:
    """Add a problem for every token that nothing will ever fill in."""
    everywhere: dict[str, str] = {}
    for group in spec.all_groups:
        for task in group.tasks:
            everywhere[task.name] = group.name
    for g, group in enumerate(spec.all_groups):
        peers = {task.name for task in group.tasks}
        for t, task in enumerate(group.tasks):
            location = spec.task_location(g, t)
            for place, text in task_texts(task):
                for token in iter_tokens(text):
                    if token.kind == "host" and token.argument not in peers:
                        _report_host(token, everywhere, peers, (*location, *place), findings)
                    elif token.kind == "input" and findings.judges(location, "inputs"):
                        _check_input(token, task, (*location, *place), findings)


def task_texts(task: TaskSpec) -> Iterator[tuple[Location, str]]:
    """Every text of a task in which tokens are filled in, with its place below the task."""
    for i, text in enumerate(task.command):
        yield ("command", i), text
    for i, text in enumerate(task.args):
        yield ("args", i), text
    for name, text in task.environment.items():
        yield ("environment", name), text
    for i, file in enumerate(task.files):
        yield ("files", i, "path"), file.path
        if file.contents is not None and not file.base64:
            yield ("files", i, "contents"), file.contents
    for i, source in enumerate(task.inputs):
        if isinstance(source, UrlInput):
            yield ("inputs", i, "url"), source.url
        elif isinstance(source, DatasetInput):
            yield ("inputs", i, "dataset", "name"), source.dataset.name
    for i, target in enumerate(task.outputs):
        yield _target_text(i, target)
    for i, save in enumerate(task.checkpoint):
        yield ("checkpoint", i, "path"), save.path
        yield ("checkpoint", i, "url"), save.url


def _target_text(i: int, target: Output) -> tuple[Location, str]:
    match target:
        case UrlOutput():
            return ("outputs", i, "url"), target.url
        case DatasetOutput():
            return ("outputs", i, "dataset", "name"), target.dataset.name
        case DatasetUpdateOutput():
            return ("outputs", i, "update_dataset", "name"), target.update_dataset.name


def input_index(argument: str, inputs: tuple[Input, ...]) -> int | None:
    """Which input `{{input:argument}}` means: by number, task name or dataset; None if none."""
    if argument.isdecimal() and len(argument) <= _MAX_INDEX_DIGITS:
        index = int(argument)
        return index if index < len(inputs) else None
    for index, source in enumerate(inputs):
        if argument in _names(source):
            return index
    return None


def _names(source: Input) -> tuple[str, ...]:
    if isinstance(source, TaskInput):
        return source.task, source.task.rpartition(":")[2]
    if isinstance(source, DatasetInput):
        return source.dataset.name, dataset_basename(source.dataset.name)
    return ()


def _check_input(token: Token, task: TaskSpec, place: Location, findings: Findings) -> None:
    if input_index(token.argument, task.inputs) is not None:
        return
    count = len(task.inputs)
    if token.argument.isdecimal():
        has = f"has {count} input{'s' if count != 1 else ''}" if count else "has no inputs"
        message = f"{token.text} is out of range: task {task.name} {has}"
        hint = f"Inputs are counted from 0: {{{{input:0}}}} to {{{{input:{count - 1}}}}}."
        hint = hint if count else f"Add the input to task {task.name}."
    else:
        message = f"{token.text} names no input of task {task.name}"
        names = {name for source in task.inputs for name in _names(source)}
        hint = nearest(token.argument, names) or f"Add `- task: {token.argument}` to its inputs."
    findings.add(message, place, code=ErrorCode.SUBMISSION, hint=hint, token=token.text)


def _report_host(
    token: Token, everywhere: dict[str, str], peers: set[str], place: Location, findings: Findings
) -> None:
    other = everywhere.get(token.argument)
    if other is None:
        message = f"{token.text} names no task of this workflow"
        hint = nearest(token.argument, peers)
    else:
        message = f"{token.text} names a task of another group"
        hint = "Only tasks of one group run at the same time and reach each other: put both in one."
    findings.add(message, place, code=ErrorCode.SUBMISSION, hint=hint, token=token.text)
