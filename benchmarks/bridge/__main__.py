"""`make bench-bridge`: a bridge and a simulated cluster of 1,000 nodes, beside what both could do.

First bare loops and the driver make pods that nobody places: what the API server takes. Then KAI
places a gang that a bare loop has made, and one that a whole bridge was ordered to place over
NATS. The other groups of the bridge are bound to nodes by a bare loop in KAI's stead, which is
faster, and so harder on the bridge; with --kai by KAI, too. At last the bridge is killed, and one
that starts anew finds all those pods.

Options: --nodes N (1000), --pods N in all (10000), --group N pods a group (1000), --kai. What was
measured is printed also when a later part fails.
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
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import structlog
import yaml
from testcluster import nodes
from testcluster.build import ensure_parts
from testcluster.cluster import Cluster
from testcluster.control_plane import Timing
from testcluster.lifecycles import PREFIX
from testcluster.processes import Process
from testcluster.workloads import pod

from benchmarks.bridge.bus import EngineSide, group_of, pod_name
from benchmarks.bridge.limits import Seen, binding, create_pods, place, watched
from benchmarks.harness import (
    cpu_seconds_of,
    memory_of,
    most_memory_of,
    quantile,
    report,
    running_servers,
)
from cairn_bridge.cluster import Fact
from cairn_bridge.drivers.kubernetes import Api, KubernetesDriver, Site
from cairn_common.events import GroupPlacement
from cairn_common.pools import ClusterPools, Pool, Queue, Share

Figures = dict[str, Any]
TIMING = Timing(lease=200, node_grace=240, schedule_period="1s")
"""A thousand nodes that renew their leases every two seconds would be the load that is measured."""
POOLS = {
    "pools": {"default": {"template": {"metadata": {"annotations": {f"{PREFIX}run": "forever"}}}}}
}
"""Pods that run for ever, said as for the bare loop's: in an annotation, for which kwok need not
change the pod once more."""
_BARE_PODS = 1000
_PATIENCE = 300.0
_SLOWEST_KAI = 5.0
"""Pods a second that KAI binds on the slowest machine."""


class Deaf:
    """A reporter for a driver of which only the making of pods is measured."""

    async def fact(self, fact: Fact) -> None:
        """Not measured."""

    async def log(self, *_: object, **__: object) -> None:
        """Not measured."""


class Spent:
    """Processor time by process, since the last look."""

    def __init__(self, processes: Sequence[Process]) -> None:
        self._processes = processes
        self._before: dict[str, float] = {}

    def look(self) -> str:
        """What each has used, in seconds; those with little are left out."""
        found: list[str] = []
        for one in [process for process in self._processes if not process.ended]:
            now = cpu_seconds_of(one.pid)
            used = now - self._before.get(one.name, 0.0)
            self._before[one.name] = now
            if used >= 1.0:
                found.append(f"{one.name} {used:.0f}")
        return f"processor s: {', '.join(found)}; benchmark {time.process_time():.0f} in all"


async def _measure(
    options: argparse.Namespace, folder: Path, figures: Figures, limits: Figures
) -> None:
    cluster = Cluster("bench", ensure_parts(), folder, TIMING)
    figures["load average before"] = os.getloadavg()[0]
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
        for one in cluster.plane.processes:
            if not one.ended:
                limits[f"{one.name} processor s"] = cpu_seconds_of(one.pid)
                limits[f"{one.name} MB"] = memory_of(one.pid) / 1e6
    finally:
        cluster.stop()


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
    spent = Spent(cluster.plane.processes)
    spent.look()
    async with cluster.api() as api, watched(api, "default") as progress:
        placed = await place(api, progress, "default", "bare", size)
    limits["bare gang created s"] = placed.created
    limits["bare gang bound s"] = placed.bound
    limits["bare gang running s"] = placed.running
    limits["KAI binds pods/s"] = size / (placed.bound - placed.created)
    _say(f"bare gang of {size}: {placed}; {spent.look()}")


async def _bridge(
    cluster: Cluster, nats_url: str, options: argparse.Namespace, figures: Figures
) -> None:
    groups = [group_of(number, options.group) for number in range(options.pods // options.group)]
    async with (
        cluster.api() as api,
        EngineSide(nats_url, "bench") as engine,
        watched(api, "default", Seen(options.group)) as seen,
        _running_bridge(cluster, nats_url, "bridge") as bridge,
    ):
        spent = Spent([*cluster.plane.processes, bridge])
        try:
            spent.look()
            began = await engine.place(groups[:1])
            last = await engine.until(engine.accepted, options.group, _PATIENCE)
            figures["a group accepted s"] = last - began
            last = await engine.until(engine.started, options.group, _PATIENCE)
            figures["a group all running s"] = last - began
            _say(f"a group of {options.group} runs after {last - began:.1f} s; {spent.look()}")
            if groups[1:]:
                async with _bound(cluster, api, options, seen):
                    await _others(groups, engine, figures, spent)
        finally:
            await asyncio.sleep(5)
            figures["live pods"] = len(engine.started)
            figures["bridge MB"] = memory_of(bridge.pid) / 1e6
            figures["bridge MB at most"] = most_memory_of(bridge.pid) / 1e6
            figures["bridge processor s"] = cpu_seconds_of(bridge.pid)
            lags = [
                at - seen.at[name]
                for group in groups
                for task in group.tasks
                if (at := engine.started.get((group.workflow, task.index)))
                and (name := pod_name(group, task.index)) in seen.at
            ]
            for q in (0.5, 0.99):
                figures[f"pod runs -> event p{q * 100:g} ms"] = quantile(lags, q) * 1000
        bridge.stop()
        began = time.monotonic()
        async with _running_bridge(cluster, nats_url, "bridge-2") as successor:
            figures["a bridge that starts anew is ready s"] = time.monotonic() - began
            await asyncio.sleep(10)
            figures["that bridge MB"] = memory_of(successor.pid) / 1e6
            figures["that bridge MB at most"] = most_memory_of(successor.pid) / 1e6


@contextlib.asynccontextmanager
async def _bound(
    cluster: Cluster, api: Any, options: argparse.Namespace, seen: Seen
) -> AsyncIterator[None]:
    """What places the other groups: a bare loop, unless KAI is to."""
    if options.kai:
        yield
        return
    cluster.plane.check()
    for process in cluster.plane.processes:
        if process.name.startswith("kai-"):
            process.stop()
    async with binding(api, "default", options.nodes, seen):
        yield


async def _others(
    groups: Sequence[GroupPlacement], engine: EngineSide, figures: Figures, spent: Spent
) -> None:
    total = sum(len(group.tasks) for group in groups)
    rest = total - len(groups[0].tasks)
    began = await engine.place(groups[1:])
    last = await engine.until(engine.accepted, total, _PATIENCE)
    figures["bridge pods/s"] = rest / (last - began)
    _say(f"{rest} more pods made after {last - began:.1f} s; {spent.look()}")
    patience = _PATIENCE + rest / _SLOWEST_KAI
    last = await engine.until(engine.started, total, patience)
    figures["all others running s"] = last - began
    _say(f"all run after {last - began:.1f} s; {spent.look()}")


@contextlib.asynccontextmanager
async def _running_bridge(cluster: Cluster, nats_url: str, name: str) -> AsyncIterator[Process]:
    pools = cluster.plane.folder / "pools.yaml"
    pools.write_text(yaml.safe_dump(POOLS))
    settings = {
        "CAIRN_POOLS_FILE": str(pools),
        "CAIRN_NATS_URL": nats_url,
        "CAIRN_CLUSTER": "bench",
        "CAIRN_CLUSTER_DRIVER": "kubernetes",
        "CAIRN_KUBECONFIG": str(cluster.kubeconfig),
        "CAIRN_LOG_FORMAT": "json",
    }
    command = (sys.executable, "-P", "-m", "cairn_bridge")
    process = Process(name, command, cluster.plane.folder, settings)
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
        figures: Figures = {}
        limits: Figures = {}
        try:
            asyncio.run(_measure(parser.parse_args(), Path(folder), figures, limits))
        finally:
            report("bridge", figures, limits)


if __name__ == "__main__":
    _main()
