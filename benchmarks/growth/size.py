"""What a task costs in a workflow of a thousand tasks, and of a hundred thousand."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from itertools import pairwise

from nats.aio.msg import Msg

from benchmarks.engine.__main__ import NULL_BRIDGE, process
from benchmarks.engine.load import Load
from benchmarks.engine.null_bridge import NullBridge
from benchmarks.growth.shapes import gang
from benchmarks.harness import cpu_seconds_of, memory_of


@dataclass(frozen=True, slots=True)
class Cost:
    """Microseconds for each task: on the wall, and of the engine's processor time."""

    wall: float
    cpu: float


async def cost(settings: dict[str, str], text: str, tasks: int, workflows: int, each: int) -> Cost:
    """Run workflows of `tasks` tasks, `each` at once until all are done."""
    with process(settings, "-m", "cairn_engine") as engine:
        async with Load(settings) as load:
            with process(settings, str(NULL_BRIDGE), settings["CAIRN_NATS_URL"]):
                await load.run(gang(10), 20)  # warm: connections, plans, caches
                before = cpu_seconds_of(engine.pid)
                wall = 0.0
                for start in range(0, workflows, each):
                    wall += await load.run(text, min(each, workflows - start))
                used = cpu_seconds_of(engine.pid) - before
    done = workflows * tasks
    return Cost(1e6 * wall / done, 1e6 * used / done)


async def waiting_bytes(settings: dict[str, str], text: str, tasks: int) -> tuple[float, float]:
    """Bytes that the engine's memory grows by for each task that waits.

    The first of two equal workflows also leaves what reading it took once, and Python keeps for
    the next; what the second one adds is what waiting takes.
    """
    with process(settings, "-m", "cairn_engine") as engine:
        async with Load(settings) as load, NullBridge(settings["CAIRN_NATS_URL"]) as bridge:
            await load.run(gang(10), 20)
            bridge.mute = True
            sizes = [memory_of(engine.pid)]
            names: list[str] = []
            for _ in range(2):
                names += await load.submit(text, 1)
                await load.wait_until_stored(names)
                await asyncio.sleep(1)  # what was stored is still being dropped from memory
                sizes.append(memory_of(engine.pid))
            bridge.mute = False
            await load.cancel(names)
            await load.wait(names)
    first, second = ((after - before) / tasks for before, after in pairwise(sizes))
    return max(0.0, first), max(0.0, second)


async def gang_seconds(settings: dict[str, str], tasks: int) -> tuple[float, float]:
    """From a group's submission to its placement's arrival at a bridge, and to all accepted."""
    with process(settings, "-m", "cairn_engine"):
        async with Load(settings) as load, NullBridge(settings["CAIRN_NATS_URL"]):
            await load.run(gang(10), 20)
            arrived: asyncio.Future[float] = asyncio.get_running_loop().create_future()

            async def note(_: Msg) -> None:
                if not arrived.done():
                    arrived.set_result(time.perf_counter())

            heard = await load.bus.client.subscribe("task.ready.>", cb=note)
            await load.bus.client.flush()
            started = time.perf_counter()
            names = await load.submit(gang(tasks), 1)
            ready = await arrived
            while (
                await load.database.fetchval(
                    "SELECT count(*) FROM engine.task"
                    " WHERE workflow = $1 AND scheduling_at IS NOT NULL",
                    names[0],
                )
                < tasks
            ):
                await asyncio.sleep(0.005)
            accepted = time.perf_counter()
            await load.wait(names)
            await heard.unsubscribe()
    return ready - started, accepted - started
