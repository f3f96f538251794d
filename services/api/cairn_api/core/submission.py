"""Whether a readable workflow is accepted, and what is kept of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cairn_api.core.errors import ApiError
from cairn_api.core.fitting import problems_of
from cairn_api.core.inventory import Site
from cairn_api.core.labels import merge_labels
from cairn_api.core.model import Request
from cairn_common.spec.capacity import requested
from cairn_common.spec.load import LoadedWorkflow
from cairn_common.spec.models import WorkflowSpec
from cairn_common.spec.problems import SpecError

NO_INVENTORY = "No cluster of the pool has said yet what it has; whether this fits was not checked."


@dataclass(frozen=True, slots=True)
class Accepted:
    """A workflow that may be run: what is stored of it besides who sent it and when."""

    name: str
    spec: str
    rendered: str
    template: str | None
    labels: Mapping[str, str]
    warnings: Sequence[str]
    request: Request
    other_requests: Mapping[str, Request]


def accept(
    loaded: LoadedWorkflow,
    *,
    pool: str,
    features: frozenset[str],
    sites: Sequence[Site],
    labels: Mapping[str, str],
    environment: Mapping[str, str],
    template: str | None,
    priority: str = "NORMAL",
) -> Accepted:
    """Check what depends on this installation and its clusters, all problems at once.

    Args:
        loaded: the workflow, already without problems of its own.
        pool: where it is to run.
        features: what is executed here, whatever the cluster.
        sites: what the pool's clusters offer; with none only features are checked.
        labels: labels of the submission, which win over those of the file.
        environment: variables for every task that `loaded` does not have yet.
        template: the text before its templates were filled in, if the client did that.
        priority: HIGH and NORMAL run within the pool's guarantee.

    Raises:
        SpecError: the workflow cannot run here.
        ApiError: too many labels.
    """
    spec = loaded.spec
    problems = problems_of(spec, sites, pool=pool, features=features, priority=priority)
    if problems:
        raise SpecError(loaded.locate(problems), rendered=loaded.rendered)
    merged = merge_labels(spec.labels, dict(labels))
    if merged != spec.labels:
        spec = spec.model_copy(update={"labels": merged})
    if environment:
        spec = _with_environment(spec, environment)
    if template is None and loaded.template != loaded.rendered:
        template = loaded.template
    usual, others = _requests(spec)
    return Accepted(
        name=spec.name,
        spec=spec.model_dump_json(by_alias=True, exclude_defaults=True),
        rendered=loaded.rendered,
        template=template,
        labels=merged,
        warnings=[*loaded.warnings, *([] if sites else [NO_INVENTORY])],
        request=usual,
        other_requests=others,
    )


def parse_environment(items: Sequence[str]) -> dict[str, str]:
    """The variables of `NAME=value` texts.

    Raises:
        ApiError: one of them sets no variable.
    """
    values: dict[str, str] = {}
    for item in items:
        name, separator, value = item.partition("=")
        if not separator or not name:
            raise ApiError(
                f"{item[:80]!r} does not set an environment variable. Write NAME=value.", "USAGE"
            )
        values[name] = value
    return values


def only_local_files_missing(error: SpecError) -> bool:
    """Whether all that is wrong are files that the client reads after a dry run."""
    return all(problem.location[-1:] == ("localpath",) for problem in error.problems)


def _with_environment(spec: WorkflowSpec, environment: Mapping[str, str]) -> WorkflowSpec:
    groups = tuple(
        group.model_copy(
            update={
                "tasks": tuple(
                    task.model_copy(update={"environment": {**task.environment, **environment}})
                    for task in group.tasks
                )
            }
        )
        for group in spec.all_groups
    )
    return spec.model_copy(update={"groups": groups})


def _requests(spec: WorkflowSpec) -> tuple[Request, dict[str, Request]]:
    """What most tasks ask for, and what the others do, by their names."""
    tasks = [task for group in spec.all_groups for task in group.tasks]
    by_resource: dict[str, Request] = {}
    for task in tasks:
        if task.resource not in by_resource:
            need = requested(spec.resource_of(task))
            by_resource[task.resource] = Request(
                int(need.cpu), int(need.gpu), need.memory, need.storage
            )
    counts = Counter(by_resource[task.resource] for task in tasks)
    usual = counts.most_common(1)[0][0]
    others = {
        task.name: request for task in tasks if (request := by_resource[task.resource]) != usual
    }
    return usual, others
