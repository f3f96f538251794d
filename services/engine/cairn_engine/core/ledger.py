"""The entities that a batch of inputs is about, and which of them have changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cairn_engine.core.model import Group, Task, Workflow


class Ledger:
    """A working set: loaded before decisions, written back after them.

    `current` maps a task to the number of its newest attempt; `whole` names the groups of which
    every newest attempt is loaded.
    """

    def __init__(self) -> None:
        self.workflows: dict[str, Workflow] = {}
        self.groups: dict[tuple[str, int], Group] = {}
        self.tasks: dict[tuple[str, int, int], Task] = {}
        self.current: dict[tuple[str, int], int] = {}
        self.whole: set[tuple[str, int]] = set()
        self.pages: dict[str, list[int]] = {}
        self.recounted: set[str] = set()
        self.changed_workflows: set[str] = set()
        self.changed_groups: set[tuple[str, int]] = set()
        self.changed_tasks: set[tuple[str, int, int]] = set()
        self.new_tasks: set[tuple[str, int, int]] = set()

    def add_task(self, task: Task) -> None:
        """Take a loaded attempt in; what is here already is newer and stays."""
        if self.tasks.setdefault(task.key, task) is task:
            slot = (task.workflow, task.index)
            if task.attempt >= self.current.get(slot, -1):
                self.current[slot] = task.attempt

    def create_task(self, task: Task) -> None:
        """Take in an attempt that did not exist before."""
        self.tasks[task.key] = task
        self.current[task.workflow, task.index] = task.attempt
        self.new_tasks.add(task.key)

    def touch_task(self, task: Task) -> None:
        """Remember that an attempt has changed."""
        if task.key not in self.new_tasks:
            self.changed_tasks.add(task.key)

    def touch_group(self, group: Group) -> None:
        """Remember that a group has changed."""
        self.changed_groups.add((group.workflow, group.index))

    def touch_workflow(self, workflow: Workflow) -> None:
        """Remember that a workflow has changed."""
        self.changed_workflows.add(workflow.id)

    def tasks_of(self, group: Group) -> Iterator[Task]:
        """The newest attempt of each task of a whole group, in order."""
        for index in range(group.first_task, group.first_task + group.size):
            yield self.tasks[group.workflow, index, self.current[group.workflow, index]]

    def open_tasks_of(self, group: Group) -> list[Task]:
        """Those of them that have not ended."""
        return [task for task in self.tasks_of(group) if not task.status.final]

    def lacks_group(self, workflow: str, index: int) -> bool:
        """Whether the group and all its newest attempts must still be loaded."""
        return (workflow, index) not in self.whole

    def mark_whole(self, keys: Iterable[tuple[str, int]]) -> None:
        """Remember that every newest attempt of these groups is here."""
        self.whole.update(keys)
