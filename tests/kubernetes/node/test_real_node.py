"""The real node itself: what it is, its network, its loss, and that nothing of it stays."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from driver_harness import World, keys_of
from real_harness import LABELS, Real, run, script, text
from testcluster.kubeapi import request
from testcluster.node.able import hierarchies
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
    assert info["kernelVersion"] == Path("/proc/sys/kernel/osrelease").read_text().strip()
    assert {each["containerRuntimeVersion"] for each in about.values()} == {""}


async def test_pods_reach_each_other(world: World) -> None:
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


async def test_the_nodes_own_network_is_had_where_the_platform_lets(world: World) -> None:
    async with world.driver() as (driver, told):
        words = "grep -c eth0 /proc/net/dev; true"
        own, _ = await run(driver, told, script(world, words))
        nodes, _ = await run(driver, told, script(world, words, host_network=True))
        # A pod's link has that name; at the node's end each has another.
        assert (text(told, own), text(told, nodes)) == (["1"], ["0"])


async def test_of_a_node_that_is_lost_nothing_stays(world: World, real: Real) -> None:
    before = cgroups()
    links = await run_tool("ip", "-o", "link")
    tuned = [Path("/proc/sys", name).read_text() for name in _TUNED]
    machine = await real.cluster.add_real_node("real-doomed", LABELS)
    try:
        assert list(traces(machine.folder))
        assert len(cgroups()) == 2 * len(before)
        async with world.driver() as (driver, told):
            group = script(world, "sleep 600", nodes_excluded=[real.machine.name])
            (key,) = keys_of(group)
            await driver.place(group, None)
            await told.until(lambda: told.reached([key], Phase.STARTED))
            machine.stop()
            assert list(traces(machine.folder)) == []
            assert cgroups() == before
            assert await run_tool("ip", "-o", "link") == links
            assert [Path("/proc/sys", name).read_text() for name in _TUNED] == tuned
            (outcome,) = await told.until_ended(key)
            assert outcome.reason is FinishReason.NODE_LOST
            await driver.settle([key])
    finally:
        await real.cluster.remove_real_node(machine)


def cgroups() -> set[Path]:
    """Those of all nodes of this test run."""
    return {path for one in hierarchies() for path in one.glob(f"cairn-node-{os.getpid()}-*")}


def traces(folder: Path) -> Iterator[str]:
    """What of a node in `folder` is to be seen on the machine, beside that folder."""
    name = str(folder)
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = process.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except ProcessLookupError:
            continue
        if name in command:
            yield command
    yield from (line for line in Path("/proc/mounts").read_text().splitlines() if name in line)
