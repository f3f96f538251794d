"""The life of a workflow in words, told from the times that its rows hold.

Every step of every attempt is one line. A line is told once, in the order in which the steps
became known, and all that is known at the beginning is sorted by time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from cairn_api.core.loglines import stamp, whose
from cairn_api.core.model import Snapshot, Task, Workflow

Key = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Line:
    """One step. `task` is None for steps of the workflow itself."""

    at: datetime
    text: str
    task: str | None = None
    attempt: int = 0


class Story:
    """Tells the steps of one workflow, each once."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self._told: set[Key] = set()

    def follow(self, snapshot: Snapshot) -> None:
        """Add the steps that are new in this snapshot to `lines`."""
        fresh = [(line.at, key, line) for key, line in _steps(snapshot) if key not in self._told]
        fresh.sort(key=lambda entry: entry[:2])
        self._told.update(key for _, key, _ in fresh)
        self.lines.extend(line for _, _, line in fresh)


def _steps(snapshot: Snapshot) -> Iterator[tuple[Key, Line]]:
    # The key puts steps of one moment in their natural order: by task and attempt, then by
    # phase, with the workflow's own beginning before and its end after all tasks.
    for number, line in _workflow_steps(snapshot.workflow):
        yield (-1 if number < 2 else 1 << 31, 0, number), line
    for task in snapshot.tasks:
        for number, (at, words) in enumerate(_task_steps(task)):
            if at is not None:
                text = f"{stamp(at)} {whose(task.name, task.attempt)} {words}\n"
                yield (task.index, task.attempt, number), Line(at, text, task.name, task.attempt)


def _workflow_steps(workflow: Workflow) -> Iterator[tuple[int, Line]]:
    def line(at: datetime, words: str) -> Line:
        return Line(at, f"{stamp(at)} Workflow {workflow.id} {words}\n")

    yield 0, line(workflow.submitted_at, f"submitted by {workflow.user} to pool {workflow.pool}")
    if workflow.started_at is not None:
        yield 1, line(workflow.started_at, "RUNNING")
    if workflow.ended_at is not None and workflow.status.final:
        cause = f": {workflow.cause}" if workflow.cause else ""
        yield 2, line(workflow.ended_at, f"{workflow.status}{cause}")


def _task_steps(task: Task) -> Iterator[tuple[datetime | None, str]]:
    on = f" on node {task.node}" if task.node else ""
    yield task.processing_at, "PROCESSING: offered to the cluster"
    yield task.scheduling_at, "SCHEDULING: in the cluster's queue"
    yield task.initializing_at, f"INITIALIZING{on}"
    yield task.started_at, f"RUNNING{on}"
    details = [f"exit code {task.exit_code}"] if task.exit_code is not None else []
    details += [task.message] if task.message else []
    yield task.ended_at, ": ".join([task.status, ", ".join(details)]) if details else task.status
