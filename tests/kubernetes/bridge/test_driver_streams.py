"""Logs, exec and port-forward through the API server."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from driver_harness import Recorder, World, assert_echoes_in_capitals, keys_of
from testcluster import kwok

from cairn_bridge.cluster import AttemptKey, Phase
from cairn_bridge.drivers.kubernetes.driver import KubernetesDriver
from cairn_common.events import GroupPlacement
from cairn_common.pools import ClusterPools, Credential, Pool

pytestmark = pytest.mark.simulator


class LogFile:
    """A container's log as its runtime writes it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        path.touch()

    def write(self, count: int) -> list[str]:
        """So many lines, three of them within each moment."""
        texts = [f"line {self.count + number}" for number in range(count)]
        with self.path.open("a") as file:
            for text in texts:
                moment = self.count // 3
                stamp = f"2026-01-01T00:{moment // 60000 % 60:02d}:{moment // 1000 % 60:02d}"
                file.write(f"{stamp}.{moment % 1000:03d}000000Z stdout F {text}\n")
                self.count += 1
        return texts


async def start(
    world: World, driver: KubernetesDriver, told: Recorder, log: LogFile, **fields: Any
) -> tuple[GroupPlacement, AttemptKey]:
    group = world.group(sim={"run": "forever"}, **fields)
    (key,) = keys_of(group)
    namespace = world.site.namespace
    pod = world.pod_of(key, group)
    await world.create(kwok.pod_log(namespace, pod, log.path), "logs")
    await driver.place(group, None)
    await told.until(lambda: told.reached([key], Phase.STARTED))
    return group, key


async def test_a_log_is_followed_numbered_and_ends_with_its_last_line(
    world: World, tmp_path: Path
) -> None:
    log = LogFile(tmp_path / "log")
    texts = log.write(5)
    async with world.driver() as (driver, told):
        _, key = await start(world, driver, told, log)
        await told.until(lambda: len(told.lines.get(key, ())) == 5)
        texts += log.write(1200)
        await told.until(lambda: len(told.lines[key]) == 1205)
        await driver.stop([key], "done", 1)
        (outcome,) = await told.until_ended(key)
        assert told.text(key) == texts
        assert outcome.log_lines == 1205
        assert told.finals[key] == 1
        doubled = [seq for (_, seq), times in told.said.items() if times > 1]
        assert doubled in ([], [1204]), "only the last line goes along with the end"


async def test_a_new_bridge_gives_every_line_its_number_again(world: World, tmp_path: Path) -> None:
    log = LogFile(tmp_path / "log")
    texts = log.write(10)
    async with world.driver() as (driver, told):
        _, key = await start(world, driver, told, log)
        await told.until(lambda: len(told.lines.get(key, ())) == 10)
    texts += log.write(10)
    async with world.driver() as (driver, told):
        await driver.report_all()
        texts += log.write(10)
        await told.until(lambda: len(told.lines.get(key, ())) == 30)
        assert told.text(key) == texts


async def test_a_broken_connection_is_taken_up_without_gap_or_double(
    world: World, tmp_path: Path
) -> None:
    log = LogFile(tmp_path / "log")
    texts = log.write(100)
    async with world.driver() as (driver, told):
        _, key = await start(world, driver, told, log)
        await told.until(lambda: len(told.lines.get(key, ())) == 100)
        connector = driver._api._session.connector
        assert connector is not None
        for connection in list(connector._acquired):
            assert connection.transport is not None
            connection.transport.abort()  # watches too: they come back as well
        texts += log.write(101)
        await told.until(lambda: len(told.lines[key]) == 201)
        assert told.text(key) == texts
        assert max(told.said.values()) == 1


async def test_a_slow_bus_holds_the_reading_back(world: World, tmp_path: Path) -> None:
    log = LogFile(tmp_path / "log")
    texts = log.write(3000)
    async with world.driver() as (driver, told):
        told.slow.clear()
        _, key = await start(world, driver, told, log)
        texts += log.write(3000)
        await asyncio.sleep(0.5)
        assert not told.lines
        told.slow.set()
        await told.until(lambda: len(told.lines.get(key, ())) == 6000)
        assert told.text(key) == texts


async def test_lines_are_said_again_from_a_number_on(world: World, tmp_path: Path) -> None:
    log = LogFile(tmp_path / "log")
    log.write(20)
    async with world.driver() as (driver, told):
        _, key = await start(world, driver, told, log)
        await told.until(lambda: len(told.lines.get(key, ())) == 20)
        await driver.resend_log(key, 15)
        await told.until(lambda: told.said[key, 19] == 2)
        assert told.said[key, 14] == 1
        await driver.stop([key], "done", 1)
        await told.until_ended(key)
        told.said.clear()
        finals = told.finals[key]
        await driver.resend_log(key, 18)
        assert told.finals[key] == finals + 1
        assert sorted(seq for _, seq in told.said) == [18, 19]


KEEPS = {"robots": Credential(secret="team-robots", keys=["token"])}


@pytest.mark.parametrize("pools", [ClusterPools(pools={"default": Pool(credentials=KEEPS)})])
async def test_values_of_credentials_are_masked(world: World, tmp_path: Path) -> None:
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "team-robots", "namespace": world.site.namespace},
        "stringData": {"token": "swordfish"},
    }
    await world.create(secret, "secrets")
    log = LogFile(tmp_path / "log")
    log.write(1)
    log.path.write_text(log.path.read_text().replace("line 0", "the token is swordfish"))
    async with world.driver() as (driver, told):
        _, key = await start(world, driver, told, log, credentials={"robots": "/run/robots"})
        await told.until(lambda: len(told.lines.get(key, ())) == 1)
        assert told.text(key) == ["the token is [MASKED]"]


async def test_a_program_beside_the_task(world: World, tmp_path: Path) -> None:
    log = LogFile(tmp_path / "log")
    async with world.driver() as (driver, told):
        group, key = await start(world, driver, told, log)
        pod = world.pod_of(key, group)
        await world.create(kwok.pod_exec(world.site.namespace, pod, tmp_path), "execs")
        program = await driver.exec(key, ["sh", "-c", "head -n 1; pwd"])
        await program.write(b"hello\n")
        output = b"".join([data async for data in program.read()])
        assert output.splitlines() == [b"hello", str(tmp_path).encode()]
        assert await program.wait() == 0
        await driver.stop([key], "done", 1)
        await told.until_ended(key)
        with pytest.raises(LookupError, match="not running"):
            await driver.exec(key, ["true"])


async def test_a_port_of_the_task(world: World, tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        while data := await reader.read(65536):
            writer.write(data.upper())
            await writer.drain()

    log = LogFile(tmp_path / "log")
    writers: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with world.driver() as (driver, told):
        group, key = await start(world, driver, told, log)
        pod = world.pod_of(key, group)
        await world.create(kwok.pod_port(world.site.namespace, pod, 8888, port), "portforwards")
        await asyncio.sleep(0.5)
        stream = await driver.port_forward(key, 8888)
        await assert_echoes_in_capitals(stream)
        await stream.close()
    server.close()
    for writer in writers:  # kwok keeps its side open
        writer.close()
        await writer.wait_closed()
    await server.wait_closed()
