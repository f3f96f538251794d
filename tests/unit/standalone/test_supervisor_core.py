"""The supervisor's decisions, on a clock of their own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cairn_standalone.core import (
    BecameReady,
    Begin,
    Effect,
    Event,
    Exited,
    FellSick,
    GaveUp,
    Kill,
    Launch,
    Phase,
    Policy,
    Process,
    Restarting,
    Rule,
    StopRequested,
    System,
    Terminate,
    Tick,
    decide,
)

RULES = (
    Rule("nats"),
    Rule("postgres", stops_after=("nats",)),
    Rule("api", needs=("nats", "postgres")),
    Rule("engine", needs=("nats", "postgres")),
)


class Play:
    """A system that is played event by event."""

    def __init__(self, policy: Policy | None = None) -> None:
        self.system = System.of(RULES, policy)
        self.now = 0.0

    def tell(self, event: Event, at: float | None = None) -> tuple[Effect, ...]:
        self.now = self.now if at is None else at
        self.system, effects = decide(self.system, event, self.now)
        return effects

    def ready(self, *names: str) -> tuple[Effect, ...]:
        effects: tuple[Effect, ...] = ()
        for name in names:
            effects += self.tell(BecameReady(name, self[name].start))
        return effects

    def dies(self, name: str, at: float | None = None) -> tuple[Effect, ...]:
        return self.tell(Exited(name, self[name].start, "was ended by SIGKILL"), at)

    def until_due(self) -> tuple[Effect, ...]:
        assert self.system.next_due is not None
        return self.tell(Tick(), self.system.next_due)

    def __getitem__(self, name: str) -> Process:
        return self.system.processes[name]


def all_ready() -> Play:
    play = Play()
    play.tell(Begin())
    play.ready("nats", "postgres", "api", "engine")
    assert play.system.all_ready
    return play


def test_parts_start_when_what_they_need_is_ready() -> None:
    play = Play()
    assert play.tell(Begin()) == (Launch("nats", 1), Launch("postgres", 1))
    assert play.ready("nats") == ()
    assert play.ready("postgres") == (Launch("api", 1), Launch("engine", 1))
    assert not play.system.all_ready


def test_a_part_that_dies_is_restarted_alone() -> None:
    play = all_ready()
    assert play.dies("engine") == (Restarting("engine", "was ended by SIGKILL", 0.1),)
    assert play["engine"].phase is Phase.BACKING_OFF
    assert play.until_due() == (Launch("engine", 2),)
    assert play.now == pytest.approx(0.1)
    play.ready("engine")
    assert play.system.all_ready
    assert [play[name].restarts for name in ("nats", "postgres", "api", "engine")] == [0, 0, 0, 1]


def test_delays_double_up_to_the_longest() -> None:
    delays = [Policy().delay(failures) for failures in range(1, 11)]
    assert delays == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10, 10])
    assert Policy().delay(10_000) == 10


def test_a_part_that_was_ready_gives_up_after_ten_failures_in_a_row() -> None:
    play = all_ready()
    for _ in range(9):
        assert isinstance(play.dies("engine")[0], Restarting)
        play.until_due()
        play.ready("engine")
    assert play.dies("engine") == (GaveUp("engine", "was ended by SIGKILL (10 times in a row)"),)
    assert play["engine"].phase is Phase.FAILED
    assert [process.rule.name for process in play.system.failed] == ["engine"]
    assert play.system.next_due is None


def test_a_stable_time_forgives() -> None:
    play = all_ready()
    play.dies("engine")
    play.until_due()
    play.ready("engine")
    assert play["engine"].failures == 1
    play.dies("engine", at=play.now + 31)
    assert play["engine"].failures == 1


def test_a_first_start_gives_up_early() -> None:
    play = Play()
    play.tell(Begin())
    for _ in range(2):
        assert isinstance(play.dies("nats")[0], Restarting)
        play.until_due()
    assert play.dies("nats") == (GaveUp("nats", "was ended by SIGKILL (3 times in a row)"),)


def test_what_is_hopeless_is_not_tried_again() -> None:
    play = Play()
    play.tell(Begin())
    effects = play.tell(Exited("postgres", 1, "wrong version", hopeless=True))
    assert effects == (GaveUp("postgres", "wrong version"),)


def test_a_failure_is_not_counted_while_a_need_is_down() -> None:
    play = all_ready()
    play.dies("postgres")
    play.dies("engine")
    assert play["engine"].failures == 0
    assert play.tell(Tick(), play.now + 0.1) == (Launch("postgres", 2),)
    assert play["engine"].phase is Phase.WAITING
    assert play.ready("postgres") == (Launch("engine", 2),)
    assert play["api"].phase is Phase.READY


def test_a_start_that_takes_too_long_is_ended_then_killed() -> None:
    play = all_ready()
    play.dies("api")
    play.until_due()
    assert play.until_due() == (Terminate("api"),)
    assert play.until_due() == (Kill("api"),)
    assert play.dies("api") == (Restarting("api", "not ready within 60 s", 0.2),)


def test_a_first_start_that_takes_too_long_gives_up() -> None:
    play = Play()
    play.tell(Begin())
    play.ready("postgres")
    assert play.until_due() == (Terminate("nats"),)
    assert play.dies("nats") == (GaveUp("nats", "not ready within 60 s"),)


def test_a_stop_goes_against_the_needs() -> None:
    play = all_ready()
    assert play.tell(StopRequested()) == (Terminate("api"), Terminate("engine"))
    assert play.dies("api") == ()
    assert play.dies("engine") == (Terminate("nats"),)
    assert play.dies("nats") == (Terminate("postgres"),)
    assert play["postgres"].phase is Phase.STOPPING
    assert play.dies("postgres") == ()
    assert play.system.all_stopped
    assert play.system.next_due is None


def test_what_does_not_stop_is_killed_when_its_grace_is_over() -> None:
    play = all_ready()
    play.tell(StopRequested(), at=100)
    play.dies("api")
    assert play.system.next_due == 110
    assert play.until_due() == (Kill("engine"),)


def test_a_second_request_to_stop_ends_the_grace() -> None:
    play = all_ready()
    play.tell(StopRequested())
    assert play.tell(StopRequested()) == (Kill("api"), Kill("engine"))


def test_a_stop_while_backing_off_starts_nothing() -> None:
    play = all_ready()
    play.dies("engine")
    play.tell(StopRequested())
    assert play["engine"].phase is Phase.STOPPED
    assert play.tell(Tick(), play.now + 1) == ()


def test_news_of_an_earlier_start_changes_nothing() -> None:
    play = all_ready()
    play.dies("engine")
    play.until_due()
    before = play.system
    assert play.tell(Exited("engine", 1, "late")) == ()
    assert play.tell(BecameReady("engine", 1)) == ()
    assert play.system == before


def test_a_table_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="needs nats"):
        System.of([Rule("api", needs=("nats",)), Rule("nats")])
    with pytest.raises(ValueError, match="stops after"):
        System.of([Rule("api", stops_after=("dataset",))])


NAMES = st.sampled_from([rule.name for rule in RULES])
STARTS = st.integers(0, 4)
EVENTS = st.one_of(
    st.builds(BecameReady, NAMES, STARTS),
    st.builds(Exited, NAMES, STARTS, st.just("died"), st.booleans()),
    st.just(Tick()),
    st.just(StopRequested()),
)


@given(st.lists(st.tuples(EVENTS, st.floats(0, 40)), max_size=60))
def test_whatever_happens_a_stop_ends_with_nothing_alive(
    story: list[tuple[Event, float]],
) -> None:
    play = Play()
    effects = list(play.tell(Begin()))
    for event, pause in story:
        effects += play.tell(event, play.now + pause)
        for process in play.system.processes.values():
            if process.phase is Phase.READY and not play.system.stopping:
                assert process.due is None
    launches = [effect for effect in effects if isinstance(effect, Launch)]
    assert len(launches) == len(set(launches)), "a start has one number"
    play.tell(StopRequested())
    for _ in range(20):
        for effect in play.until_due() if play.system.next_due is not None else ():
            if isinstance(effect, Kill):
                play.dies(effect.name)
    assert play.system.all_stopped


def test_a_part_that_falls_sick_is_stopped_and_started_again() -> None:
    play = Play()
    play.tell(Begin())
    play.ready("nats", "postgres", "api", "engine")
    assert play.tell(FellSick("nats", 0, "an earlier start's")) == ()
    assert play.tell(FellSick("nats", 1, "its disk was full")) == (Terminate("nats"),)
    assert play["nats"].phase is Phase.STOPPING
    assert play.until_due() == (Kill("nats"),), "it may be too sick to end by itself"
    (restarting,) = play.dies("nats")
    assert restarting == Restarting("nats", "its disk was full", 0.1)
    assert play.until_due() == (Launch("nats", 2),)
    assert play.ready("nats") == ()
    assert play.system.all_ready
