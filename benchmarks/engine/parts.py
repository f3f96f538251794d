"""Where the processor time goes: seconds that each part of a running system has used."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

_NAMES: Mapping[bytes, str] = {
    b"cairn_engine": "engine",
    b"null_bridge": "null_cluster",
    b"nats-server": "nats",
    b"postgres": "postgresql",
}


def cpu_by_part() -> dict[str, float]:
    """Seconds by part, of all processes below this one; what submits and waits is "load"."""
    used = dict.fromkeys(_NAMES.values(), 0.0)
    for pid in _below(os.getpid()):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        for word, name in _NAMES.items():
            if word in command:
                ticks = int(fields[11]) + int(fields[12])
                used[name] += ticks / os.sysconf("SC_CLK_TCK")
                break
    own = os.times()
    return used | {"load": own.user + own.system}


def _below(pid: int) -> Iterator[int]:
    for thread in Path(f"/proc/{pid}/task").iterdir():
        for child in (thread / "children").read_text().split():
            yield int(child)
            try:
                yield from _below(int(child))
            except OSError:
                continue
