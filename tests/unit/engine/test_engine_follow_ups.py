"""What is put off is restored as it was, in its order."""

from __future__ import annotations

import json
from itertools import chain

from hypothesis import given
from hypothesis import strategies as st

from cairn_common.status import TaskStatus
from cairn_engine.core import Block, CancelPage, EndGroup, Offer, RestartGroup, Wake
from cairn_engine.core.inputs import FollowUp
from cairn_engine.handlers.follow_ups import keep, restore

_WORKFLOW = st.sampled_from(["w-1", "w-2"])
_GROUP = st.integers(0, 3)
_FOLLOW_UP: st.SearchStrategy[FollowUp] = st.one_of(
    st.builds(Offer, _WORKFLOW, _GROUP),
    st.builds(Wake, _WORKFLOW, _GROUP),
    st.builds(Block, _WORKFLOW, _GROUP, st.sampled_from(["a", "b"])),
    st.builds(EndGroup, _WORKFLOW, _GROUP, st.sampled_from([*TaskStatus]), st.just("x")),
    st.builds(RestartGroup, _WORKFLOW, _GROUP, st.just("y")),
    st.builds(CancelPage, _WORKFLOW, st.integers(0, 1000)),
)


@given(st.lists(_FOLLOW_UP, max_size=40))
def test_what_is_put_off_comes_back_as_it_was(follow_ups: list[FollowUp]) -> None:
    rows = list(keep(follow_ups))
    stored = [json.loads(json.dumps(row)) for _, row in rows]
    assert list(chain.from_iterable(map(restore, stored))) == follow_ups


def test_a_hundred_thousand_successors_take_two_thousand_rows() -> None:
    rows = list(keep(Wake("w-1", index) for index in range(100_000)))
    assert len(rows) == 2_000
    assert {workflow for workflow, _ in rows} == {"w-1"}
