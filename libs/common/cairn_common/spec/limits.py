"""The bounds within which a workflow file is read: every one has a stated refusal."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class Limits:
    """What a file may cost and ask for.

    Sizes are bytes of UTF-8, times are seconds. `None` means no bound of that kind.

    max_bytes:          the file as sent
    max_rendered_bytes: the text after its templates were filled in
    max_nodes:          YAML nodes after aliases are expanded, which an alias bomb multiplies
    max_depth:          nesting of lists and mappings; the language itself needs 8
    max_iterations:     steps of all `range()` loops of a template together
    max_tasks:          tasks of one workflow
    max_problems:       problems reported of one file; a count stands for the rest
    max_exec_timeout, max_queue_timeout: the longest timeouts an installation grants
    """

    max_bytes: int = 8 * 1024 * 1024
    max_rendered_bytes: int = 32 * 1024 * 1024
    max_nodes: int = 4_000_000
    max_depth: int = 40
    max_iterations: int = 1_000_000
    max_tasks: int = 100_000
    max_problems: int = 100
    max_exec_timeout: float | None = None
    max_queue_timeout: float | None = None

    def to_wire(self) -> dict[str, Any]:
        """Only what differs from the defaults, to keep messages small."""
        mine = asdict(self)
        return {f.name: mine[f.name] for f in fields(self) if mine[f.name] != f.default}
