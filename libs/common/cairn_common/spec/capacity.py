"""Whether a workflow could ever run on the nodes of a pool, asked before it is accepted.

The question is about empty nodes: a workflow that must wait is accepted, one that would wait for
ever is refused with the table of nodes and the assertion that failed. Tasks that share a resource
share its answer, so the cost is resources times nodes, plus one step per task.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import reduce

from cairn_common.spec.models import ResourceSpec, WorkflowSpec
from cairn_common.spec.problems import ErrorCode, Location, Problem
from cairn_common.spec.units import format_quantity

_GI = 1 << 30
_MAX_TABLE_ROWS = 40


@dataclass(frozen=True, slots=True)
class Amounts:
    """Cores, GPUs, and bytes of memory and storage."""

    cpu: float = 0
    gpu: float = 0
    memory: int = 0
    storage: int = 0

    def times(self, count: int) -> Amounts:
        """The need of `count` equal tasks."""
        return Amounts(
            self.cpu * count, self.gpu * count, self.memory * count, self.storage * count
        )

    def plus(self, other: Amounts) -> Amounts:
        """The sum of two needs or capacities."""
        return Amounts(
            self.cpu + other.cpu,
            self.gpu + other.gpu,
            self.memory + other.memory,
            self.storage + other.storage,
        )

    def exceeding(self, capacity: Amounts) -> list[str]:
        """The assertions that fail for this need within a capacity, e.g. `cpu 64 <= 8`."""
        return [
            f"{name} {_show(name, getattr(self, name))} <= {_show(name, getattr(capacity, name))}"
            for name in _FIELDS
            if getattr(self, name) > getattr(capacity, name)
        ]


_FIELDS = ("cpu", "gpu", "memory", "storage")


@dataclass(frozen=True, slots=True)
class NodeCapacity:
    """What an empty node offers to tasks: cores, GPUs, bytes; and the platforms it belongs to."""

    name: str
    cpu: float
    gpu: float
    memory: int
    storage: int
    platforms: frozenset[str] = frozenset()

    @property
    def amounts(self) -> Amounts:
        """The capacity without the name."""
        return Amounts(self.cpu, self.gpu, self.memory, self.storage)


def requested(resource: ResourceSpec) -> Amounts:
    """What a resource asks for, with OSMO's values for what is unset: cpu 1, gpu 0, 1Gi, 1Gi."""
    return Amounts(
        cpu=1 if resource.cpu is None else resource.cpu,
        gpu=resource.gpu or 0,
        memory=_GI if resource.memory is None else resource.memory,
        storage=_GI if resource.storage is None else resource.storage,
    )


def check_capacity(
    spec: WorkflowSpec,
    nodes: Sequence[NodeCapacity],
    *,
    pool: str = "default",
    default_platform: str | None = None,
    platforms: Collection[str] | None = None,
    amounts: Callable[[ResourceSpec], Amounts] = requested,
    file: str = "workflow.yaml",
) -> list[Problem]:
    """Problems, all of code RESOURCE, of tasks and groups that no state of the pool can hold.

    Args:
        spec: the workflow.
        nodes: the pool's nodes.
        pool: its name.
        default_platform: of resources that name none; every node may be theirs if it is None.
        platforms: those that are configured; a platform that is none of them is left to
            `cairn_common.pools.check_pool`. None: there are those that nodes belong to.
        amounts: what a task with a resource needs.
        file: the name of the workflow's file.

    Problems have no position; `LoadedWorkflow.locate` adds it.
    """
    check = _Check(nodes, pool, default_platform, platforms, amounts, file)
    first_use: dict[str, Location] = {}
    for g, group in enumerate(spec.all_groups):
        for t, task in enumerate(group.tasks):
            if task.resource not in first_use:
                place = (*spec.task_location(g, t), "resource")
                first_use[task.resource] = place
                check.resource(task.resource, spec, place)
    for g, group in enumerate(spec.all_groups):
        if len(group.tasks) > 1:
            counts = Counter(task.resource for task in group.tasks)
            check.group(group.name, g, counts, spec)
    return check.problems


