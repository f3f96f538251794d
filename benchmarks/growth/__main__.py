"""What grows: `python -m benchmarks.growth [--quick] [--markdown] [--part PART]`.

The engine with a real nats-server, a real PostgreSQL with durable commits and a cluster that
answers at once. The cost of a task must not depend on how large its workflow is, nor on how many
workflows there have been.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import uvloop

from benchmarks.engine.__main__ import NULL_BRIDGE, process
from benchmarks.engine.load import Load, chain, fan
from benchmarks.growth import history, listing
from benchmarks.growth.shapes import lattice
from benchmarks.growth.size import Cost, cost, gang_seconds, waiting_bytes
from benchmarks.harness import report, running_servers

Figures = dict[str, float]

SHAPES: Mapping[str, tuple[Callable[[int], str], Sequence[int]]] = {
    # A chain is one task at a time: its cost is its latency, and a long one takes long.
    "chain": (chain, (1_000, 10_000, 100_000)),
    "fan": (fan, (1_000, 10_000, 100_000)),
    "lattice": (lattice, (1_000, 10_000, 100_000)),
}
LIMITS: Figures = {
    "growth_of_cost_percent": 20.0,
    "bytes_per_waiting_task": 1024.0,
    "gang_of_1000_seconds": 5.0,
    "list_p99_ms": 50.0,
}
"""What is asked for, not what the machine can do."""


async def sizes(settings: dict[str, str], quick: bool) -> Figures:
    """Cost of a task by shape and size."""
    figures: Figures = {}
    for shape, (text, counts) in SHAPES.items():
        costs: list[Cost] = []
        for tasks in counts[:2] if quick else counts:
            # Small ones are repeated, one after the other, to be long enough to be measured.
            again = 1 if shape == "chain" else max(1, 10_000 // tasks)
            _say(f"{shape} of {tasks:,} tasks, {again} times")
            costs.append(await cost(settings, text(tasks), tasks, again, each=1))
            figures[f"{shape}_{tasks}_wall_us_per_task"] = round(costs[-1].wall, 1)
            figures[f"{shape}_{tasks}_engine_cpu_us_per_task"] = round(costs[-1].cpu, 1)
        figures |= _growth(shape, costs)
    costs = []
    for workflows in (1_000, 2_000) if quick else (1_000, 10_000):
        _say(f"{workflows:,} workflows of 10 tasks")
        costs.append(await cost(settings, fan(10), 10, workflows, each=workflows))
        figures[f"workflows_{workflows}_wall_us_per_task"] = round(costs[-1].wall, 1)
        figures[f"workflows_{workflows}_engine_cpu_us_per_task"] = round(costs[-1].cpu, 1)
    return figures | _growth("workflows", costs)


async def memory(settings: dict[str, str], quick: bool) -> Figures:
    """Memory of what waits in one large workflow."""
    tasks = 10_000 if quick else 100_000
    _say(f"a fan of {tasks:,} tasks that waits")
    first, second = await waiting_bytes(settings, fan(tasks), tasks)
    return {
        f"bytes_per_task_of_the_first_{tasks}": round(first, 1),
        "bytes_per_waiting_task": round(second, 1),
    }


async def gangs(settings: dict[str, str], quick: bool) -> Figures:
    """A group of a thousand tasks."""
    _say("a group of 1,000 tasks")
    ready, accepted = await gang_seconds(settings, 1_000)
    return {
        "gang_of_1000_ready_seconds": round(ready, 3),
        "gang_of_1000_accepted_seconds": round(accepted, 3),
    }


async def past(settings: dict[str, str], quick: bool) -> Figures:
    """Lists and throughput before and after a million workflows."""
    count = 100_000 if quick else 1_000_000
    work, times = (200, 50) if quick else (1_000, 200)
    figures: Figures = {}
    before = await _throughput(settings, work)
    async with Load(settings) as load:
        with (
            process(settings, "-m", "cairn_engine"),
            process(settings, str(NULL_BRIDGE), settings["CAIRN_NATS_URL"]),
        ):
            (pattern,) = await load.submit(fan(1), 1)
            await load.wait([pattern])
        _say(f"{count:,} ended workflows")
        await history.fill(load.database, pattern, count)
    after = await _throughput(settings, work)
    figures["tasks_per_second_before"] = round(before, 1)
    figures[f"tasks_per_second_after_{count}_workflows"] = round(after, 1)
    _say("lists")
    lists = await listing.measure(settings, times)
    for name, (p50, p99) in lists.items():
        figures[f"list_{name}_p50_ms"] = round(p50, 1)
        figures[f"list_{name}_p99_ms"] = round(p99, 1)
    figures["list_worst_p99_ms"] = round(max(p99 for _, p99 in lists.values()), 1)
    return figures


PARTS = {"sizes": sizes, "memory": memory, "gang": gangs, "past": past}


async def _throughput(settings: dict[str, str], workflows: int) -> float:
    found = await cost(settings, fan(10), 10, workflows, each=workflows)
    return 1e6 / found.wall


def _growth(name: str, costs: Sequence[Cost]) -> Figures:
    """By how many percent the largest costs more than the smallest."""
    return {
        f"{name}_growth_of_wall_percent": round(100 * (costs[-1].wall / costs[0].wall - 1), 1),
        f"{name}_growth_of_cpu_percent": round(100 * (costs[-1].cpu / costs[0].cpu - 1), 1),
    }


def _say(text: str) -> None:
    print(f"# {text}", file=sys.stderr, flush=True)


async def main(quick: bool, markdown: bool, parts: Sequence[str]) -> None:
    """Measure one after the other, each with servers of its own, and report."""
    figures: Figures = {}
    for name, part in PARTS.items():
        if parts and name not in parts:
            continue
        with (
            tempfile.TemporaryDirectory(prefix="cairn-growth-") as home,
            running_servers(Path(home)) as settings,
        ):
            figures |= await part(settings, quick)
    if markdown:
        print("| figure | value |\n| --- | --- |")
        for name, value in figures.items():
            print(f"| {name.replace('_', ' ')} | {value:,} |")
        print(json.dumps({"benchmark": "growth", "figures": figures, "limits": LIMITS}))
    else:
        report("growth", figures, LIMITS)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the work")
    parser.add_argument("--markdown", action="store_true", help="print a table for the README")
    parser.add_argument(
        "--part", action="append", default=[], choices=PARTS, help="only this; may be repeated"
    )
    arguments = parser.parse_args()
    uvloop.run(main(arguments.quick, arguments.markdown, arguments.part))
