"""What a run comes to: tables for people, one line for machines."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .checker import Kind, Violation, count


@dataclass(slots=True)
class Injection:
    """A fault and how long recovery took; None: it never was."""

    fault: str
    at: float
    recovered: float | None


@dataclass(slots=True)
class Outcome:
    """All that is to be said about a run."""

    seed: int
    minutes: float
    workflows: int
    least: int | None = None
    ended: int = 0
    attempts: int = 0
    shapes: dict[str, int] = field(default_factory=dict)
    injections: list[Injection] = field(default_factory=list)
    idle: list[float] = field(default_factory=list)
    """What the probe took where nothing was broken."""
    violations: list[Violation] = field(default_factory=list)
    left: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    drained: float | None = None
    """Seconds from the last fault until every workflow had ended; None: not all did."""

    @property
    def good(self) -> bool:
        """0 lost, 0 doubled, 0 stuck, 0 wrong, all over in time, recovered every time."""
        recovered = all(injection.recovered is not None for injection in self.injections)
        over = self.drained is not None and not any(self.left.values())
        return not self.violations and over and recovered

    def tables(self) -> str:
        """For people."""
        times = self.by_fault()
        rows = [("fault", "times", "recovered in p50", "max")]
        for fault in sorted(times):
            known = [time for time in times[fault] if time is not None]
            never = len(times[fault]) - len(known)
            rows.append(
                (
                    fault,
                    str(len(times[fault])),
                    f"{statistics.median(known):.1f} s" if known else "-",
                    f"never ({never})" if never else f"{max(known):.1f} s",
                )
            )
        if self.idle:
            slowest = f"{max(self.idle):.1f} s"
            rows.append(
                (
                    "(no fault)",
                    str(len(self.idle)),
                    f"{statistics.median(self.idle):.1f} s",
                    slowest,
                )
            )
        lines = [_align(rows), ""]
        lines += [f"skipped: {fault}: {reason}" for fault, reason in self.skipped.items()]
        kinds = count(self.violations)
        drained = "not all ended" if self.drained is None else f"{self.drained:.0f} s"
        wanted = f"{self.workflows} workflows wanted under way, never fewer than {self.least}"
        ran = f"{self.ended} workflows ended, {self.attempts} attempts ran"
        lines += [
            f"seed {self.seed}, {self.minutes:g} minutes, {wanted}",
            f"{ran}, {len(self.injections)} faults, all over {drained} after the last one",
            "shapes: " + ", ".join(f"{name} {n}" for name, n in sorted(self.shapes.items())),
            "left undone: "
            + (", ".join(f"{n} {name}" for name, n in self.left.items() if n) or "0"),
            "verdict: " + ", ".join(f"{n} {kind}" for kind, n in kinds.items()),
        ]
        return "\n".join(lines)

    def by_fault(self) -> dict[str, list[float | None]]:
        """Recovery times by the fault's name."""
        times: dict[str, list[float | None]] = {}
        for injection in self.injections:
            times.setdefault(injection.fault, []).append(injection.recovered)
        return times

    def machine(self) -> str:
        """One line of JSON."""
        figures: dict[str, Any] = {
            **count(self.violations),
            "left": self.left,
            "faults": len(self.injections),
            "workflows_ended": self.ended,
            "attempts": self.attempts,
            "least_under_way": self.least,
            "drained_seconds": self.drained and round(self.drained, 1),
            "recovered_seconds": {
                fault: _summary(times) for fault, times in sorted(self.by_fault().items())
            },
        }
        limits = {kind.value: 0 for kind in Kind}
        return json.dumps(
            {
                "benchmark": "chaos",
                "seed": self.seed,
                "minutes": self.minutes,
                "good": self.good,
                "figures": figures,
                "limits": limits,
                "peers": {},
            }
        )


def _summary(times: Sequence[float | None]) -> Mapping[str, float | int | None]:
    known = [time for time in times if time is not None]
    return {
        "times": len(times),
        "p50": round(statistics.median(known), 2) if known else None,
        "max": round(max(known), 2) if len(known) == len(times) else None,
    }


def _align(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
