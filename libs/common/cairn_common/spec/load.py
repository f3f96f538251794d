"""Reading a workflow file: templates, YAML, models, checks - and every problem of it at once.

`load_workflow` runs in the calling process and is meant for text its caller trusts, such as a
user's own file in the command line client. Text from elsewhere goes through `SpecLoader`.
"""

from __future__ import annotations

import contextlib
import gc
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cairn_common.spec.checkpoints import check_checkpoints
from cairn_common.spec.checks import Findings, check_tasks, check_workflow, nearest
from cairn_common.spec.graph import check_graph
from cairn_common.spec.limits import Limits
from cairn_common.spec.models import WorkflowSpec
from cairn_common.spec.positions import locate
from cairn_common.spec.problems import ErrorCode, Problem, SpecError
from cairn_common.spec.refusals import too_large
from cairn_common.spec.structure import read_structure
from cairn_common.spec.templating import Rendered, render, reserved_problems
from cairn_common.spec.token_checks import check_tokens
from cairn_common.spec.yamltext import parse_yaml

TOP_LEVEL = frozenset({"version", "workflow", "default-values"})
_LARGE_TEXT = 256 * 1024
_TOP_KEY = re.compile(r"^(workflow|version|default-values)[ \t]*:(?=\s|$)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class LoadedWorkflow:
    """A workflow file that was read without problems.

    `spec` has groups only. `template` is the text as sent and `rendered` the text after templates,
    the same when there were none. `warnings` are worth showing but refuse nothing.
    """

    spec: WorkflowSpec
    rendered: str
    template: str
    warnings: tuple[str, ...] = ()
    file: str = "workflow.yaml"

    def locate(self, problems: Sequence[Problem]) -> list[Problem]:
        """Give problems of later checks (capacity, features) their line and column."""
        templated = self.rendered != self.template
        marked = [replace(p, file=self.file, in_rendered=templated) for p in problems]
        return locate(self.rendered, marked)


def load_workflow(
    text: str,
    *,
    file: str = "workflow.yaml",
    set_variables: Sequence[str] = (),
    set_string_variables: Sequence[str] = (),
    env_vars: Sequence[str] = (),
    limits: Limits | None = None,
    templates: bool = True,
) -> LoadedWorkflow:
    """Read, render and check a workflow file; with `templates=False` it is rendered already.

    `set_variables` and `set_string_variables` are `name=value` for templates (see
    `templating.render`), `env_vars` are `NAME=value` for the environment of every task. Raises
    SpecError with all problems found, or MemoryError if the process has too little of it.
    """
    limits = limits or Limits()
    environment = _environment(env_vars, file)
    _check_size(text, file, limits)
    with _uncollected(len(text)):
        return _load(
            text,
            file,
            set_variables,
            set_string_variables,
            environment=environment,
            limits=limits,
            templates=templates,
        )


@contextlib.contextmanager
def _uncollected(size: int) -> Iterator[None]:
    """Pause the cyclic garbage collector while a large text is read.

    Millions of new dicts and no cycle among them: its passes would take longer than the reading.
    """
    pause = size > _LARGE_TEXT and gc.isenabled()
    if pause:
        gc.disable()
    try:
        yield
    finally:
        if pause:
            gc.enable()


def _load(
    text: str,
    file: str,
    set_variables: Sequence[str],
    set_string_variables: Sequence[str],
    *,
    environment: Mapping[str, str],
    limits: Limits,
    templates: bool,
) -> LoadedWorkflow:
    rendered = render(
        text,
        file=file,
        set_variables=set_variables,
        set_string_variables=set_string_variables,
        limits=limits,
        templates=templates,
    )
    try:
        return _load_rendered(text, rendered, file, environment, limits)
    except SpecError as error:
        if not rendered.templated:
            raise
        marked = [replace(problem, in_rendered=True) for problem in error.problems]
        raise SpecError(marked, rendered=rendered.text) from None


def _load_rendered(
    text: str, rendered: Rendered, file: str, environment: Mapping[str, str], limits: Limits
) -> LoadedWorkflow:
    _check_duplicate_sections(rendered.text, file)
    document = parse_yaml(rendered.text, file=file, limits=limits)
    data, problems = _top_level(document.value, rendered.text, file)
    if environment:
        _add_environment(data, environment)
    structure = read_structure(data, file=file, max_problems=limits.max_problems)
    findings = Findings(file, limits, structure.damaged)
    spec: WorkflowSpec | None = None
    if structure.spec is not None:
        check_workflow(structure.spec, findings)
        spec = structure.spec.normalised()
        check_tasks(spec, findings)
        check_checkpoints(spec, findings)
        check_tokens(spec, findings)
        check_graph(spec, findings)
    problems += structure.problems + findings.problems
    if problems:
        located = locate(rendered.text, problems)
        if findings.total > len(findings.problems):
            more = findings.total - len(findings.problems)
            located.append(Problem(f"and {more:,} more problems", file=file))
        raise SpecError(located)
    assert spec is not None
    warnings = (*rendered.warnings, *document.warnings, *findings.warnings)
    return LoadedWorkflow(spec, rendered.text, text, warnings, file)


def _check_size(text: str, file: str, limits: Limits) -> None:
    # Characters first: encoding a gigantic text only to measure it would be the cost to avoid.
    size = len(text)
    if size <= limits.max_bytes:
        size = len(text.encode("utf-8", "surrogatepass"))
    if size > limits.max_bytes:
        raise SpecError([too_large(limits, file)])


def _environment(items: Sequence[str], file: str) -> dict[str, str]:
    values: dict[str, str] = {}
    for item in items:
        name, separator, value = item.partition("=")
        if not separator or not name:
            raise SpecError(
                [
                    Problem(
                        f"{item[:80]!r} does not set an environment variable",
                        code=ErrorCode.USAGE,
                        hint="Write NAME=value.",
                        file=file,
                    )
                ]
            )
        values[name] = value
    return values


def _check_duplicate_sections(text: str, file: str) -> None:
    seen: set[str] = set()
    for match in _TOP_KEY.finditer(text):
        key = match[1]
        if key in seen:
            problem = Problem(
                f'Duplicate top-level key "{key}" found in the workflow spec.', file=file
            )
            line = text.count("\n", 0, match.start()) + 1
            raise SpecError([problem.at(line, 1, match[0])])
        seen.add(key)


def _top_level(value: Any, text: str, file: str) -> tuple[dict[str, Any], list[Problem]]:
    """The sections of the file, and the keys that are none."""
    if not isinstance(value, dict) or "workflow" not in value:
        near = nearest("workflow", {str(key) for key in value}) if isinstance(value, dict) else ""
        hint = "A file starts with `workflow:` and its name and tasks below it."
        if near:
            hint = near.replace("did you mean", "write workflow instead of")[:-1] + "."
        problem = Problem("Workflow spec not found.", hint=hint, file=file)
        raise SpecError([problem.at(1, 1, text.split("\n", 1)[0])])
    problems = [
        Problem(
            f'Unknown top-level key "{key}" found in the workflow spec.',
            (str(key),),
            hint=nearest(str(key), set(TOP_LEVEL))
            or "Only version, workflow and default-values stand here; check the indentation.",
            file=file,
            on_key=True,
        )
        for key in value
        if key not in TOP_LEVEL
    ]
    defaults = value.get("default-values")
    if isinstance(defaults, dict):
        # Without Jinja the section is not used, yet its names may not pretend to be tokens.
        problems += reserved_problems({str(name): None for name in defaults}, file)
    return {"workflow": value["workflow"]}, problems


def _add_environment(data: dict[str, Any], environment: Mapping[str, str]) -> None:
    """Set variables in every task that looks like one; the checks report the others.

    Tasks and environments are copied, since YAML aliases may share them.
    """

    def extended(tasks: Any) -> Any:
        if not isinstance(tasks, list):
            return tasks
        return [
            {**task, "environment": {**(task.get("environment") or {}), **environment}}
            if isinstance(task, dict) and isinstance(task.get("environment") or {}, dict)
            else task
            for task in tasks
        ]

    workflow = data["workflow"]
    if not isinstance(workflow, dict):
        return
    workflow = dict(workflow)
    if "tasks" in workflow:
        workflow["tasks"] = extended(workflow["tasks"])
    if isinstance(workflow.get("groups"), list):
        workflow["groups"] = [
            {**group, "tasks": extended(group["tasks"])}
            if isinstance(group, dict) and "tasks" in group
            else group
            for group in workflow["groups"]
        ]
    data["workflow"] = workflow
