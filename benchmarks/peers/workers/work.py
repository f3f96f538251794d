"""The work that every system does, and the clock around it.

This file is read by the benchmark and by the program that drives each peer in an environment of
its own, so it needs the standard library only. A driver prints one line of JSON, a `Measured`.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass

TASKS_OF_A_CHAIN = 3
WIDTH = 100
"""Tasks of a fan-out that run beside each other, after one source."""


@dataclass(frozen=True, slots=True)
class Work:
    """How much of each kind is done.

    Attributes:
        chains: chains of three tasks, one after the other, for the latency.
        burst: chains that are submitted at once, for the throughput.
        fans: fan-outs of one and then `WIDTH` tasks, one after the other.
    """

    chains: int
    burst: int
    fans: int

    @classmethod
    def from_arguments(cls) -> Work:
        """What the command line's last argument says, in JSON."""
        return cls(**json.loads(sys.argv[-1]))


@dataclass(frozen=True, slots=True)
class Measured:
    """Seconds: of each chain, of the whole burst, of each fan-out."""

    chains: list[float]
    burst: float
    fans: list[float]

    def tell(self) -> None:
        """Print it as the driver's last line."""
        print(json.dumps(asdict(self)), flush=True)


async def measure(
    work: Work,
    chain: Callable[[], Awaitable[object]],
    fan: Callable[[], Awaitable[object]],
) -> Measured:
    """Time `chain` and `fan`, each of which submits once and returns when all of it is done.

    Both run a few times before the clock starts: connections, caches and imports are not measured.
    """
    for _ in range(3):
        await chain()
    await fan()
    chains = [await _timed(chain) for _ in range(work.chains)]
    started = time.perf_counter()
    await asyncio.gather(*(chain() for _ in range(work.burst)))
    burst = time.perf_counter() - started
    fans = [await _timed(fan) for _ in range(work.fans)]
    return Measured(chains, burst, fans)


def end(process: subprocess.Popen[bytes], patience: float = 20.0) -> None:
    """End a process, by force where it does not end by itself."""
    process.terminate()
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


async def _timed(act: Callable[[], Awaitable[object]]) -> float:
    started = time.perf_counter()
    await act()
    return time.perf_counter() - started
