"""A pool over two clusters, on real servers; the test plays both."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from cairn_common.events import NodeInfo
from cairn_common.requests import CLUSTER_SUBJECT, ClusterAction, ClusterReply, ClusterRequest
from cairn_engine.service import EngineService
from cairn_engine.settings import EngineSettings
from engine_harness import Harness, chain
from servers import Servers

GI = 1 << 30


class Pool:
    """A pool of its own over two clusters, `east` and `west`, that beat until they are told."""

    def __init__(self, east: Harness, west: Harness) -> None:
        self.east = east
        self.west = west
        self._beating = {east, west}

    async def beat(self) -> None:
        """Say that who is not silenced is alive, for ever."""
        while True:
            for cluster in list(self._beating):
                await cluster.beat()
            await asyncio.sleep(0.1)

    def silence(self, cluster: Harness) -> None:
        """The cluster is not heard of and hears nothing."""
        self._beating.discard(cluster)
        cluster.hears.clear()

    def restore(self, cluster: Harness) -> None:
        """It is back."""
        self._beating.add(cluster)
        cluster.hears.set()

    async def order(self, cluster: Harness, action: ClusterAction, **more: Any) -> ClusterReply:
        """What the API asks of the engine."""
        request = ClusterRequest(cluster=cluster.cluster, action=action, **more)
        reply = await self.east.bus.client.request(
            CLUSTER_SUBJECT, request.model_dump_json().encode(), timeout=10
        )
        return ClusterReply.model_validate_json(reply.data)

    async def lies(self, workflow: str) -> list[tuple[str | None, str, int]]:
        """Cluster, status and attempt of the workflow's tasks."""
        tasks = await self.east.tasks(workflow)
        return [(task["cluster"], task["status"], task["attempt"]) for task in tasks.values()]

    async def until(self, workflow: str, *lies: tuple[Harness | None, str, int]) -> None:
        """Returns once the workflow's tasks lie so."""
        wanted = [(each and each.cluster, status, attempt) for each, status, attempt in lies]
        await eventually(lambda: self.lies(workflow), wanted)


async def eventually(look: Callable[[], Awaitable[Any]], wanted: Any) -> None:
    """Returns once `look` sees what is wanted."""
    seen = None
    try:
        async with asyncio.timeout(20):
            while (seen := await look()) != wanted:
                await asyncio.sleep(0.05)
    except TimeoutError:
        assert seen == wanted


@contextlib.asynccontextmanager
async def engine(servers: Servers, **changes: Any) -> AsyncIterator[None]:
    """An engine that calls a cluster silent after 0.6 seconds."""
    settings = EngineSettings(
        nats_url=servers.nats_url,
        database_url=servers.database_url,
        **{"offer_interval": 30.0, "backoff_base": 0.05, "lease_seconds": 2.0, **changes},
    )
    service = EngineService(settings)
    task = asyncio.create_task(service.run())
    await service.ready.wait()
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def pool(servers: Servers) -> AsyncIterator[Pool]:
    """East has much room, west little: without trouble all goes east."""
    run = uuid.uuid4().hex[:8]

    def cluster(name: str) -> Harness:
        return Harness(
            servers.nats_url,
            servers.database_url,
            lambda _workflow, _task: None,
            cluster=f"{name}-{run}",
            pool=f"pool-{run}",
        )

    async with cluster("east") as east, cluster("west") as west:
        made = Pool(east, west)
        beating = asyncio.create_task(made.beat())
        await east.has(NodeInfo(name="n", cpu=64, memory=64 * GI, storage=64 * GI))
        await west.has(NodeInfo(name="n", cpu=64, memory=64 * GI, storage=64 * GI, used_cpu=60))
        yield made
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)


async def known(pool: Pool) -> None:
    """Returns once the engine has both clusters."""
    names = [pool.east.cluster, pool.west.cluster]

    async def states() -> list[str]:
        rows = await pool.east.database.fetch(
            "SELECT state FROM engine.view_cluster WHERE name = ANY($1)", names
        )
        return [row["state"] for row in rows]

    await eventually(states, ["ACTIVE", "ACTIVE"])


