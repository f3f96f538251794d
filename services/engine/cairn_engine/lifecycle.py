# ruff: noqa: E501 - a sentence of the page is a line
"""Writes `docs/lifecycle.md` from the tables that the core decides by.

python -m cairn_engine.lifecycle > docs/lifecycle.md
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from cairn_common.status import TaskStatus
from cairn_engine.core.outcome import MEANING, Meaning
from cairn_engine.core.transitions import GROUPS, TASKS, WORKFLOWS, TaskRow, WorkflowRow

_INTRODUCTION = """\
# The life of a workflow

This page is made from the engine's own tables by `make lifecycle`; do not edit it.

The engine changes a status along one of these rows or not at all.
Of two facts that come in the wrong order the later one counts, and what it implies is taken for granted.
A fact about an attempt that has ended changes nothing.
"""
_TASKS = """
## An attempt of a task

RESCHEDULED ends an attempt, and its task goes on as the next one.
"""
_GROUPS = """
## A group

Of a group's tasks the lead counts; with `ignoreNonleadStatus: false` all of them count, any failure ends the group, and an attempt that is rescheduled starts all of them again together.
"""
_WORKFLOWS = """
## A workflow
"""
_ENDS = """
## What an attempt's end means

A task's `exitActions` stand before its pool's, and both before this table; they go by the exit code, the service's own included.
An attempt is tried again with exponential back-off, at most `maxRetries` times: the task's own, else its pool's, else `CAIRN_MAX_RETRIES`.
RESTART runs the command again in its place, within the same attempt, as often.
"""


def document() -> str:
    """The page."""
    return "".join(
        (
            _INTRODUCTION,
            _TASKS,
            _changes(TASKS),
            _GROUPS,
            _changes(GROUPS),
            _WORKFLOWS,
            _changes(WORKFLOWS),
            _ENDS,
            _table(
                ("the cluster says", "status", "exit code", "tried again"),
                ((reason.value, *_meaning(meaning)) for reason, meaning in MEANING.items()),
            ),
        )
    )


def _changes(rows: Sequence[TaskRow] | Sequence[WorkflowRow]) -> str:
    return _table(
        ("from", "to", "when"),
        ((", ".join(row.sources), row.target.value, row.when) for row in rows),
    )


def _meaning(meaning: Meaning) -> tuple[str, str, str]:
    code = "the command's" if meaning.exit_code is None else str(meaning.exit_code)
    status = meaning.status.value
    if meaning.status is TaskStatus.FAILED and meaning.exit_code is None:
        status = "COMPLETED if it is 0, else FAILED"
    return status, code, "yes" if meaning.retry else "no"


def _table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    sys.stdout.write(document())
