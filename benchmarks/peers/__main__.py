"""Cairn beside its peers: `python -m benchmarks.peers [--quick] [--only NAME] [--markdown]`.

The same work for all, in one run on one machine: chains of three tasks that do nothing, one after
the other and many at once, and fan-outs of a hundred. `benchmarks/README.md` says how each system
is set up and where the comparison is not fair.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.peers import cairn, peers
from benchmarks.peers.model import PeerMissingError, Row, System
from benchmarks.peers.workers.work import Measured, Work

Run = Callable[[Work, Path], Measured]

ORCHESTRATION: Sequence[tuple[str, System, Run]] = (
    ("cairn-engine", cairn.ENGINE, cairn.run_engine),
    ("temporal", peers.TEMPORAL, peers.run_temporal),
    ("dbos", peers.DBOS, peers.run_dbos),
    ("prefect", peers.PREFECT, peers.run_prefect),
)
"""A task is a function, or nothing: what the orchestration alone costs."""
PROCESSES: Sequence[tuple[str, System, Run]] = (
    ("cairn", cairn.WHOLE, cairn.run_whole),
    ("prefect-pool", peers.PREFECT_POOL, peers.run_prefect_pool),
)
"""A task, or a workflow, is a process that is started for it."""

COLUMNS = {
    "chain_p50_ms": "chain of 3, p50 ms",
    "chain_p99_ms": "p99 ms",
    "burst_tasks_per_second": "many chains, tasks/s",
    "fan_p50_ms": "fan of 100, p50 ms",
    "fan_tasks_per_second": "fan, tasks/s",
}


def main(quick: bool, only: Sequence[str], markdown: bool) -> None:
    """Measure all systems, one after the other, and report."""
    scale = 5 if quick else 1
    plans = (
        (ORCHESTRATION, Work(chains=50 // scale, burst=100 // scale, fans=10 // scale)),
        (PROCESSES, Work(chains=20 // scale, burst=40 // scale, fans=5 // scale)),
    )
    tables: list[list[Row]] = []
    answer: dict[str, dict[str, object]] = {"figures": {}, "limits": {}, "peers": {}}
    for systems, work in plans:
        tables.append([])
        for name, system, run in systems:
            if only and name not in only:
                continue
            row = _measure(system, run, work)
            tables[-1].append(row)
            place = answer["figures" if name.startswith("cairn") else "peers"]
            place[name] = row.facts() | row.figures()
    titles = ("Orchestration alone", "A process for each task or workflow")
    for title, rows in zip(titles, tables, strict=True):
        if rows:
            (_print_markdown if markdown else _print)(title, rows)
    print(json.dumps({"benchmark": "peers", **answer}))


def _measure(system: System, run: Run, work: Work) -> Row:
    print(f"# {system.name} {system.version}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix="cairn-peers-") as home:
        try:
            return Row(system, work, run(work, Path(home)))
        except PeerMissingError as missing:
            print(f"# {system.name} is missing: {missing}", file=sys.stderr, flush=True)
            return Row(system, work, reason=str(missing))


def _cells(row: Row) -> list[str]:
    figures = row.figures()
    if row.measured is None:
        return [f"missing: {row.reason.strip().splitlines()[-1]}", *[""] * (len(COLUMNS) - 1)]
    return [f"{figures[name]:,.1f}" for name in COLUMNS]


def _print(title: str, rows: Sequence[Row]) -> None:
    table = Table("system", "version", *COLUMNS.values(), title=title, title_justify="left")
    for row in rows:
        table.add_row(row.system.name, row.system.version, *_cells(row))
    console = Console()
    console.print(table)
    for row in rows:
        system = row.system
        console.print(f"{system.name}: {system.task}; {system.processes}; state in {system.state}")


def _print_markdown(title: str, rows: Sequence[Row]) -> None:
    heads = ("system", "version", *COLUMNS.values())
    print(f"\n{title}:\n\n| " + " | ".join(heads) + " |\n|" + " --- |" * len(heads))
    for row in rows:
        print("| " + " | ".join((row.system.name, row.system.version, *_cells(row))) + " |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a fifth of the work")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        choices=[name for name, *_ in (*ORCHESTRATION, *PROCESSES)],
        help="measure this system only; may be repeated",
    )
    parser.add_argument("--markdown", action="store_true", help="print the tables for the README")
    arguments = parser.parse_args()
    main(arguments.quick, arguments.only, arguments.markdown)
