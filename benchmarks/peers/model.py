"""What is said about a system, and what was measured of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from benchmarks.harness import quantile
from benchmarks.peers.workers.work import TASKS_OF_A_CHAIN, WIDTH, Measured, Work


class PeerMissingError(Exception):
    """A peer cannot be installed or started here; the text says why."""


@dataclass(frozen=True, slots=True)
class System:
    """A system as it is set up here.

    Attributes:
        name: what it is called in the table.
        version: of what is measured.
        task: what a no-op task is: a process, or a function in a worker.
        state: where its state lies.
        processes: what runs, besides the client that submits.
    """

    name: str
    version: str
    task: str
    state: str
    processes: str


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table: a system, and its figures or why there are none."""

    system: System
    work: Work
    measured: Measured | None = None
    reason: str = ""

    def figures(self) -> dict[str, Any]:
        """By name, in the units that the names say."""
        if self.measured is None:
            return {"missing": self.reason}
        fan = quantile(self.measured.fans, 0.5)
        return {
            "chain_p50_ms": round(1000 * quantile(self.measured.chains, 0.5), 1),
            "chain_p99_ms": round(1000 * quantile(self.measured.chains, 0.99), 1),
            "burst_tasks_per_second": round(
                TASKS_OF_A_CHAIN * self.work.burst / self.measured.burst, 1
            ),
            "fan_p50_ms": round(1000 * fan, 1),
            "fan_tasks_per_second": round((1 + WIDTH) / fan, 1),
        }

    def facts(self) -> dict[str, Any]:
        """How it was set up, and how much it did."""
        return {
            "version": self.system.version,
            "task": self.system.task,
            "state": self.system.state,
            "processes": self.system.processes,
            "chains": self.work.chains,
            "burst": self.work.burst,
            "fans": self.work.fans,
        }
