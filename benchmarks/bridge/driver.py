"""`python -m benchmarks.bridge.driver`: the Kubernetes driver beside a bare loop, in one run.

Options: --nodes N (100), --pods N in all (1000), --group N pods a group (250).
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from testcluster import nodes
from testcluster.build import ensure_parts
from testcluster.cluster import Cluster
from testcluster.workloads import pod

from benchmarks.bridge.__main__ import TIMING
from benchmarks.bridge.limits import Progress, create_pods, watched
from benchmarks.harness import memory_of, quantile, report
from cairn_bridge.cluster import AttemptKey, Fact, Phase
from cairn_bridge.drivers.kubernetes import Api, KubernetesDriver, Site
from cairn_common.events import GroupPlacement, LogLine, Resources, TaskPlacement

Figures = dict[str, float | int]


class Clock:
    """A reporter that notes when each phase of an attempt was told."""

    def __init__(self) -> None:
        self.told: dict[tuple[AttemptKey, Phase], float] = {}
        self.started = 0

    async def fact(self, fact: Fact) -> None:
        now = time.monotonic()
        for key in fact.keys:
            if (key, fact.phase) not in self.told:
                self.told[key, fact.phase] = now
                self.started += fact.phase is Phase.STARTED

    async def log(self, key: AttemptKey, lines: Sequence[LogLine], *, final: bool) -> None:
        """Logs are not measured here."""


class Seen(Progress):
    """A bare watch that notes when it first saw a pod run."""

    def __init__(self) -> None:
        super().__init__()
        self.at: dict[str, float] = {}

    def see(self, one: Any) -> None:
        super().see(one)
        if one["status"].get("phase") == "Running":
            self.at.setdefault(one["metadata"]["name"], time.monotonic())


def group_of(number: int, size: int) -> GroupPlacement:
    """A gang of pods that run for ever."""
    workflow = f"{number:016x}" + "0" * 16
    return GroupPlacement(
        workflow=f"bench-{number}",
        workflow_uuid=workflow,
        group="g",
        group_index=0,
        group_uuid=f"{number:016x}{0:08x}",
        tasks=[
            TaskPlacement(
                index=index,
                name=f"t{index}",
                uuid=f"{number:016x}{index:016x}",
                image="image",
                command=["run"],
                environment={"SIM_RUN": "forever"},
                resources=Resources(cpu=1, memory=1 << 20),
            )
            for index in range(size)
        ],
    )


def driver_of(kubeconfig: Path, namespace: str) -> KubernetesDriver:
    """The driver as the bridge makes it."""
    return KubernetesDriver(lambda: Api.connect(kubeconfig, None), Site("bench", namespace))


async def _measure(options: argparse.Namespace, folder: Path) -> tuple[Figures, Figures]:
    cluster = Cluster("bench", ensure_parts(), folder, TIMING)
    try:
        await cluster.start()
        await cluster.add(nodes.CPU, options.nodes)
        async with cluster.api() as api:
            async with cluster.namespace("bare") as namespace:
                bare = [
                    pod(namespace, f"bare-{number}", schedulerName="nobody")
                    for number in range(options.pods)
                ]
                rate = await create_pods(api, bare)
            limits: Figures = {"bare loop pods per second": rate}
            figures: Figures = {"load average before": os.getloadavg()[0]}
            await _place(cluster, api, options, figures)
            figures["share of the bare loop"] = figures["pods per second"] / rate
    finally:
        cluster.stop()
    return figures, limits


async def _place(cluster: Cluster, api: Any, options: argparse.Namespace, figures: Figures) -> None:
    clock = Clock()
    driver = driver_of(cluster.kubeconfig, "default")
    async with watched(api, "default", Seen()) as seen:
        assert isinstance(seen, Seen)
        await driver.start(clock)
        try:
            groups = [group_of(n, options.group) for n in range(options.pods // options.group)]
            started = time.monotonic()
            for group in groups:
                await driver.place(group, None)
            total = len(groups) * options.group
            figures["pods per second"] = total / (time.monotonic() - started)
            async with asyncio.timeout(900):
                while clock.started < total:
                    await asyncio.sleep(0.1)
            figures["all running s"] = time.monotonic() - started
            lags = [
                clock.told[key, Phase.STARTED] - seen.at[f"cairn-{task.uuid}-0"]
                for group in groups
                for task in group.tasks
                if f"cairn-{task.uuid}-0" in seen.at
                for key in [AttemptKey(group.workflow, task.index, 0, task.name)]
            ]
            for q in (0.5, 0.99):
                figures[f"fact after the watch saw it p{q * 100:g} ms"] = quantile(lags, q) * 1000
        finally:
            await driver.close()
    figures["memory MB of a bridge that begins with them"] = await _fresh(cluster.kubeconfig)
    figures["live pods then"] = total


async def _fresh(kubeconfig: Path) -> float:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "benchmarks.bridge.driver",
        "--resident",
        str(kubeconfig),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    output, _ = await process.communicate()
    return float(json.loads(output.splitlines()[-1])) / 1e6


async def _resident(kubeconfig: Path) -> None:
    """What a bridge's process holds once it knows all pods."""
    driver = driver_of(kubeconfig, "default")
    await driver.start(Clock())
    await driver.report_all()
    await asyncio.sleep(5)
    gc.collect()
    print(json.dumps(memory_of(os.getpid())))
    await driver.close()


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, count in (("nodes", 100), ("pods", 1000), ("group", 250)):
        parser.add_argument(f"--{name}", type=int, default=count)
    parser.add_argument("--resident", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.resident is not None:
        asyncio.run(_resident(options.resident))
        return
    with tempfile.TemporaryDirectory(prefix="cairn-bench-") as folder:
        figures, limits = asyncio.run(_measure(options, Path(folder)))
    report("bridge-driver", figures, limits)


if __name__ == "__main__":
    _main()
