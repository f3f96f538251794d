"""The benchmarks measure what they say: shapes, amounts of work, and sums."""

from __future__ import annotations

import asyncio

import pytest
from benchmarks.growth.shapes import ROW, gang, lattice, needs_of
from benchmarks.harness import quantile
from benchmarks.peers import environments
from benchmarks.peers.model import Row, System
from benchmarks.peers.workers.work import Measured, Work, measure

from cairn_common.spec.graph import build_graph
from cairn_common.spec.load import load_workflow

SYSTEM = System("peer", "1", "a task", "a state", "some processes")


def test_a_quantile_is_a_value_of_the_sample() -> None:
    values = [float(number) for number in range(100, 0, -1)]
    assert quantile(values, 0.5) == 51
    assert quantile(values, 0.99) == 100
    assert quantile([], 0.5) != quantile([], 0.5)  # NaN


def test_a_lattice_is_rows_that_hang_together() -> None:
    graph = build_graph(load_workflow(lattice(3 * ROW)).spec)
    upstream = [sorted(group.upstream) for group in graph.groups]
    assert upstream[:ROW] == [[]] * ROW
    assert upstream[ROW] == [0, 1]
    assert upstream[2 * ROW - 1] == [0, ROW - 1]  # the last of a row and the first are neighbours
    assert all(len(group) == 2 for group in upstream[ROW:])
    assert needs_of(ROW) == ("t0", "t1")


def test_a_lattice_has_whole_rows() -> None:
    with pytest.raises(ValueError, match="do not fill"):
        lattice(ROW + 1)


def test_a_gang_is_one_group() -> None:
    graph = build_graph(load_workflow(gang(10)).spec)
    assert [len(group.tasks) for group in graph.groups] == [10]


def test_all_of_the_work_is_done_and_only_it_is_timed() -> None:
    ran: list[str] = []

    async def chain() -> None:
        ran.append("chain")

    async def fan() -> None:
        ran.append("fan")

    measured = asyncio.run(measure(Work(chains=4, burst=5, fans=2), chain, fan))
    assert (len(measured.chains), len(measured.fans)) == (4, 2)
    assert ran.count("chain") == 3 + 4 + 5
    assert ran.count("fan") == 1 + 2


def test_rates_follow_from_what_was_measured() -> None:
    measured = Measured(chains=[0.010, 0.020, 0.030], burst=2.0, fans=[0.5])
    figures = Row(SYSTEM, Work(chains=3, burst=100, fans=1), measured).figures()
    assert figures["chain_p50_ms"] == 20
    assert figures["burst_tasks_per_second"] == 150
    assert figures["fan_tasks_per_second"] == 202


def test_a_missing_peer_says_why() -> None:
    row = Row(SYSTEM, Work(1, 1, 1), reason="there is no Go")
    assert row.figures() == {"missing": "there is no Go"}


def test_versions_are_those_that_are_pinned() -> None:
    assert environments.version_of("dbos", "dbos")[0].isdigit()
    assert environments.server_version().startswith("1.")
    with pytest.raises(KeyError):
        environments.version_of("dbos", "prefect")


def test_requirements_are_locked_and_name_no_place() -> None:
    for file in (environments.HERE / "requirements").glob("*.txt"):
        text = file.read_text()
        assert "://" not in text
        pins = [line for line in text.splitlines() if "==" in line and line[0].isalnum()]
        assert pins
        assert text.count("--hash=sha256:") >= len(pins)
