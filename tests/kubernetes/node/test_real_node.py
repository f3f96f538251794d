"""The real node itself: what it is, its network, its loss, and that nothing of it stays."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from driver_harness import World, keys_of
from real_harness import LABELS, Real, run, script, text
from testcluster.kubeapi import create_all, request, until
from testcluster.node.able import hierarchies
from testcluster.node.images import TASK
from testcluster.processes import run_tool

from cairn_bridge.cluster import Phase
from cairn_common.events import FinishReason

pytestmark = pytest.mark.simulator

_TUNED = ("vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops")


async def test_the_node_is_real_and_stands_beside_simulated_ones(real: Real) -> None:
    async with real.cluster.api() as api:
        nodes = (await request(api, "GET", "/api/v1/nodes"))["items"]
    about = {node["metadata"]["name"]: node["status"]["nodeInfo"] for node in nodes}
    info = about.pop(real.machine.name)
    assert info["containerRuntimeVersion"].startswith("containerd://2.")
    assert Path("/proc/version").read_text().split()[2] == info["kernelVersion"]
    assert about, "simulated nodes are there too"
    assert not any(
        each["containerRuntimeVersion"].startswith("containerd") for each in about.values()
    )


async def test_pods_reach_each_other_and_not_the_machine(world: World) -> None:
    async with world.driver() as (driver, told):
        server = script(world, "python3 -u -m http.server 8000")
        (key,) = keys_of(server)
        await driver.place(server, None)
        await told.until(lambda: "Serving" in " ".join(text(told, key)))
        address = (await world.pod(key, server))["status"]["podIP"]
        fetch = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1]).status)"
        client = script(world, "", command=["python3", "-c", fetch, f"http://{address}:8000/"])
        asked, outcome = await run(driver, told, client)
        assert outcome.exit_code == 0, text(told, asked)
        assert text(told, asked) == ["200"]
        await driver.stop([key], "done", 0)
        await told.until_ended(key)
