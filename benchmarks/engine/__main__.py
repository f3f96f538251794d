"""How fast the engine is: `python -m benchmarks.engine [--quick]`.

Real nats-server with file storage, real PostgreSQL with durable commits, one engine process, and a
null cluster as a process of its own that answers every placement at once. Beside the figures stand
the limits of the same machine in the same run: what JetStream and PostgreSQL alone can carry of
the same messages and rows.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import uvloop

from benchmarks.engine import limits
from benchmarks.engine.load import Load, chain, fan
from benchmarks.engine.null_bridge import NullBridge
from benchmarks.engine.parts import cpu_by_part
from benchmarks.harness import memory_of, quantile, report, running_servers

NULL_BRIDGE = Path(__file__).parent / "null_bridge.py"


@contextmanager
def process(settings: dict[str, str], *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process with the servers' settings, ended at the end."""
    environment = {**os.environ, **settings, "CAIRN_LOG_LEVEL": "warning"}
    running = subprocess.Popen([sys.executable, *command], env=environment)
    try:
        yield running
    finally:
        running.terminate()
        running.wait()


async def throughput(
    settings: dict[str, str], workflows: int, tasks: int, text: str, engines: int = 1
) -> tuple[float, dict[str, float]]:
    """Task completions a second, and each part's processor seconds per 1,000 of them."""
    with ExitStack() as running:
        for _ in range(engines):
            running.enter_context(process(settings, "-m", "cairn_engine"))
        async with Load(settings) as load:
            running.enter_context(process(settings, str(NULL_BRIDGE), settings["CAIRN_NATS_URL"]))
            await load.wait_until_shared(engines)
            await load.run(text, max(3, 200 // tasks))  # warm: connections, plans, caches
            before = cpu_by_part()
            seconds = await load.run(text, workflows)
            after = cpu_by_part()
    done = workflows * tasks
    return done / seconds, {name: (after[name] - before[name]) / done * 1000 for name in after}


async def latency(settings: dict[str, str], rate: float, seconds: float) -> list[float]:
    """Seconds from a task's end, as the bridge sends it, to its successor's arrival there.

    Chains of ten are submitted at such a pace that `rate` tasks complete in a second.
    """
    with process(settings, "-m", "cairn_engine"):
        async with Load(settings) as load, NullBridge(settings["CAIRN_NATS_URL"]) as bridge:
            text = chain(10)
            await load.run(text, 10)
            bridge.latencies.clear()
            pace = 10 / rate
            names: list[str] = []
            end = time.perf_counter() + seconds
            while time.perf_counter() < end:
                started = time.perf_counter()
                names += await load.submit(text, 1)
                await asyncio.sleep(max(0.0, pace - (time.perf_counter() - started)))
            await load.wait(names)
            return list(bridge.latencies)


async def memory(settings: dict[str, str], workflows: int, tasks: int) -> float:
    """Bytes that the engine's memory grows by for each task that waits."""
    with process(settings, "-m", "cairn_engine") as engine:
        async with Load(settings) as load, NullBridge(settings["CAIRN_NATS_URL"]) as bridge:
            text = fan(tasks)
            await load.run(text, 5)
            bridge.mute = True
            before = memory_of(engine.pid)
            names = await load.submit(text, workflows)
            await load.wait_until_stored(names)
            grown = memory_of(engine.pid) - before
            bridge.mute = False
            await load.cancel(names)
            await load.wait(names)
    return max(0.0, grown / (workflows * tasks))


async def main(quick: bool) -> None:
    """Measure everything, one after the other, and report."""
    tasks = 4_000 if quick else 20_000
    figures: dict[str, float] = {}
    with (
        tempfile.TemporaryDirectory(prefix="cairn-bench-") as home,
        running_servers(Path(home)) as settings,
    ):
        bounds = await limits.measure(settings, 5_000 if quick else 20_000)
        for shape, size, text in (("chain", 10, chain(10)), ("fan", 100, fan(100))):
            rate, cpu = await throughput(settings, tasks // size, size, text)
            figures[f"{shape}_tasks_per_second"] = round(rate, 1)
            limit = bounds[f"{shape}_tasks_per_second_if_only_bus_and_database_worked"]
            figures[f"{shape}_share_of_limit_percent"] = round(100 * rate / limit, 1)
            figures |= {
                f"{shape}_{part}_cpu_seconds_per_1000_tasks": round(seconds, 3)
                for part, seconds in cpu.items()
            }
            rate, _ = await throughput(settings, tasks // size, size, text, engines=2)
            figures[f"{shape}_tasks_per_second_of_two_engines"] = round(rate, 1)
        slowest = min(figures["chain_tasks_per_second"], figures["fan_tasks_per_second"])
        samples = await latency(settings, slowest / 10, 5 if quick else 15)
        figures["ready_latency_p50_ms"] = round(quantile(samples, 0.5) * 1000, 2)
        figures["ready_latency_p99_ms"] = round(quantile(samples, 0.99) * 1000, 2)
        figures["engine_bytes_per_waiting_task"] = round(
            await memory(settings, 20 if quick else 100, 500), 1
        )
    report("engine", figures, bounds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a fifth of the work")
    uvloop.run(main(parser.parse_args().quick))
