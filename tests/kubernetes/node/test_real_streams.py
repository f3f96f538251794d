"""Logs, exec and port-forward of containers that really run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from driver_harness import PATIENCE, Recorder, World, assert_echoes_in_capitals, keys_of
from real_harness import run, script, text

from cairn_bridge.cluster import AttemptKey, Phase
from cairn_bridge.drivers.kubernetes.driver import KubernetesDriver
from cairn_common.events import GroupPlacement

pytestmark = pytest.mark.simulator

ECHO = """
import socketserver
class Upper(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(65536):
            self.request.sendall(data.upper())
with socketserver.ThreadingTCPServer(("127.0.0.1", 8888), Upper) as server:
    print("up", flush=True)
    server.serve_forever()
"""


@asynccontextmanager
async def up(
    world: World, group: GroupPlacement
) -> AsyncIterator[tuple[KubernetesDriver, Recorder, AttemptKey]]:
    """While a task runs that has said `up`."""
    (key,) = keys_of(group)
    async with world.driver() as (driver, told):
        await driver.place(group, None)
        await told.until(lambda: told.reached([key], Phase.STARTED) and "up" in text(told, key))
        try:
            yield driver, told, key
        finally:
            await driver.stop([key], "done", 0)
            await told.until_ended(key)
            await driver.settle([key])


async def test_a_long_log_comes_whole_and_in_order(world: World) -> None:
    async with world.driver() as (driver, told):
        group = script(world, "seq 1 20000; printf 'no newline at the end'")
        key, outcome = await run(driver, told, group)
        assert text(told, key) == [*map(str, range(1, 20_001)), "no newline at the end"]
        assert outcome.log_lines == 20_001


async def test_a_program_beside_a_real_task(world: World) -> None:
    async with up(world, script(world, "echo up; sleep 600")) as (driver, _, key):
        program = await driver.exec(key, ["sh", "-c", "head -n 1; echo oops >&2; exit 42"])
        await program.write(b"hello\n")
        output = b"".join([data async for data in program.read()])
        assert sorted(output.splitlines()) == [b"hello", b"oops"]
        assert await program.wait() == 42
        until_eof = await driver.exec(key, ["wc", "-c"])
        await until_eof.write(b"x" * 1_000_000)
        await until_eof.write(b"")
        assert b"".join([data async for data in until_eof.read()]) == b"1000000\n"
        assert await until_eof.wait() == 0
        missing = await driver.exec(key, ["no-such-program"])
        async for _ in missing.read():
            pass
        with pytest.raises(LookupError, match="no-such-program"):
            await missing.wait()


async def test_a_port_of_a_real_task(world: World) -> None:
    group = script(world, "", command=["python3", "-c", ECHO])
    async with up(world, group) as (driver, _, key):
        stream = await driver.port_forward(key, 8888)
        await assert_echoes_in_capitals(stream)
        await stream.close()
        closed = await driver.port_forward(key, 9999)
        async with asyncio.timeout(PATIENCE):
            assert [data async for data in closed.read()] == []
        await closed.close()
