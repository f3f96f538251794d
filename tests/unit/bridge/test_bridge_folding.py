"""Facts of one moment are said once, and nothing that was said is lost."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from cairn_bridge.cluster import AttemptKey, Fact, Outcome, Phase
from cairn_bridge.core.folding import fold
from cairn_common.events import FinishReason

START = datetime(2026, 1, 1, tzinfo=UTC)
A, B = AttemptKey("w-1", 0, 0, "a"), AttemptKey("w-1", 1, 0, "b")


def fact(phase: Phase, *keys: AttemptKey, second: int = 0) -> Fact:
    outcome = Outcome(FinishReason.EXITED, 0) if phase is Phase.FINISHED else None
    node = None if phase is Phase.ACCEPTED else "n"
    return Fact(phase, keys, START + timedelta(seconds=second), node, outcome)


def test_an_end_takes_over_all_that_came_before() -> None:
    (only,) = fold(
        [
            fact(Phase.ACCEPTED, A, second=1),
            fact(Phase.SCHEDULED, A, second=2),
            fact(Phase.STARTED, A, second=3),
            fact(Phase.FINISHED, A, second=4),
        ]
    )
    assert only.phase is Phase.FINISHED
    assert only.accepted_at == START + timedelta(seconds=1)
    assert only.scheduled_at == START + timedelta(seconds=2)
    assert only.outcome is not None
    assert only.outcome.started_at == START + timedelta(seconds=3)
    assert only.node == "n"


def test_the_others_of_a_gang_keep_their_facts() -> None:
    folded = fold([fact(Phase.ACCEPTED, A, B), fact(Phase.STARTED, A, B), fact(Phase.FINISHED, A)])
    assert [(each.phase, each.keys) for each in folded] == [
        (Phase.STARTED, (B,)),
        (Phase.FINISHED, (A,)),
    ]
    assert folded[0].accepted_at == START


def test_a_start_of_one_leaves_what_is_said_of_several() -> None:
    facts = [fact(Phase.ACCEPTED, A, B), fact(Phase.STARTED, A)]
    assert fold(facts) == facts


@given(
    st.lists(
        st.tuples(st.sampled_from(Phase), st.sampled_from([(A,), (B,), (A, B)])).map(
            lambda made: (made[0], made[1][:1] if made[0] is Phase.FINISHED else made[1])
        ),
        max_size=12,
    )
)
def test_how_far_each_attempt_has_come_is_never_changed(said: list[tuple[Phase, tuple]]) -> None:  # type: ignore[type-arg]
    facts = [fact(phase, *keys, second=n) for n, (phase, keys) in enumerate(said)]
    folded = fold(facts)
    assert len(folded) <= len(facts)
    for key in (A, B):
        before = [each for each in facts if key in each.keys]
        after = [each for each in folded if key in each.keys]
        assert [each.phase for each in after if each.phase is Phase.FINISHED] == [
            each.phase for each in before if each.phase is Phase.FINISHED
        ]
        if before:
            assert after
            assert after[-1].phase is before[-1].phase
