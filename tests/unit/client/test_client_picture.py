"""The live picture: what it shows of a workflow, and that it stays small."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cairn_client import Snapshot, SnapshotGroup
from cairn_client.cli.picture import MOST_ROWS, Picture, in_order, rows_of
from cairn_client.cli.values import duration, moment
from unit.client.fake_cairn import group, snapshot, task

NOW = datetime(2026, 8, 1, 12, 0, 30, tzinfo=UTC)


def groups(*values: dict[str, Any]) -> tuple[SnapshotGroup, ...]:
    return Snapshot.parse(snapshot("RUNNING", *values)).groups


@given(st.data())
def test_every_group_stands_after_what_it_needs(data: st.DataObject) -> None:
    size = data.draw(st.integers(0, 8))
    names = data.draw(st.permutations([f"g{i}" for i in range(size)]))
    needs = {
        name: data.draw(st.lists(st.sampled_from(names[:i]), unique=True) if i else st.just([]))
        for i, name in enumerate(names)
    }
    given_groups = groups(*(group(name, upstream=needs[name]) for name in sorted(names)))
    ordered = [g.name for g in in_order(given_groups)]
    assert sorted(ordered) == sorted(names)
    for name in names:
        assert all(ordered.index(other) < ordered.index(name) for other in needs[name])


def test_a_cycle_is_shown_as_it_is() -> None:
    cycle = groups(group("a", upstream=["b"]), group("b", upstream=["a"]))
    assert in_order(cycle) == cycle


def test_rows_say_what_one_wants_to_know() -> None:
    shown = groups(
        group("a-group", task("a", "COMPLETED", start_time="2026-08-01T12:00:00")),
        group(
            "train",
            task("b", "RUNNING", start_time="2026-08-01T12:00:18", node_name="n1"),
            task("c", "FAILED", exit_code=3, failure_message="bad\x1b[H luck", retry_id=2),
        ),
        group("d-group", task("d", "WAITING"), upstream=["a-group", "train"]),
    )
    rows, rest = rows_of(shown, NOW, 40)
    assert not rest
    assert [(row.name, row.detail) for row in rows] == [
        ("a", ""),
        ("train/", ""),
        ("  b", "on n1"),
        ("  c", "retry 2, exit code 3, bad [H luck"),
        ("d", "after a, train"),
    ]
    assert rows[2].elapsed == "12s"


def test_a_large_workflow_becomes_counts_and_what_matters() -> None:
    many = [group(f"g{i}", task(f"t{i}", "WAITING")) for i in range(1000)]
    many[7] = group("g7", task("t7", "FAILED"))
    many[900] = group("g900", task("t900", "RUNNING"))
    rows, rest = rows_of(groups(*many), NOW, MOST_ROWS)
    assert [row.name for row in rows] == ["t7", "t900"]
    assert rest == {"WAITING": 998, "FAILED": 1, "RUNNING": 1}
    busy = groups(*(group(f"g{i}", task(f"t{i}")) for i in range(1000)))
    assert len(rows_of(busy, NOW, 10)[0]) < 10


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("tasks", [3, 300])
def test_it_draws_and_leaves_the_end_standing(tasks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "20")
    terminal = Terminal()
    picture = Picture(terminal)
    done = [group(f"g{i}", task(f"t{i}", "COMPLETED"), status="COMPLETED") for i in range(tasks)]
    picture.show(Snapshot.parse(snapshot("COMPLETED", *done)))
    picture.close()
    picture.close()
    last = terminal.getvalue()
    assert "hello-1" in last
    assert ("t2" in last) if tasks == 3 else ("300 tasks: " in last)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0, "0.0s"),
        (9.94, "9.9s"),
        (9.96, "10s"),
        (59.6, "1m00s"),
        (3725, "1h02m"),
        (90000, "1d01h"),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_moments() -> None:
    assert moment("2026-08-01T12:00:00+02:00") == datetime(2026, 8, 1, 10, tzinfo=UTC)
    assert datetime.now(UTC) - moment("3h") - timedelta(hours=3) < timedelta(minutes=1)
    assert moment("2026-08-01").tzinfo is UTC
