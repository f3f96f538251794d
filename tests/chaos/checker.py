"""The record against the journal. Pure: what the engine says happened, and what really ran.

Four kinds of violation, of which the first three are the promise:

* LOST: an acknowledged workflow that is not there; an attempt that is recorded as run to its end,
  or started, and never was; an end that was reported by nobody; a line of its log that is gone.
* DOUBLED: two processes for one attempt number, or a process that nobody recorded.
* STUCK: a workflow that has not ended, or a process that still runs, when all should be over.
* WRONG: another status, exit code or number of attempts than the workflow's shape demands, or a
  task that began before one that it needs had ended.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from .journal import Attempt, Run
from .shapes import Plan, TaskPlan

_OWN_CODES = range(100)
"""Exit codes that a task gives itself; those above come from signals or from the system."""
_LONG_ENOUGH = 1.0
"""Seconds after which a process has certainly written its line, even if it was stopped then."""


class Kind(StrEnum):
    """What is wrong."""

    LOST = "lost"
    DOUBLED = "doubled"
    STUCK = "stuck"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Violation:
    """Something that may not be; `task` is None where it is about the whole workflow."""

    kind: Kind
    workflow: str
    task: str | None
    words: str


@dataclass(frozen=True, slots=True)
class Expected:
    """A workflow that was taken: its plan, and whether its cancellation was acknowledged."""

    workflow: str
    plan: Plan
    canceled: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """An attempt as the engine publishes it."""

    task: str
    attempt: int
    status: str
    exit_code: int | None
    started: bool


@dataclass(slots=True)
class Record:
    """What is recorded of all workflows.

    `logged` are attempts of which the archive holds the line that each writes when it begins.
    """

    statuses: dict[str, str] = field(default_factory=dict)
    rows: dict[str, list[Row]] = field(default_factory=dict)
    logged: set[Attempt] = field(default_factory=set)


def check(
    expected: Sequence[Expected],
    record: Record,
    runs: Mapping[Attempt, Sequence[Run]],
    running: Iterable[Attempt] = (),
) -> list[Violation]:
    """All violations.

    Args:
        expected: the workflows that were acknowledged, and those that were found all the same.
        record: what the engine and the archive say.
        runs: what the journal says.
        running: attempts of which a process runs although all should be over.
    """
    found: list[Violation] = []
    by_workflow: dict[str, dict[Attempt, Sequence[Run]]] = {}
    for attempt, its_runs in runs.items():
        by_workflow.setdefault(attempt.workflow, {})[attempt] = its_runs
    for each in expected:
        found += _Case(each, record, by_workflow.pop(each.workflow, {})).violations()
    for workflow in by_workflow:
        found.append(Violation(Kind.DOUBLED, workflow, None, "ran, and nobody submitted it"))
    for attempt in running:
        words = f"a process of attempt {attempt.attempt} still runs"
        found.append(Violation(Kind.STUCK, attempt.workflow, attempt.task, words))
    return found


def count(violations: Iterable[Violation]) -> dict[str, int]:
    """How many of each kind."""
    counted = Counter(violation.kind.value for violation in violations)
    return {kind.value: counted[kind.value] for kind in Kind}


class _Case:
    """One workflow."""

    def __init__(
        self, expected: Expected, record: Record, runs: Mapping[Attempt, Sequence[Run]]
    ) -> None:
        self._workflow = expected.workflow
        self._plan = expected.plan
        self._canceled = expected.canceled
        self._status = record.statuses.get(expected.workflow)
        self._rows = record.rows.get(expected.workflow, [])
        self._logged = record.logged
        self._runs = runs
        self._found: list[Violation] = []

    def violations(self) -> list[Violation]:
        if self._status is None:
            self._say(Kind.LOST, None, "was acknowledged, and the engine does not know it")
            return self._found
        self._check_runs()
        if self._status in {"PENDING", "RUNNING", "WAITING"}:
            # Whether somebody asked for the end is not known where the request was not answered.
            if self._plan.cancel_after is None or self._canceled:
                self._say(Kind.STUCK, None, f"is still {self._status}")
            return self._found
        if self._status != self._plan.status:
            words = f"ended {self._status} and should have ended {self._plan.status}"
            self._say(Kind.WRONG, None, words)
        for task in self._plan.tasks.values():
            self._check_task(task)
        return self._found

    def _say(self, kind: Kind, task: str | None, words: str) -> None:
        self._found.append(Violation(kind, self._workflow, task, words))

    def _check_runs(self) -> None:
        known = {(row.task, row.attempt) for row in self._rows}
        for attempt, its_runs in self._runs.items():
            if len(its_runs) > 1:
                words = f"attempt {attempt.attempt} ran {len(its_runs)} times"
                self._say(Kind.DOUBLED, attempt.task, words)
            if (attempt.task, attempt.attempt) not in known:
                words = f"attempt {attempt.attempt} ran, and the engine has no such attempt"
                self._say(Kind.DOUBLED, attempt.task, words)

    def _check_task(self, plan: TaskPlan) -> None:
        rows = sorted((r for r in self._rows if r.task == plan.name), key=lambda row: row.attempt)
        if not rows:
            self._say(Kind.LOST, plan.name, "the engine has no attempt of it")
            return
        numbers = [row.attempt for row in rows]
        if numbers != list(range(len(rows))):
            self._say(Kind.WRONG, plan.name, f"the attempts are numbered {numbers}")
        if plan.attempts is not None and len(rows) != plan.attempts:
            words = f"{len(rows)} attempts and not {plan.attempts}: {_story(rows)}"
            self._say(Kind.WRONG, plan.name, words)
        if rows[-1].status not in plan.statuses:
            words = f"ended {rows[-1].status}, exit code {rows[-1].exit_code}"
            self._say(Kind.WRONG, plan.name, words)
        for row in rows[:-1]:
            if row.status != "RESCHEDULED" and not (row.status == "COMPLETED" and len(rows) > 1):
                self._say(Kind.WRONG, plan.name, f"attempt {row.attempt} is {row.status} for good")
        for row in rows:
            self._check_attempt(plan, row)

    def _check_attempt(self, plan: TaskPlan, row: Row) -> None:
        attempt = Attempt(self._workflow, row.task, row.attempt)
        run = next(iter(self._runs.get(attempt, ())), None)
        completed = row.status == "COMPLETED" and not self._lead_ended(plan)
        own_code = row.exit_code is not None and row.exit_code in _OWN_CODES
        if run is None:
            if completed or own_code:
                words = f"attempt {row.attempt} is {row.status} ({row.exit_code}) and never ran"
                self._say(Kind.LOST, row.task, words)
            return
        if row.status == "FAILED_UPSTREAM":
            self._say(Kind.WRONG, row.task, "ran, although what it needs had failed")
        if run.ended is None:
            if completed:
                words = f"attempt {row.attempt} is COMPLETED and did not come to its end"
                self._say(Kind.LOST, row.task, words)
        elif own_code and run.code != row.exit_code:
            words = f"attempt {row.attempt} ended with {run.code}, recorded is {row.exit_code}"
            self._say(Kind.WRONG, row.task, words)
        over = run.ended if run.ended is not None else run.gone
        long_enough = run.ended is not None or (over or run.began) - run.began > _LONG_ENOUGH
        if long_enough and attempt not in self._logged:
            self._say(Kind.LOST, row.task, f"the log of attempt {row.attempt} is not archived")
        self._check_order(plan, run)

    def _lead_ended(self, plan: TaskPlan) -> bool:
        """Whether the task's lead has come to its end, which ends the others of its gang."""
        return plan.lead is not None and any(
            run.ended is not None
            for attempt, its_runs in self._runs.items()
            if attempt.task == plan.lead
            for run in its_runs
        )

    def _check_order(self, plan: TaskPlan, run: Run) -> None:
        for need in plan.needs:
            ends = {
                attempt.attempt: each.ended
                for attempt, its_runs in self._runs.items()
                if attempt.task == need
                for each in its_runs
                if each.ended is not None
            }
            if not ends or ends[max(ends)] > run.began:
                self._say(Kind.WRONG, plan.name, f"began before {need}, which it needs, had ended")


def _story(rows: Sequence[Row]) -> str:
    return ", ".join(f"{row.attempt} {row.status} ({row.exit_code})" for row in rows)
