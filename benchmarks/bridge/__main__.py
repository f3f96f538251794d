"""`make bench-bridge`: a bridge and a simulated cluster of 1,000 nodes, beside what both could do.

First bare loops and the driver make pods that nobody places: what the API server takes. Then KAI
places a gang that a bare loop has made, and one that a whole bridge was ordered to place over
NATS. The other groups of the bridge are bound to nodes by a bare loop in KAI's stead, which is
faster, and so harder on the bridge; with --kai by KAI, too.

Options: --nodes N (1000), --pods N in all (10000), --group N pods a group (1000), --kai.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import structlog
from testcluster import nodes
from testcluster.build import ensure_parts
from testcluster.cluster import Cluster
from testcluster.control_plane import Timing
from testcluster.processes import Process
from testcluster.workloads import pod

from benchmarks.bridge.bus import EngineSide, group_of, pod_name
from benchmarks.bridge.limits import Seen, binding, create_pods, place, watched
from benchmarks.harness import cpu_seconds_of, memory_of, quantile, report, running_servers
from cairn_bridge.cluster import Fact
from cairn_bridge.drivers.kubernetes import Api, KubernetesDriver, Site
from cairn_common.pools import ClusterPools, Pool, Queue, Share

Figures = dict[str, Any]
TIMING = Timing(lease=200, node_grace=240, schedule_period="1s")
"""A thousand nodes that renew their leases every two seconds would be the load that is measured."""
_BARE_PODS = 1000
_PATIENCE = 600.0


class Deaf:
    """A reporter for a driver of which only the making of pods is measured."""

    async def fact(self, fact: Fact) -> None:
        """Not measured."""

    async def log(self, *_: object, **__: object) -> None:
        """Not measured."""


async def _measure(options: argparse.Namespace, folder: Path) -> tuple[Figures, Figures]:
    cluster = Cluster("bench", ensure_parts(), folder, TIMING)
    figures: Figures = {"load average before": os.getloadavg()[0]}
    limits: Figures = {}
    try:
        await cluster.start()
        started = time.monotonic()
        await cluster.add(nodes.CPU, options.nodes)
        limits["nodes ready s"] = time.monotonic() - started
        _say(f"{options.nodes} nodes after {limits['nodes ready s']:.0f} s")
        await _creating(cluster, figures, limits)
        await _bare_gang(cluster, options.group, limits)
        with running_servers(folder / "servers") as servers:
            await _bridge(cluster, servers["CAIRN_NATS_URL"], options, figures)
        bare = options.group / limits["bare gang created s"]
        figures["of the bare gang's loop"] = figures["bridge pods/s"] / bare
        for one in cluster.plane.processes:
            if not one.ended:
                limits[f"{one.name} processor s"] = cpu_seconds_of(one.pid)
                limits[f"{one.name} MB"] = memory_of(one.pid) / 1e6
    finally:
        cluster.stop()
    return figures, limits


async def _creating(cluster: Cluster, figures: Figures, limits: Figures) -> None:
    """The driver and a bare loop take turns, so that a busy machine is busy for both."""
    bare: list[float] = []
    ours: list[float] = []
    for turn in range(2):
        async with cluster.api() as api, cluster.namespace("bare") as namespace:
            pods = [
                pod(namespace, f"bare-{number}", schedulerName="nobody")
                for number in range(_BARE_PODS)
            ]
            bare.append(await create_pods(api, pods))
        async with cluster.namespace("driver") as namespace:
            ours.append(await _driver_rate(cluster, namespace, turn))
    limits["bare loop pods/s"] = sum(bare) / len(bare)
    figures["driver pods/s"] = sum(ours) / len(ours)
    figures["of the bare loop"] = figures["driver pods/s"] / limits["bare loop pods/s"]
    _say(f"bare {bare}, driver {ours} pods/s")


async def _driver_rate(cluster: Cluster, namespace: str, turn: int) -> float:
    # KAI looks at a group whatever its pods say, unless its queue may have nothing.
    nothing = Pool(queue=Queue(cpu=Share(guarantee=0, maximum=0)))
    site = Site("rate", namespace, ClusterPools(pools={"default": nothing}), scheduler="nobody")
    driver = KubernetesDriver(lambda: Api.connect(cluster.kubeconfig, None), site)
    await driver.start(Deaf())
    try:
        started = time.monotonic()
        await driver.place(group_of(1_000_000 + turn, _BARE_PODS), None)
        rate = _BARE_PODS / (time.monotonic() - started)
        keys = driver.known()
        await driver.stop(keys, "measured", 1)
        async with asyncio.timeout(_PATIENCE):
            while any(attempt.live for attempt in driver._register.all()):
                await asyncio.sleep(0.2)
        await driver.settle(keys)
    finally:
        await driver.close()
    return rate


async def _bare_gang(cluster: Cluster, size: int, limits: Figures) -> None:
    """A gang without us; its pods stay."""
    async with cluster.api() as api, watched(api, "default") as progress:
        placed = await place(api, progress, "default", "bare", size)
    limits["bare gang created s"] = placed.created
    limits["bare gang bound s"] = placed.bound
    limits["bare gang running s"] = placed.running
    _say(f"bare gang of {size}: {placed}")


async def _bridge(
    cluster: Cluster, nats_url: str, options: argparse.Namespace, figures: Figures
) -> None:
    groups = [group_of(number, options.group) for number in range(options.pods // options.group)]
    total = len(groups) * options.group
    async with (
        cluster.api() as api,
        EngineSide(nats_url, "bench") as engine,
        watched(api, "default", Seen()) as seen,
        _running_bridge(cluster, nats_url) as bridge,
    ):
        began = await engine.place(groups[:1])
        last = await engine.until(engine.started, options.group, _PATIENCE)
        figures["a group all running s"] = last - began
        _say(f"a group of {options.group} runs after {last - began:.1f} s")
        if not options.kai:
            cluster.plane.check()
            for process in cluster.plane.processes:
                if process.name.startswith("kai-"):
                    process.stop()
        async with contextlib.AsyncExitStack() as stack:
            if not options.kai:
                await stack.enter_async_context(binding(api, "default", options.nodes))
            began = await engine.place(groups[1:])
            rest = total - options.group
            last = await engine.until(engine.accepted, total, _PATIENCE)
            figures["bridge pods/s"] = rest / (last - began)
            _say(f"{rest} more pods made after {last - began:.1f} s")
            last = await engine.until(engine.started, total, _PATIENCE)
            figures["all others running s"] = last - began
            _say(f"all run after {last - began:.1f} s")
        lags = [
            engine.started[group.workflow, task.index] - seen.at[pod_name(group, task.index)]
            for group in groups
            for task in group.tasks
        ]
        for q in (0.5, 0.99):
            figures[f"pod runs -> event p{q * 100:g} ms"] = quantile(lags, q) * 1000
        await asyncio.sleep(5)
        figures["bridge MB with all pods live"] = memory_of(bridge.pid) / 1e6
        figures["bridge processor s"] = cpu_seconds_of(bridge.pid)
        figures["live pods"] = total


@contextlib.asynccontextmanager
async def _running_bridge(cluster: Cluster, nats_url: str) -> AsyncIterator[Process]:
    settings = {
        "CAIRN_NATS_URL": nats_url,
        "CAIRN_CLUSTER": "bench",
        "CAIRN_CLUSTER_DRIVER": "kubernetes",
        "CAIRN_KUBECONFIG": str(cluster.kubeconfig),
        "CAIRN_LOG_FORMAT": "json",
    }
    command = (sys.executable, "-P", "-m", "cairn_bridge")
    process = Process("bridge", command, cluster.plane.folder, settings)
    try:
        async with asyncio.timeout(60):
            while '"ready"' not in process.log.read_text():
                process.check()
                await asyncio.sleep(0.1)
        yield process
    finally:
        process.stop()


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, count in (("nodes", 1000), ("pods", 10_000), ("group", 1000)):
        parser.add_argument(f"--{name}", type=int, default=count)
    # The driver within this process says nothing of the thousands of pods that it stops.
    warnings_only = structlog.make_filtering_bound_logger(logging.WARNING)
    structlog.configure(wrapper_class=warnings_only)
    parser.add_argument("--kai", action="store_true", help="KAI places all groups")
    with tempfile.TemporaryDirectory(prefix="cairn-bench-") as folder:
        figures, limits = asyncio.run(_measure(parser.parse_args(), Path(folder)))
    report("bridge", figures, limits)


if __name__ == "__main__":
    _main()
