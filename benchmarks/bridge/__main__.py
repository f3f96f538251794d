"""`make bench-bridge`: the limits of a simulated cluster with 1,000 nodes on this machine.

Options: --nodes N (1000), --pods N in all (10000), --group N pods a group (1000).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

from testcluster import nodes
from testcluster.build import ensure_parts
from testcluster.cluster import Cluster
from testcluster.control_plane import Timing

from benchmarks.bridge.limits import bare_rates, place, watched
from benchmarks.harness import cpu_seconds_of, memory_of, report

# A thousand nodes that renew their leases every two seconds would be the load that is measured.
TIMING = Timing(lease=200, node_grace=240, schedule_period="1s")


Figures = dict[str, float | int]


async def _measure(options: argparse.Namespace, folder: Path) -> Figures:
    cluster = Cluster("bench", ensure_parts(), folder, TIMING)
    figures: Figures = {"load average before": os.getloadavg()[0]}
    try:
        started = time.monotonic()
        await cluster.start()
        figures["start s"] = time.monotonic() - started
        figures |= _memory("idle", cluster)
        started = time.monotonic()
        await cluster.add(nodes.CPU, options.nodes)
        figures["nodes ready s"] = time.monotonic() - started
        for concurrency, rate in (await bare_rates(cluster, 2000)).items():
            figures[f"bare pods/s, {concurrency} at once"] = rate
        await _groups(cluster, options, figures)
        figures |= _memory("loaded", cluster)
        for one in cluster.plane.processes:
            figures[f"{one.name} processor s"] = cpu_seconds_of(one.pid)
        cluster.plane.check()
    finally:
        cluster.stop()
    return figures


async def _groups(cluster: Cluster, options: argparse.Namespace, figures: Figures) -> None:
    async with cluster.api() as api, watched(api, "default") as progress:
        started = time.monotonic()
        for number in range(options.pods // options.group):
            placed = await place(api, progress, "default", f"group-{number}", options.group)
            print(f"group {number}: {placed}", file=sys.stderr, flush=True)
            figures[f"group {number} created s"] = placed.created
            figures[f"group {number} bound s"] = placed.bound
            figures[f"group {number} running s"] = placed.running
        figures["all running s"] = time.monotonic() - started


def _memory(when: str, cluster: Cluster) -> Figures:
    """Resident megabytes of every program, and of all."""
    each = {one.name: memory_of(one.pid) // 1_000_000 for one in cluster.plane.processes}
    return {f"{name} MB {when}": size for name, size in {**each, "all": sum(each.values())}.items()}


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, count in (("nodes", 1000), ("pods", 10_000), ("group", 1000)):
        parser.add_argument(f"--{name}", type=int, default=count)
    with tempfile.TemporaryDirectory(prefix="cairn-bench-") as folder:
        figures = asyncio.run(_measure(parser.parse_args(), Path(folder)))
    report("bridge-limits", figures, {})


if __name__ == "__main__":
    _main()
