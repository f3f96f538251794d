"""How many pods make a gang, and which of them lie close together.

A PodGroup's minimum must follow its life. KAI starts nothing while fewer pods than the minimum
live, and evicts a group that runs with fewer for a minute (unless a pod succeeded); so when pods
end, the minimum shrinks to those that run, and when a few tasks are tried again beside others
that run, it stays at those. A group of which nothing runs starts together: all or none. A
sub-group that is tried again as a whole has the same minute to find its place, as KAI 0.12 knows
no minimum of none.

Topology requirements become a tree: tasks with the same key and group share a node of it. What
all tasks share is a constraint of the whole PodGroup; below that, sub-groups. KAI 0.12 compares
the names of parents in lower case and wants pods in leaves only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cairn_bridge.drivers.kubernetes.core.names import label
from cairn_common.events import TaskPlacement, Topology
from cairn_common.pools import TopologyKey

REST = "rest"


@dataclass(slots=True)
class Layout:
    """Where the tasks of a group belong: `constraint` of all, sub-groups, and each task's leaf."""

    constraint: dict[str, str] | None = None
    subgroups: list[dict[str, Any]] = field(default_factory=list)
    leaf_of: dict[int, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Node:
    path: tuple[str, ...]
    level: Topology | None
    children: dict[tuple[str, str], _Node] = field(default_factory=dict)
    tasks: list[int] = field(default_factory=list)


def lay_out(tasks: Sequence[TaskPlacement], keys: Sequence[TopologyKey], topology: str) -> Layout:
    """The constraints of a new group.

    Args:
        tasks: the group's tasks.
        keys: the pool's topology keys, from wide to narrow.
        topology: the name of the pool's Topology.
    """
    labels = {each.key: each.label for each in keys}
    root = _Node((), None)
    for task in tasks:
        node = root
        for level in _ordered(task.topology, keys):
            step = (level.key, level.group)
            if step not in node.children:
                node.children[step] = _Node((*node.path, _step(level)), level)
            node = node.children[step]
        node.tasks.append(task.index)

    layout = Layout()
    while len(root.children) == 1 and not root.tasks:
        (root,) = root.children.values()
        assert root.level is not None
        layout.constraint = _constraint(root.level, labels, topology)
    if root.children:
        _add(layout, root, None, labels, topology)
    return layout


def leaf_for(
    task: TaskPlacement, keys: Sequence[TopologyKey], present: Iterable[str]
) -> str | None:
    """The sub-group that a task had when its group was laid out, among those it was given."""
    path = tuple(_step(level) for level in _ordered(task.topology, keys))
    names = set(present)
    for name in (_name((*path, REST)), _name(path)):
        if name in names:
            return name
    return None


def _ordered(levels: Sequence[Topology], keys: Sequence[TopologyKey]) -> list[Topology]:
    order = {each.key: place for place, each in enumerate(keys)}
    return sorted(levels, key=lambda level: order[level.key])


def _step(level: Topology) -> str:
    return label(f"{level.key}-{level.group}")


def _name(path: tuple[str, ...]) -> str:
    return "-".join(path)


def _constraint(level: Topology, labels: Mapping[str, str], topology: str) -> dict[str, str]:
    kind = "requiredTopologyLevel" if level.required else "preferredTopologyLevel"
    return {"topology": topology, kind: labels[level.key]}


def _add(
    layout: Layout, node: _Node, parent: str | None, labels: Mapping[str, str], topology: str
) -> None:
    above = {} if parent is None else {"parent": parent}
    for child in node.children.values():
        name = _name(child.path)
        assert child.level is not None
        entry: dict[str, Any] = {
            "name": name,
            **above,
            "topologyConstraint": _constraint(child.level, labels, topology),
        }
        layout.subgroups.append(entry)
        if child.children:
            _add(layout, child, name, labels, topology)
        else:
            entry["minMember"] = len(child.tasks)
            layout.leaf_of |= dict.fromkeys(child.tasks, name)
    if node.tasks:  # beside sub-groups, pods without one would belong nowhere
        name = _name((*node.path, REST))
        layout.subgroups.append({"name": name, **above, "minMember": len(node.tasks)})
        layout.leaf_of |= dict.fromkeys(node.tasks, name)


@dataclass(frozen=True, slots=True)
class Member:
    """A pod of a gang that has not ended: its sub-group, and whether it has a node."""

    leaf: str | None
    bound: bool


def minimum(members: Sequence[Member]) -> dict[str | None, int]:
    """The minimum of each leaf (None: of the group as a whole).

    Pods that wait beside others of their leaf that run join one by one; where nothing of a leaf
    runs, all of it starts together.
    """
    bound = Counter(each.leaf for each in members if each.bound)
    live = Counter(each.leaf for each in members)
    return {leaf: bound[leaf] or count for leaf, count in live.items()}


def shrunk(
    subgroups: Sequence[Mapping[str, Any]], minima: Mapping[str | None, int]
) -> list[dict[str, Any]]:
    """Sub-groups with new minima: leaves without a pod go, and what was above them only."""
    parents = {each.get("parent") for each in subgroups}
    kept = {
        each["name"]: {**each, "minMember": minima[each["name"]]}
        for each in subgroups
        if each["name"] not in parents and minima.get(each["name"])
    }
    wanted = {each.get("parent") for each in kept.values()}
    by_name = {each["name"]: each for each in subgroups}
    while missing := [name for name in wanted if name is not None and name not in kept]:
        for name in missing:
            kept[name] = dict(by_name[name])
            wanted.add(by_name[name].get("parent"))
    return [kept[each["name"]] for each in subgroups if each["name"] in kept]
