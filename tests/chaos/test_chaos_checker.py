"""The checker finds each kind of violation in made-up histories, and none where there is none."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from .checker import Expected, Kind, Record, Row, Violation, check, count
from .journal import Attempt, Run, parse
from .shapes import Plan, Shapes, TaskPlan
from .verdict import Injection, Outcome

W = "chaos-made-up-1"


def plan(*tasks: TaskPlan, status: str = "COMPLETED", cancel_after: float | None = None) -> Plan:
    return Plan("made-up", "", status, {task.name: task for task in tasks}, 1.0, cancel_after)


FIRST = TaskPlan("first")
SECOND = TaskPlan("second", ("first",))
CHAIN = plan(FIRST, SECOND)


def row(task: str, attempt: int = 0, status: str = "COMPLETED", code: int | None = 0) -> Row:
    return Row(task, attempt, status, code, started=True)


class History:
    """A workflow of two tasks that went well, to be spoilt."""

    def __init__(self) -> None:
        self.plan = CHAIN
        self.canceled = False
        self.record = Record({W: "COMPLETED"}, {W: [row("first"), row("second")]})
        self.runs = {
            Attempt(W, "first", 0): [Run("a", 1.0, 2.0, 0)],
            Attempt(W, "second", 0): [Run("b", 3.0, 4.0, 0)],
        }
        self.record.logged = set(self.runs)
        self.running: list[Attempt] = []

    def violations(self) -> list[Violation]:
        expected = [Expected(W, self.plan, self.canceled)]
        return check(expected, self.record, self.runs, self.running)

    def only(self, kind: Kind, words: str, task: str | None = None) -> None:
        """There is this one violation."""
        (found,) = self.violations()
        assert (found.kind, found.workflow, found.task) == (kind, W, task)
        assert words in found.words


@pytest.fixture
def history() -> History:
    return History()


def test_nothing_is_wrong_where_nothing_is(history: History) -> None:
    assert history.violations() == []


def test_a_workflow_that_is_not_there_is_lost(history: History) -> None:
    history.record = Record()
    history.runs = {}
    history.only(Kind.LOST, "the engine does not know it")


def test_a_task_that_never_ran_is_lost(history: History) -> None:
    del history.runs[Attempt(W, "second", 0)]
    history.only(Kind.LOST, "COMPLETED (0) and never ran", "second")


def test_a_task_that_did_not_come_to_its_end_is_lost(history: History) -> None:
    history.runs[Attempt(W, "second", 0)] = [Run("b", 3.0, gone=4.0)]
    history.only(Kind.LOST, "did not come to its end", "second")


def test_a_task_without_a_row_is_lost(history: History) -> None:
    history.record.rows[W].pop()
    history.runs.pop(Attempt(W, "second", 0))
    history.only(Kind.LOST, "no attempt of it", "second")


def test_a_log_that_is_gone_is_lost(history: History) -> None:
    history.record.logged.remove(Attempt(W, "first", 0))
    history.only(Kind.LOST, "log of attempt 0 is not archived", "first")


def test_a_failure_that_nobody_ran_is_lost(history: History) -> None:
    history.plan = plan(replace(FIRST, statuses=frozenset({"FAILED"})), status="FAILED")
    history.record = Record({W: "FAILED"}, {W: [row("first", status="FAILED", code=7)]})
    history.runs = {}
    history.only(Kind.LOST, "FAILED (7) and never ran", "first")


def test_two_processes_for_one_attempt_are_doubled(history: History) -> None:
    history.runs[Attempt(W, "second", 0)].append(Run("c", 5.0, 6.0, 0))
    history.only(Kind.DOUBLED, "attempt 0 ran 2 times", "second")


def test_an_attempt_that_nobody_recorded_is_doubled(history: History) -> None:
    history.runs[Attempt(W, "second", 1)] = [Run("c", 5.0, 6.0, 0)]
    history.only(Kind.DOUBLED, "the engine has no such attempt", "second")


def test_what_nobody_submitted_is_doubled(history: History) -> None:
    history.runs[Attempt("other-1", "x", 0)] = [Run("c", 5.0, 6.0, 0)]
    (found,) = history.violations()
    assert (found.kind, found.workflow) == (Kind.DOUBLED, "other-1")


@pytest.mark.parametrize("status", ["PENDING", "WAITING", "RUNNING"])
def test_a_workflow_that_has_not_ended_is_stuck(history: History, status: str) -> None:
    history.record.statuses[W] = status
    history.only(Kind.STUCK, f"is still {status}")


def test_a_process_that_still_runs_is_stuck(history: History) -> None:
    history.running.append(Attempt(W, "second", 0))
    history.only(Kind.STUCK, "still runs", "second")


def test_a_cancellation_that_nobody_acknowledged_need_not_have_come(history: History) -> None:
    history.plan = plan(FIRST, status="FAILED_CANCELED", cancel_after=1.0)
    history.record = Record({W: "RUNNING"}, {W: [row("first", status="RUNNING", code=None)]})
    history.runs = {Attempt(W, "first", 0): [Run("a", 1.0)]}
    assert history.violations() == []
    history.canceled = True
    history.only(Kind.STUCK, "is still RUNNING")


def test_another_status_is_wrong(history: History) -> None:
    history.record.statuses[W] = "FAILED_BACKEND_ERROR"
    history.only(Kind.WRONG, "should have ended COMPLETED")
    history = History()
    history.record.rows[W][1] = row("second", status="FAILED_BACKEND_ERROR", code=3001)
    history.only(Kind.WRONG, "ended FAILED_BACKEND_ERROR, exit code 3001", "second")


def test_another_exit_code_is_wrong(history: History) -> None:
    history.runs[Attempt(W, "second", 0)] = [Run("b", 3.0, 4.0, 3)]
    history.only(Kind.WRONG, "ended with 3, recorded is 0", "second")


def test_a_retry_that_nobody_asked_for_is_wrong(history: History) -> None:
    history.record.rows[W] = [row("first"), row("second", 0, "RESCHEDULED", 3001), row("second", 1)]
    again = Attempt(W, "second", 1)
    history.runs[again] = [Run("c", 5.0, 6.0, 0)]
    history.runs[Attempt(W, "second", 0)] = [Run("b", 3.0, gone=4.0)]
    history.record.logged.add(again)
    history.only(Kind.WRONG, "2 attempts and not 1: 0 RESCHEDULED (3001), 1 COMPLETED", "second")


def test_a_gap_in_the_numbers_of_attempts_is_wrong(history: History) -> None:
    history.plan = plan(FIRST, replace(SECOND, attempts=None))
    history.record.rows[W][1] = row("second", 1)
    attempt = Attempt(W, "second", 1)
    history.runs[attempt] = history.runs.pop(Attempt(W, "second", 0))
    history.record.logged.add(attempt)
    history.only(Kind.WRONG, "numbered [1]", "second")


def test_a_task_that_began_too_early_is_wrong(history: History) -> None:
    history.runs[Attempt(W, "second", 0)] = [Run("b", 1.5, 4.0, 0)]
    history.only(Kind.WRONG, "began before first", "second")


def test_a_task_that_ran_although_it_was_blocked_is_wrong(history: History) -> None:
    upstream = frozenset({"FAILED_UPSTREAM"})
    history.plan = plan(FIRST, replace(SECOND, statuses=upstream))
    history.record.rows[W][1] = row("second", status="FAILED_UPSTREAM", code=3000)
    history.only(Kind.WRONG, "ran, although what it needs had failed", "second")


def test_a_lead_may_end_the_others_but_only_its_own_end_excuses_them(history: History) -> None:
    history.plan = plan(FIRST, TaskPlan("second", lead="first"))
    history.runs[Attempt(W, "second", 0)] = [Run("b", 1.0, gone=2.5)]
    assert history.violations() == []
    history.runs[Attempt(W, "first", 0)] = [Run("a", 1.0, gone=2.0)]
    kinds = count(history.violations())
    assert kinds == {"lost": 2, "doubled": 0, "stuck": 0, "wrong": 0}


def test_the_journal_is_read_as_it_was_written() -> None:
    runs = parse(
        [
            f"S 1.000 {W} first 0 a",
            f"S 1.500 {W} second 0 b",
            f"E 2.000 {W} first 0 a 0",
            f"S 2.500 {W} first 0 c",
            f"X 3.000 {W} second 0 b",
        ]
    )
    assert runs == {
        Attempt(W, "first", 0): [Run("a", 1.0, 2.0, 0), Run("c", 2.5)],
        Attempt(W, "second", 0): [Run("b", 1.5, gone=3.0)],
    }


def test_the_same_seed_draws_the_same_workflows() -> None:
    def draws(seed: int) -> list[Plan]:
        shapes = Shapes(random.Random(seed), 1234, 2.0)
        return [shapes.draw() for _ in range(24)]

    assert draws(1) == draws(1)
    assert draws(1) != draws(2)
    assert len({each.shape for each in draws(1)[:12]}) == 12, "each shape as often as every other"


def test_a_run_is_good_only_if_all_is_well() -> None:
    outcome = Outcome(1, 1.0, 10, injections=[Injection("kill -9 api", 0.0, 1.5)], drained=3.0)
    assert outcome.good
    assert '"good": true' in outcome.machine()
    assert "kill -9 api      1             1.5 s  1.5 s" in outcome.tables()
    outcome.injections.append(Injection("kill -9 api", 0.0, None))
    assert not outcome.good
    assert "never (1)" in outcome.tables()
    outcome.injections.pop()
    outcome.left = {"outbox": 1}
    assert not outcome.good
    outcome.left = {}
    outcome.drained = None
    assert not outcome.good
    outcome.drained = 3.0
    outcome.violations = [Violation(Kind.LOST, W, None, "gone")]
    assert not outcome.good