class _Check:
    """The nodes a check is about, and what it found."""

    def __init__(
        self,
        nodes: Sequence[NodeCapacity],
        pool: str,
        default_platform: str | None,
        platforms: Collection[str] | None,
        amounts: Callable[[ResourceSpec], Amounts],
        file: str,
    ) -> None:
        self.problems: list[Problem] = []
        self._nodes = nodes
        self._pool = pool
        self._default_platform = default_platform
        self._platforms = platforms
        self._amounts = amounts
        self._file = file
        self._failed: set[str] = set()
        self._eligible_cache: dict[str, list[NodeCapacity]] = {}

    def resource(self, name: str, spec: WorkflowSpec, use: Location) -> None:
        """One task with this resource must fit an empty node."""
        resource = spec.resources.get(name) or ResourceSpec()
        if self._platforms is not None and (resource.platform or "") not in {"", *self._platforms}:
            self._failed.add(name)
            return
        need = self._amounts(resource)
        place: Location = ("workflow", "resources", name) if name in spec.resources else use
        platforms = self._platforms or {each for node in self._nodes for each in node.platforms}
        if resource.platform is not None and resource.platform not in platforms:
            available = ", ".join(sorted(platforms)) or "none"
            self._fail(
                name,
                f"Platform {resource.platform} does not exist in pool {self._pool}!",
                (*place, "platform"),
                f"Available platforms: {available}.",
            )
        elif need.cpu <= 0 or need.memory <= 0 or need.storage <= 0:
            self._fail(name, "cpu, memory and storage must be more than 0.", place, "")
        else:
            eligible = self._eligible(name, resource)
            if not any(not need.exceeding(node.amounts) for node in eligible):
                self._fail(name, self._no_node(name, need, eligible), place, "")

    def group(self, name: str, index: int, counts: Counter[str], spec: WorkflowSpec) -> None:
        """The tasks of a group run at once, so together they must fit the nodes together."""
        if self._failed & counts.keys():
            return
        need = Amounts()
        allowed: dict[str, NodeCapacity] = {}
        for resource_name, count in counts.items():
            resource = spec.resources.get(resource_name) or ResourceSpec()
            need = need.plus(self._amounts(resource).times(count))
            allowed |= {node.name: node for node in self._eligible(resource_name, resource)}
        total = reduce(Amounts.plus, (node.amounts for node in allowed.values()), Amounts())
        if failed := need.exceeding(total):
            self.problems.append(
                Problem(
                    f'Group "{name}" does not fit the {len(allowed)} nodes of pool {self._pool} '
                    f"together: {'; '.join(failed)}.",
                    ("workflow", "groups", index),
                    ErrorCode.RESOURCE,
                    "All tasks of a group run at the same time; make the group smaller.",
                    self._file,
                )
            )

    def _eligible(self, name: str, resource: ResourceSpec) -> list[NodeCapacity]:
        if name not in self._eligible_cache:
            platform = resource.platform or self._default_platform
            excluded = frozenset(resource.nodes_excluded)
            self._eligible_cache[name] = [
                node
                for node in self._nodes
                if node.name not in excluded and (platform is None or platform in node.platforms)
            ]
        return self._eligible_cache[name]

    def _no_node(self, name: str, need: Amounts, nodes: Sequence[NodeCapacity]) -> str:
        head = f"No node of pool {self._pool} can run a task with resource {name}."
        if not nodes:
            return f"{head}\nIts platform and nodesExcluded leave no node."
        rows: list[tuple[str, ...]] = [("node", *_FIELDS, "assertion that failed")]
        rows += [
            (
                node.name,
                *(_show(field, getattr(node, field)) for field in _FIELDS),
                "; ".join(need.exceeding(node.amounts)),
            )
            for node in nodes[:_MAX_TABLE_ROWS]
        ]
        if len(nodes) > _MAX_TABLE_ROWS:
            rows.append((f"and {len(nodes) - _MAX_TABLE_ROWS} more", "", "", "", "", ""))
        return f"{head}\n{_table(rows)}"

    def _fail(self, resource: str, message: str, place: Location, hint: str) -> None:
        self._failed.add(resource)
        self.problems.append(Problem(message, place, ErrorCode.RESOURCE, hint, self._file))


def _show(field: str, amount: float) -> str:
    if field in {"memory", "storage"}:
        return format_quantity(int(amount))
    return f"{amount:g}"


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
