"""The entities that decisions are about, and which of them have changed since the last commit.

A ledger outlives its batch: what is in it need not be loaded again, as long as nobody else may
write it. It is bounded; whatever is not in it can be loaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cairn_common.status import TaskStatus
from cairn_engine.core.gangs import Need
from cairn_engine.core.model import Group, Task, Workflow


class Ledger:
    """A working set: loaded before decisions, written back after them.

    `current` maps a task to the number of its newest attempt here, which for a group in `whole`
    is its newest attempt of all. `needs` are those of groups for which a cluster may be chosen,
    as far as somebody has put them here; they last until the commit.
    """

    def __init__(self) -> None:
        self.workflows: dict[str, Workflow] = {}
        self.groups: dict[tuple[str, int], Group] = {}
        self.tasks: dict[tuple[str, int, int], Task] = {}
        self.current: dict[tuple[str, int], int] = {}
        self.whole: set[tuple[str, int]] = set()
        self.pages: dict[str, list[int]] = {}
        self.needs: dict[tuple[str, int], Need] = {}
        self.recounted: set[str] = set()
        self.changed_workflows: set[str] = set()
        self.changed_groups: set[tuple[str, int]] = set()
        self.changed_tasks: set[tuple[str, int, int]] = set()
        self.new_tasks: set[tuple[str, int, int]] = set()

    # --- what is here ----------------------------------------------------------------------

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

    def tasks_of(self, group: Group) -> Iterator[Task]:
        """The newest attempt of each task of a whole group, in order."""
        for index in range(group.first_task, group.first_task + group.size):
            yield self.tasks[group.workflow, index, self.current[group.workflow, index]]

    def open_tasks_of(self, group: Group) -> list[Task]:
        """Those of them that have not ended."""
        return [task for task in self.tasks_of(group) if not task.status.final]

    def completed_attempt(self, workflow: str, index: int) -> Task | None:
        """A task's newest attempt, if it is here and has completed."""
        task = self.tasks.get((workflow, index, self.current.get((workflow, index), -1)))
        return task if task is not None and task.status is TaskStatus.COMPLETED else None

    def mark_whole(self, keys: Iterable[tuple[str, int]]) -> None:
        """Remember that every newest attempt of these groups is here."""
        self.whole.update(keys)

    # --- what has changed ------------------------------------------------------------------

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

    def committed(self) -> None:
        """All that has changed is stored."""
        for names in (
            self.changed_workflows,
            self.changed_groups,
            self.changed_tasks,
            self.new_tasks,
            self.recounted,
            self.pages,
            self.needs,
        ):
            names.clear()

    # --- what may go -----------------------------------------------------------------------

    def forget(self) -> None:
        """Drop everything: it may not be what is stored."""
        for collection in (self.workflows, self.groups, self.tasks, self.current, self.whole):
            collection.clear()
        self.committed()

    def drop_settled(self) -> None:
        """Drop the groups that have just changed and of which nothing more will be heard."""
        for key in self.changed_groups | {(t[0], self.tasks[t].group) for t in self.changed_tasks}:
            group = self.groups.get(key)
            if group is None or not group.status.final or key not in self.whole:
                continue
            if all(task.archived and task.reported for task in self.tasks_of(group)):
                self._drop_group(group)
        for name in self.changed_workflows:
            if self.workflows[name].status.final:
                del self.workflows[name]

    def shrink(self, tasks: int) -> None:
        """Drop groups until at most so many attempts are left.

        Those that wait go first, since of the others more is about to be heard; of either kind
        those that came first.
        """
        if len(self.tasks) <= tasks:
            return
        groups = list(self.groups.values())
        for group in sorted(groups, key=lambda group: group.status is not TaskStatus.WAITING):
            self._drop_group(group)
            if len(self.tasks) <= tasks // 2:
                break
        used = {workflow for workflow, _ in self.groups}
        for name in self.workflows.keys() - used:
            del self.workflows[name]

    def _drop_group(self, group: Group) -> None:
        key = (group.workflow, group.index)
        del self.groups[key]
        self.whole.discard(key)
        for index in range(group.first_task, group.first_task + group.size):
            for attempt in range(self.current.pop((group.workflow, index), -1) + 1):
                self.tasks.pop((group.workflow, index, attempt), None)
