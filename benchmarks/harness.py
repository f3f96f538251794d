"""What benchmarks share: real servers, quantiles, and how a result is printed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def quantile(values: Sequence[float], q: float) -> float:
    """The q-quantile of a sample, by the nearest rank; NaN for an empty one."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else float("nan")


def memory_of(pid: int) -> int:
    """Resident memory of a process in bytes."""
    with Path(f"/proc/{pid}/statm").open() as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def most_memory_of(pid: int) -> int:
    """The most resident memory that a process has had, in bytes."""
    with Path(f"/proc/{pid}/status").open() as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM:"))


def cpu_seconds_of(pid: int) -> float:
    """Processor time that a process has used, its threads included."""
    with Path(f"/proc/{pid}/stat").open() as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def report(
    benchmark: str,
    figures: Mapping[str, Any],
    limits: Mapping[str, Any],
    peers: Mapping[str, Any] | None = None,
) -> None:
    """Print a table for people and, last, one JSON line for machines."""
    console = Console()
    table = Table("what", "figure", title=benchmark, title_justify="left")
    for heading, values in (("", figures), ("limit: ", limits), ("peer: ", peers or {})):
        for name, value in values.items():
            shown = f"{value:,.2f}" if isinstance(value, float) else f"{value:,}"
            table.add_row(heading + name.replace("_", " "), shown)
    console.print(table)
    line: dict[str, Any] = {
        "benchmark": benchmark,
        "figures": dict(figures),
        "limits": dict(limits),
        "peers": dict(peers or {}),
    }
    print(json.dumps(line))


@contextmanager
def running_servers(home: Path) -> Iterator[dict[str, str]]:
    """Start nats-server and PostgreSQL with their data below `home`; the settings to use them."""
    process = subprocess.Popen(
        [sys.executable, "-m", "cairn_standalone.servers", str(home)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())
    finally:
        process.communicate("")
