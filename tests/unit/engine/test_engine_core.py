"""The engine's decisions, one situation at a time, in a world that behaves."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cairn_common.events import FinishReason
from cairn_common.spec.models import WorkflowSpec
from cairn_common.status import TaskStatus, WorkflowStatus
from cairn_engine.core import (
    Accepted,
    Archived,
    Decision,
    Due,
    Finished,
    Held,
    Input,
    Ledger,
    Policy,
    Scheduled,
    Started,
    Task,
    decide,
)
from cairn_engine.core.inputs import Anomaly, Place, Settle, Stop
from cairn_engine.core.outcome import judge
from cairn_engine.core.plan import complete_body, sources_of
from cairn_engine.core.transitions import GROUP, TASK, WORKFLOW
from cairn_engine.lifecycle import document
from simulation.world import Chaos, World

CALM = Chaos(duplicate=0, drop=0, abort=0, fail=0, lose_node=0)
W = "w-1"


def spec(*groups: dict[str, Any], **timeout: str) -> WorkflowSpec:
    return WorkflowSpec.model_validate({"name": "w", "groups": groups, "timeout": timeout})


def group(name: str, *tasks: dict[str, Any], **rules: Any) -> dict[str, Any]:
    return {"name": name, "tasks": tasks, **rules}


def task(name: str, *inputs: str, lead: bool = False, **more: Any) -> dict[str, Any]:
    sources = [{"task": source} for source in inputs]
    return {
        "name": name,
        "image": "x",
        "command": ["true"],
        "lead": lead,
        "inputs": sources,
        **more,
    }


class Story:
    """A workflow whose facts the test says itself."""

    def __init__(
        self, workflow: WorkflowSpec, max_retries: int = 2, sites: tuple[str, ...] = ("sim",)
    ) -> None:
        self.world = World(0, CALM, Policy(), max_retries, sites)
        self.world.submit(workflow, W)
        self.world.orders.clear()
        self.numbers = {t.name: t.index for t in self.world.ledger.tasks.values()}

    def say(self, *inputs: Input) -> list[Any]:
        effects = self.world.decide(list(inputs))
        self.world.check()
        return effects

    def key(self, name: str, attempt: int = 0) -> tuple[str, int, int]:
        return W, self.numbers[name], attempt

    def accept(self, name: str, attempt: int = 0) -> list[Any]:
        return self.say(Accepted(*self.key(name, attempt), self.world.now))

    def start(self, name: str, attempt: int = 0) -> list[Any]:
        return self.say(Started(*self.key(name, attempt), self.world.now, "n"))

    def finish(
        self,
        name: str,
        code: int | None = 0,
        attempt: int = 0,
        reason: FinishReason = FinishReason.EXITED,
    ) -> list[Any]:
        return self.say(Finished(*self.key(name, attempt), self.world.now, reason, code))

    def wait(self, seconds: float) -> list[Any]:
        self.world.now += timedelta(seconds=seconds)
        due = [g for g in self.world.ledger.groups.values() if g.due_at]
        return self.say(*(Due(W, g.index) for g in due if g.due_at and g.due_at <= self.world.now))

    def task(self, name: str, attempt: int | None = None) -> Task:
        index = self.numbers[name]
        number = self.world.ledger.current[W, index] if attempt is None else attempt
        return self.world.ledger.tasks[W, index, number]

    def group(self, name: str) -> Any:
        return next(g for g in self.world.ledger.groups.values() if g.name == name)

    @property
    def status(self) -> WorkflowStatus:
        return self.world.ledger.workflows[W].status


CHAIN = spec(
    group("a", task("a", lead=True)),
    group("b", task("b", "a", lead=True)),
    group("c", task("c", "b", lead=True)),
)
DUO = group("duo", task("lead", lead=True), task("other"))


def test_a_completed_task_wakes_its_successor() -> None:
    story = Story(CHAIN)
    assert story.task("a").status is TaskStatus.PROCESSING
    assert story.task("b").status is TaskStatus.WAITING
    story.start("a")
    assert story.status is WorkflowStatus.RUNNING
    effects = story.finish("a")
    assert [e for e in effects if isinstance(e, Place)] == [Place(W, "sim", 1, ((1, 0),), 0)]
    story.finish("b")
    story.finish("c")
    assert story.status is WorkflowStatus.COMPLETED


def test_a_failure_blocks_exactly_what_is_downstream() -> None:
    story = Story(
        spec(
            group("a", task("a", lead=True)),
            group("b", task("b", "a", lead=True)),
            group("c", task("c", "b", lead=True)),
            group("other", task("d", lead=True)),
        )
    )
    story.finish("a", code=3)
    assert story.task("a").exit_code == 3
    assert story.task("b").status is TaskStatus.FAILED_UPSTREAM
    assert story.task("c").status is TaskStatus.FAILED_UPSTREAM
    assert story.task("c").exit_code == 3000
    assert story.task("d").status is TaskStatus.PROCESSING
    story.finish("d")
    assert story.status is WorkflowStatus.FAILED
    assert "group a ended FAILED" in (story.world.ledger.workflows[W].cause or "")


def test_facts_may_skip_steps_and_come_twice_but_never_go_back() -> None:
    story = Story(CHAIN)
    story.start("a")
    assert story.accept("a") == []
    assert story.task("a").status is TaskStatus.RUNNING
    story.finish("a")
    effects = story.finish("a", code=9)
    assert story.task("a").status is TaskStatus.COMPLETED
    assert [type(e) for e in effects] == [Settle]


def test_facts_about_an_unknown_attempt_are_recorded_and_change_nothing() -> None:
    story = Story(CHAIN)
    for input_ in (
        Accepted(W, 0, 7, story.world.now),
        Accepted("nobody-1", 0, 0, story.world.now),
        Due(W, 99),
    ):
        assert [type(e) for e in story.say(input_)] == [Anomaly]
    assert story.task("a").status is TaskStatus.PROCESSING


def test_settled_only_when_the_outcome_is_stored_and_the_log_archived() -> None:
    story = Story(CHAIN)
    key = story.key("a")
    finished = Finished(*key, story.world.now, FinishReason.EXITED, 0, log_lines=5)
    assert not [e for e in story.say(finished) if isinstance(e, Settle)]
    archived = story.say(Archived(*key, story.world.now))
    assert [e for e in archived if isinstance(e, Settle)] == [Settle(W, "sim", ((0, "a", 0),))]
    key = story.key("b")
    story.say(Archived(*key, story.world.now))
    finished = Finished(*key, story.world.now, FinishReason.EXITED, 0, log_lines=5)
    assert [e for e in story.say(finished) if isinstance(e, Settle)]


def test_the_leads_end_stops_the_others_and_waits_for_them() -> None:
    story = Story(spec(DUO, group("next", task("n", "lead", lead=True))))
    story.start("lead")
    story.start("other")
    effects = story.finish("lead")
    assert not [e for e in effects if isinstance(e, Stop)], "it may end by itself"
    effects = story.wait(Policy().lead_linger)
    assert [e.attempts for e in effects if isinstance(e, Stop)] == [((1, "other", 0),)]
    assert story.task("n").status is TaskStatus.WAITING, "the other's outputs are not safe yet"
    story.finish("other", code=143, reason=FinishReason.STOPPED)
    assert story.task("other").status is TaskStatus.COMPLETED
    assert story.task("other").message == "Lead task finished"
    assert story.task("n").status is TaskStatus.PROCESSING


def test_a_cluster_that_never_confirms_a_stop_is_not_waited_for_for_ever() -> None:
    story = Story(spec(DUO))
    story.start("lead")
    story.start("other")
    story.finish("lead")
    story.wait(Policy().lead_linger)
    story.wait(Policy().stop_grace + Policy().drain_patience + 1)
    assert story.status is WorkflowStatus.COMPLETED
    late = story.start("other")
    assert [type(e) for e in late] == [Stop], "a straggler is told again"


@pytest.mark.parametrize(
    ("ignore", "end", "stopped"),
    [(True, WorkflowStatus.COMPLETED, False), (False, WorkflowStatus.FAILED, True)],
)
def test_a_failed_nonlead_counts_only_in_a_strict_group(
    ignore: bool, end: WorkflowStatus, stopped: bool
) -> None:
    story = Story(spec({**DUO, "ignoreNonleadStatus": ignore}))
    story.start("lead")
    effects = story.finish("other", code=1)
    assert bool([e for e in effects if isinstance(e, Stop)]) is stopped
    if stopped:
        story.finish("lead", code=143, reason=FinishReason.STOPPED)
    else:
        story.finish("lead")
    assert story.status is end


def test_a_rescheduled_task_is_tried_again_after_a_back_off_and_not_for_ever() -> None:
    story = Story(spec(group("g", task("t", lead=True, exitActions={"RESCHEDULE": "11-20"}))))
    story.start("t")
    for attempt in (0, 1):
        story.finish("t", code=11, attempt=attempt)
        assert story.task("t", attempt).status is TaskStatus.RESCHEDULED
        assert story.task("t").attempt == attempt + 1
        assert story.status is WorkflowStatus.WAITING
        assert not story.wait(0.1), "back-off"
        effects = story.wait(10)
        assert [e.attempts for e in effects if isinstance(e, Place)] == [((0, attempt + 1),)]
        assert story.status is WorkflowStatus.RUNNING
    story.finish("t", code=11, attempt=2)
    assert story.status is WorkflowStatus.FAILED
    late = story.finish("t", code=0, attempt=0)
    assert [type(e) for e in late] == [Settle], "a fact about an old attempt changes nothing"
    assert story.status is WorkflowStatus.FAILED


def test_a_strict_group_restarts_together() -> None:
    rules = {"exitActions": {"RESCHEDULE": "1"}}
    story = Story(
        spec(
            group(
                "g",
                task("lead", lead=True, **rules),
                task("peer", **rules),
                task("done", **rules),
                ignoreNonleadStatus=False,
            )
        )
    )
    for name in ("lead", "peer", "done"):
        story.start(name)
    story.finish("done")
    effects = story.finish("lead", code=1)
    assert [e.attempts for e in effects if isinstance(e, Stop)] == [((1, "peer", 0),)]
    story.wait(3)
    assert story.task("lead").status is TaskStatus.WAITING, "it waits for its peers"
    story.finish("peer", code=143, reason=FinishReason.STOPPED)
    effects = story.wait(10)
    assert [e.attempts for e in effects if isinstance(e, Place)] == [((0, 1), (1, 1), (2, 1))]
    for name in ("peer", "done", "lead"):
        story.finish(name, attempt=1)
    assert story.status is WorkflowStatus.COMPLETED


def test_lost_nodes_are_tried_again_and_memory_hogs_are_not() -> None:
    story = Story(CHAIN)
    story.finish("a", code=None, reason=FinishReason.NODE_LOST)
    assert story.task("a").attempt == 1
    story.wait(10)
    story.finish("a", code=137, attempt=1, reason=FinishReason.OUT_OF_MEMORY)
    assert story.status is WorkflowStatus.FAILED_EVICTED


@pytest.mark.parametrize(
    ("timeout", "facts", "status"),
    [
        ({"exec_timeout": "20s"}, (Accepted, Started), TaskStatus.FAILED_EXEC_TIMEOUT),
        ({"queue_timeout": "20s"}, (Accepted,), TaskStatus.FAILED_QUEUE_TIMEOUT),
    ],
)
def test_timeouts_have_their_own_clocks(
    timeout: dict[str, str], facts: tuple[type[Any], ...], status: TaskStatus
) -> None:
    story = Story(spec(group("g", task("t", lead=True)), **timeout))
    for fact in facts:
        story.say(fact(*story.key("t"), story.world.now))
    story.wait(19)
    assert not story.status.final
    story.wait(2)
    story.finish("t", code=143, reason=FinishReason.STOPPED)
    assert story.task("t").status is status
    assert story.status.value == status.value


def test_a_node_that_never_starts_the_command_is_given_up() -> None:
    story = Story(CHAIN)
    story.say(Scheduled(*story.key("a"), story.world.now, "n"))
    story.wait(Policy().start_timeout + 1)
    story.finish("a", code=143, reason=FinishReason.STOPPED)
    assert story.status is WorkflowStatus.FAILED_START_TIMEOUT


def test_an_unanswered_offer_is_repeated_ever_more_rarely() -> None:
    story = Story(CHAIN)
    first, second = Policy().offer_interval, Policy().offer_interval * 2
    assert [type(e) for e in story.wait(first)] == [Place]
    assert story.wait(first) == []
    assert [type(e) for e in story.wait(second - first)] == [Place]
    story.accept("a")
    assert story.wait(3600) == []


@pytest.mark.parametrize("force", [False, True])
def test_cancel_stops_what_runs_and_forgets_what_waits(force: bool) -> None:
    story = Story(CHAIN)
    story.start("a")
    story.world.cancel(W, force=force)
    effects = story.say(story.world.queue.pop()[2])
    stops = [e for e in effects if isinstance(e, Stop)]
    assert [(e.attempts, e.grace_seconds) for e in stops] == [
        (((0, "a", 0),), 0.0 if force else Policy().stop_grace)
    ]
    assert story.task("c").status is TaskStatus.FAILED_CANCELED
    if not force:
        assert not story.status.final, "it runs until the cluster says otherwise"
        story.finish("a", code=143, reason=FinishReason.STOPPED)
    assert story.status is WorkflowStatus.FAILED_CANCELED
    assert story.task("a").status is TaskStatus.FAILED_CANCELED


def test_exit_actions_judge_before_the_default() -> None:
    actions = [("COMPLETE", 0, 10), ("RESCHEDULE", 21, 255), ("FAIL", 11, 20)]
    exited = FinishReason.EXITED
    assert judge(exited, 7, actions).status is TaskStatus.COMPLETED
    assert judge(exited, 12, actions).status is TaskStatus.FAILED
    assert judge(exited, 30, actions).retry
    assert not judge(exited, 30, None).retry
    assert judge(FinishReason.PREEMPTED, None, [("FAIL", 3006, 3006)]).retry is False


@given(st.text(min_size=1), st.integers(0, 40))
def test_back_off_is_bounded_and_repeatable(seed: str, attempt: int) -> None:
    policy = Policy()
    delay = policy.backoff(seed, attempt).total_seconds()
    ceiling = min(policy.backoff_max, policy.backoff_base * 2**attempt)
    assert ceiling / 2 <= delay <= ceiling
    assert policy.backoff(seed, attempt) == policy.backoff(seed, attempt)


@pytest.mark.parametrize("table", [TASK, GROUP, WORKFLOW])
def test_transitions_are_total_and_final_means_final(table: dict[Any, frozenset[Any]]) -> None:
    for status, following in table.items():
        assert status not in following
        assert bool(following) is not status.final
        assert following <= table.keys()


def test_a_stored_placement_is_completed_with_attempts_and_locations() -> None:
    world = World(0, CALM)
    plan = world.submit(CHAIN, W)
    body = plan.bodies[1]
    assert sources_of(body) == {0}
    placed = complete_body(body, {1: 2}, {(W, 0): (4, None)})
    (only,) = placed["tasks"]
    assert only["attempt"] == 2
    assert only["inputs"][0]["location"].endswith("/a/4")
    assert only["location"].endswith("/b/2")
    assert complete_body(body, {}, {})["tasks"] == []


@st.composite
def dags(draw: st.DrawFn) -> WorkflowSpec:
    """Any graph of up to twelve groups with one or two tasks."""
    groups: list[dict[str, Any]] = []
    names: list[str] = []
    for number in range(draw(st.integers(1, 12))):
        sources = draw(st.lists(st.sampled_from(names), unique=True, max_size=4)) if names else []
        members = [
            task(f"t{number}-{m}", *sources, lead=m == 0) for m in range(draw(st.integers(1, 2)))
        ]
        strict = draw(st.booleans())
        groups.append(group(f"g{number}", *members, ignoreNonleadStatus=not strict))
        names += [member["name"] for member in members]
    return spec(*groups, exec_timeout="60s")


@settings(deadline=None, max_examples=150)
@given(dags(), st.integers(0, 2**32), st.sampled_from([CALM, Chaos()]))
def test_any_graph_ends_and_nothing_starts_before_its_inputs(
    workflow: WorkflowSpec, seed: int, chaos: Chaos
) -> None:
    world = World(seed, chaos)
    world.submit(workflow, W)
    world.run()
    assert world.ledger.workflows[W].status.final
    assert all(t.status.final for t in world.ledger.tasks.values())
    assert len(world.started) == len(set(world.started))


def test_deciding_twice_from_the_same_state_gives_the_same_answer() -> None:
    answers = []
    for _ in range(2):
        story = Story(CHAIN)
        decision = Decision()
        ledger: Ledger = story.world.ledger
        decide(
            ledger,
            Started(*story.key("a"), story.world.now),
            story.world.now,
            Policy(),
            decision,
            story.world.clusters,
        )
        answers.append((decision.effects, decision.follow_ups, ledger.tasks))
    assert answers[0] == answers[1]


def test_a_task_says_what_it_waits_for_until_it_has_a_node() -> None:
    story = Story(CHAIN)
    story.say(Accepted(*story.key("a", 0), story.world.now, "queue robotics is at its limit"))
    assert story.task("a").message == "queue robotics is at its limit"
    story.say(Accepted(*story.key("a", 0), story.world.now, "no node with 8 GPUs is free"))
    assert story.task("a").message == "no node with 8 GPUs is free"
    story.say(Scheduled(*story.key("a", 0), story.world.now, "n"))
    assert story.task("a").message is None
    story.say(Scheduled(*story.key("a", 0), story.world.now, "n", "its inputs are fetched"))
    assert story.task("a").message == "its inputs are fetched"
    story.say(Accepted(*story.key("a", 0), story.world.now, "this comes late"))
    assert story.task("a").message == "its inputs are fetched"
    story.say(Started(*story.key("a", 0), story.world.now))
    assert story.task("a").message is None


def test_a_task_that_its_cluster_cannot_take_says_why_until_it_does() -> None:
    story = Story(CHAIN)
    story.say(Held(*story.key("a", 0), story.world.now, "waiting: exceeded quota: q"))
    assert story.task("a").status is TaskStatus.PROCESSING
    assert story.task("a").message == "waiting: exceeded quota: q"
    story.say(Accepted(*story.key("a", 0), story.world.now))
    assert story.task("a").message is None
    story.say(Held(*story.key("a", 0), story.world.now, "this comes late"))
    assert story.task("a").message is None


def test_the_committed_page_of_the_life_cycle_is_the_generated_one() -> None:
    page = Path(__file__).parents[3] / "docs" / "lifecycle.md"
    assert page.read_text() == document(), "run make lifecycle"