async def test_work_goes_where_room_is_and_stays_near_its_inputs(
    servers: Servers, pool: Pool
) -> None:
    pool.east._judge = pool.west._judge = lambda _workflow, _task: 0
    async with engine(servers):
        await known(pool)
        names = await pool.east.submit(chain(3))
        await pool.east.wait(names)
        assert {cluster for cluster, _, _ in await pool.lies(names[0])} == {pool.east.cluster}


async def test_what_is_queued_in_a_silent_cluster_moves_and_old_attempts_are_dropped(
    servers: Servers, pool: Pool
) -> None:
    pool.east.starts = False
    async with engine(servers):
        await known(pool)
        (name,) = await pool.east.submit(chain(1))
        await pool.until(name, (pool.east, "SCHEDULING", 0))
        pool.silence(pool.east)
        await pool.until(name, (pool.west, "RUNNING", 1))
        pool.restore(pool.east)
        await eventually(lambda: _value(pool.east.stopped), [(name, "t0", 0)])
        await pool.until(name, (pool.west, "RUNNING", 1))


async def test_what_runs_in_a_silent_cluster_is_lost_only_after_its_time(
    servers: Servers, pool: Pool
) -> None:
    async with engine(servers, cluster_lost_seconds=3.0):
        await known(pool)
        (name,) = await pool.east.submit(chain(1))
        await pool.until(name, (pool.east, "RUNNING", 0))
        pool.silence(pool.east)
        await asyncio.sleep(1.5)
        pool.restore(pool.east)  # in time: nothing has changed
        await asyncio.sleep(2.5)
        await pool.until(name, (pool.east, "RUNNING", 0))
        pool.silence(pool.east)
        await pool.until(name, (pool.west, "RUNNING", 1))
        (reason,) = await pool.east.database.fetch(
            "SELECT message, status FROM engine.view_task WHERE workflow = $1 AND attempt = 0", name
        )
        assert reason["status"] == "RESCHEDULED"
        assert "is lost" in reason["message"]


async def test_an_engine_that_starts_gives_every_cluster_its_time(
    servers: Servers, pool: Pool
) -> None:
    pool.east.starts = False
    async with engine(servers):
        await known(pool)
        (name,) = await pool.east.submit(chain(1))
        await pool.until(name, (pool.east, "SCHEDULING", 0))
    async with engine(servers):
        await asyncio.sleep(1.5)
        await pool.until(name, (pool.east, "SCHEDULING", 0))


async def test_a_draining_cluster_ends_what_runs_and_gives_up_what_waits(
    servers: Servers, pool: Pool
) -> None:
    async with engine(servers):
        await known(pool)
        (running,) = await pool.east.submit(chain(1))
        await pool.until(running, (pool.east, "RUNNING", 0))
        pool.east.starts = False
        (queued,) = await pool.east.submit(chain(1))
        await pool.until(queued, (pool.east, "SCHEDULING", 0))
        assert (await pool.order(pool.east, ClusterAction.DRAIN)).state == "DRAINING"
        await pool.until(queued, (pool.west, "RUNNING", 1))
        await pool.until(running, (pool.east, "RUNNING", 0))
        (later,) = await pool.east.submit(chain(1))
        await pool.until(later, (pool.west, "RUNNING", 0))
        # With both draining, new work waits; with one back, it goes there at once.
        await pool.order(pool.west, ClusterAction.DRAIN)
        (held,) = await pool.east.submit(chain(1))
        await pool.until(held, (None, "PROCESSING", 0))
        await pool.order(pool.west, ClusterAction.RESUME)
        await pool.until(held, (pool.west, "RUNNING", 0))


async def test_a_cluster_is_removed_when_it_is_empty_or_by_force(
    servers: Servers, pool: Pool
) -> None:
    async with engine(servers):
        await known(pool)
        (name,) = await pool.east.submit(chain(1))
        await pool.until(name, (pool.east, "RUNNING", 0))
        assert (await pool.order(pool.east, ClusterAction.REMOVE)).open_attempts == 1
        assert (await pool.order(pool.east, ClusterAction.REMOVE, force=True)).state == "REMOVED"
        await pool.until(name, (pool.west, "RUNNING", 1))
        assert not (await pool.order(pool.east, ClusterAction.DRAIN)).known
        await pool.east.has(NodeInfo(name="n", cpu=64, memory=64 * GI, storage=64 * GI))
        await known(pool)


async def _value(value: Any) -> Any:
    return list(value)
