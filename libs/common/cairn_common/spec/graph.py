"""The dependency graph of a workflow: which group waits for which.

The unit of placement is the group, so edges run between groups: an input `task: a` of any task of
group g makes g wait for the group of a. Everything here is linear in tasks plus inputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cairn_common.spec.checks import Findings, nearest
from cairn_common.spec.limits import Limits
from cairn_common.spec.models import TaskInput, WorkflowSpec
from cairn_common.spec.problems import ErrorCode, Location, SpecError


@dataclass(frozen=True, slots=True)
class TaskNode:
    """A task: `index` counts through the whole workflow, `inputs` are the indices it reads from."""

    index: int
    name: str
    lead: bool
    group: int
    inputs: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class GroupNode:
    """A group: `upstream` must complete before it is ready, `downstream` wait for it."""

    index: int
    name: str
    tasks: tuple[TaskNode, ...]
    upstream: tuple[int, ...]
    downstream: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class WorkflowGraph:
    """All groups in file order, and `order`: their indices so that upstream comes first."""

    groups: tuple[GroupNode, ...]
    order: tuple[int, ...]

    @property
    def roots(self) -> tuple[int, ...]:
        """Groups that wait for nothing."""
        return tuple(group.index for group in self.groups if not group.upstream)

    @property
    def task_count(self) -> int:
        """Number of tasks of the workflow."""
        return sum(len(group.tasks) for group in self.groups)


def build_graph(spec: WorkflowSpec, *, file: str = "workflow.yaml") -> WorkflowGraph:
    """The graph of a specification.

    Raises SpecError naming every input that points nowhere and every cycle found. A specification
    from `load_workflow` has neither.
    """
    findings = Findings(file, Limits())
    graph = check_graph(spec if spec.groups is not None else spec.normalised(), findings)
    if graph is None:
        raise SpecError(findings.problems)
    return graph


def check_graph(spec: WorkflowSpec, findings: Findings) -> WorkflowGraph | None:
    """Build the graph; on problems add them to the findings and return None."""
    before = findings.total
    groups = spec.all_groups
    tasks, upstream = _edges(spec, findings)
    downstream: list[list[int]] = [[] for _ in groups]
    for g, needs in enumerate(upstream):
        for source in needs:
            downstream[source].append(g)
    order = _topological(upstream, downstream)
    if len(order) < len(groups):
        names = [g.tasks[0].name if spec.written_as_tasks else g.name for g in groups]
        _report_cycles(upstream, set(order), names, findings)
    if findings.total > before:
        return None
    return WorkflowGraph(
        tuple(
            GroupNode(g, group.name, tuple(tasks[g]), tuple(upstream[g]), tuple(downstream[g]))
            for g, group in enumerate(groups)
        ),
        tuple(order),
    )


def _edges(
    spec: WorkflowSpec, findings: Findings
) -> tuple[list[list[TaskNode]], list[dict[int, Location]]]:
    """The tasks of every group, and the groups it waits for, each with one input that says so."""
    homes: dict[str, tuple[int, int]] = {}
    for g, group in enumerate(spec.all_groups):
        for task in group.tasks:
            homes.setdefault(task.name, (g, len(homes)))
    tasks: list[list[TaskNode]] = []
    upstream: list[dict[int, Location]] = []
    index = 0
    for g, group in enumerate(spec.all_groups):
        nodes: list[TaskNode] = []
        needs: dict[int, Location] = {}
        for t, task in enumerate(group.tasks):
            sources: list[int] = []
            for i, source in enumerate(task.inputs):
                # A task of another workflow is complete or refused, but never waited for here.
                if not isinstance(source, TaskInput) or ":" in source.task:
                    continue
                place = (*spec.task_location(g, t), "inputs", i, "task")
                home = homes.get(source.task)
                if home is None:
                    _report_missing(source.task, homes, place, findings)
                elif home[0] == g:
                    _report_own_group(task.name, source.task, place, findings)
                else:
                    sources.append(home[1])
                    needs.setdefault(home[0], place)
            nodes.append(TaskNode(index, task.name, task.lead, g, tuple(sources)))
            index += 1
        tasks.append(nodes)
        upstream.append(needs)
    return tasks, upstream


def _report_missing(
    name: str, homes: Mapping[str, object], place: Location, findings: Findings
) -> None:
    findings.add(
        f"Task input {name} does not exist.",
        place,
        code=ErrorCode.SUBMISSION,
        hint="" if findings.full else nearest(name, homes),
    )


def _report_own_group(name: str, source: str, place: Location, findings: Findings) -> None:
    if name == source:
        findings.add(
            f"Cycle in the workflow: {name} -> {name}",
            place,
            code=ErrorCode.SUBMISSION,
            hint="A task cannot read its own output.",
        )
    else:
        findings.add(
            f"Cycle in the workflow: task {name} waits for {source} of its own group",
            place,
            code=ErrorCode.SUBMISSION,
            hint="Tasks of a group run at the same time: move one of them to another group.",
        )


def _topological(
    upstream: Sequence[dict[int, Location]], downstream: Sequence[list[int]]
) -> list[int]:
    """Kahn's algorithm (1962): groups whose upstream is complete, in file order among equals."""
    waiting = [len(needs) for needs in upstream]
    order = [g for g, count in enumerate(waiting) if not count]
    for g in order:  # grows while it is read
        for after in downstream[g]:
            waiting[after] -= 1
            if not waiting[after]:
                order.append(after)
    return order


def _report_cycles(
    upstream: Sequence[dict[int, Location]],
    ordered: set[int],
    names: Sequence[str],
    findings: Findings,
) -> None:
    """Report one cycle per walk against the arrows.

    Every group left over by Kahn's algorithm waits for another one left over, so following the
    first such arrow always ends in a cycle. Colouring what was walked keeps all walks linear.
    """
    colour: dict[int, int] = {}
    for start in range(len(upstream)):
        if start in ordered or start in colour:
            continue
        walk: list[int] = []
        g = start
        while g not in colour:
            colour[g] = start
            walk.append(g)
            g = next(up for up in upstream[g] if up not in ordered)
        if colour[g] != start:
            continue
        cycle = walk[walk.index(g) :]
        cycle.reverse()  # from "waits for" to "feeds"
        first = min(range(len(cycle)), key=cycle.__getitem__)
        cycle = cycle[first:] + cycle[:first]
        shown = [names[i] for i in cycle]
        if len(shown) > 12:
            shown = [*shown[:6], f"... {len(shown) - 10} more ...", *shown[-4:]]
        findings.add(
            f"Cycle in the workflow: {' -> '.join([*shown, names[cycle[0]]])}",
            upstream[cycle[0]][cycle[-1]],
            code=ErrorCode.SUBMISSION,
            hint="Each arrow is an output that the next one reads; remove one of these inputs.",
        )
