"""Workflow files of one shape and any size."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

ROW = 50
"""Tasks beside each other in a lattice, whatever its size: its parallelism does not grow."""


def lattice(tasks: int) -> str:
    """Rows of `ROW` tasks; each needs its neighbours above and above right, as diamonds touch.

    Args:
        tasks: how many; a multiple of `ROW`.
    """
    if tasks % ROW:
        raise ValueError(f"{tasks} tasks do not fill rows of {ROW}")
    return _file((f"t{i}", needs_of(i)) for i in range(tasks))


def needs_of(index: int) -> Sequence[str]:
    """The tasks that a task of a lattice needs."""
    row, column = divmod(index, ROW)
    if not row:
        return ()
    above = (row - 1) * ROW
    return (f"t{above + column}", f"t{above + (column + 1) % ROW}")


def gang(tasks: int) -> str:
    """One group of tasks that start together."""
    members = [
        {"name": f"t{i}", "image": "x", "command": ["true"], "lead": i == 0} for i in range(tasks)
    ]
    # Every JSON is YAML.
    return json.dumps({"workflow": {"name": "b", "groups": [{"name": "gang", "tasks": members}]}})


def _file(tasks: Iterable[tuple[str, Sequence[str]]]) -> str:
    lines = ["workflow:", "  name: b", "  tasks:"]
    for name, needs in tasks:
        # Without spaces that nobody needs: a hundred thousand tasks must fit in 8 MiB.
        inputs = ",".join(f"{{task: {one}}}" for one in needs)
        lines.append(f"  - {{name: {name},image: x,command: [a],inputs: [{inputs}]}}")
    return "\n".join(lines)
