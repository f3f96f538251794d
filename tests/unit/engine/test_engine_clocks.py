"""Clocks ring in order, each once, whatever they were set to before."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from cairn_engine.core.clocks import Clocks

START = datetime(2026, 1, 1, tzinfo=UTC)


def at(second: int) -> datetime:
    return START + timedelta(seconds=second)


def test_what_is_due_rings_once_and_in_order() -> None:
    clocks = Clocks()
    clocks.set(("w-1", 1), at(5))
    clocks.set(("w-1", 0), at(3))
    clocks.set(("w-2", 0), at(9))
    assert clocks.next() == at(3)
    assert clocks.ring(at(6), 10) == [("w-1", 0), ("w-1", 1)]
    assert clocks.ring(at(6), 10) == []
    assert clocks.next() == at(9)


def test_a_moved_or_cleared_clock_does_not_ring_at_its_old_time() -> None:
    clocks = Clocks()
    clocks.set(("w-1", 0), at(1))
    clocks.set(("w-1", 0), at(8))
    clocks.set(("w-2", 0), at(1))
    clocks.set(("w-2", 0), None)
    assert clocks.ring(at(5), 10) == []
    assert clocks.ring(at(8), 10) == [("w-1", 0)]


@given(st.lists(st.tuples(st.integers(0, 5), st.none() | st.integers(0, 20)), max_size=400))
def test_clocks_are_a_table_of_the_last_settings(settings: list[tuple[int, int | None]]) -> None:
    clocks = Clocks()
    table: dict[tuple[str, int], datetime] = {}
    for index, second in settings:
        key = ("w", index)
        clocks.set(key, None if second is None else at(second))
        if second is None:
            table.pop(key, None)
        else:
            table[key] = at(second)
    assert len(clocks) == len(table)
    assert clocks.next() == min(table.values(), default=None)
    assert len(clocks._heap) <= 64 + 2 * len(table) + 1, "old entries pile up"
    rung = clocks.ring(at(10), 100)
    assert rung == sorted(rung, key=lambda key: table[key]) or len(rung) > 1
    assert set(rung) == {key for key, due in table.items() if due <= at(10)}
