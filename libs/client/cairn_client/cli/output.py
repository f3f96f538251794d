"""What is written where.

Results go to standard output, everything else to standard error, so `cairn ... -t json | jq` always
works. Colours and drawn tables are for terminals; a pipe gets plain columns that are never cut.
Simple colouring is done here without rich, which a log line should not wait for.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Sequence
from enum import StrEnum
from typing import IO, Annotated, Any

import typer


class Format(StrEnum):
    """How a result is written."""

    TEXT = "text"
    JSON = "json"


FormatOption = Annotated[
    Format, typer.Option("--format-type", "-t", case_sensitive=False, help="Form of the result.")
]


class Style(StrEnum):
    """Terminal styles, as the numbers that select them; rich understands `rich_name`."""

    STRONG = "1"
    DIM = "2"
    ERROR = "1;31"
    GOOD = "32"
    BAD = "31"
    BUSY = "36"
    WAIT = "33"

    @property
    def rich_name(self) -> str:
        """The same style in rich's words."""
        return _RICH[self]


_RICH = {
    Style.STRONG: "bold",
    Style.DIM: "dim",
    Style.ERROR: "bold red",
    Style.GOOD: "green",
    Style.BAD: "red",
    Style.BUSY: "cyan",
    Style.WAIT: "yellow",
}
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
_STATUS_STYLES = {
    "COMPLETED": Style.GOOD,
    "RUNNING": Style.BUSY,
    "INITIALIZING": Style.BUSY,
    "SCHEDULING": Style.WAIT,
    "PROCESSING": Style.WAIT,
    "RESCHEDULED": Style.WAIT,
}


def style_of(status: str) -> Style:
    """The style of a status."""
    if status.startswith("FAILED"):
        return Style.BAD
    return _STATUS_STYLES.get(status, Style.DIM)


def has_colours(stream: IO[str]) -> bool:
    """Whether a stream is a terminal that wants colours (see no-color.org)."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return stream.isatty()


def paint(text: str, style: str, stream: IO[str] | None = None) -> str:
    """The text in a style, where the stream (standard output by default) shows styles."""
    return f"\x1b[{style}m{text}\x1b[0m" if has_colours(stream or sys.stdout) else text


def say(text: str) -> None:
    """A line of the result."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """A line for the person who waits, not part of the result."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def warn(warnings: Sequence[str]) -> None:
    """Warnings of the server."""
    for warning in warnings:
        note(paint("Warning: ", Style.WAIT, sys.stderr) + warning)


def say_json(value: Any) -> None:
    """The result as one JSON document."""
    say(json.dumps(value, indent=2 if sys.stdout.isatty() else None, ensure_ascii=False))


def clean(text: str | None) -> str:
    """Text of others on one line, without what would move a terminal's cursor."""
    return _CONTROLS.sub(" ", text or "").strip()


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    status: int | None = None,
    right: Sequence[int] = (),
) -> None:
    """A table as the result. `status` is the column of statuses, `right` are those of numbers."""
    if not sys.stdout.isatty():
        _plain_table(head, rows, right)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for index, title in enumerate(head):
        drawn.add_column(
            title,
            justify="right" if index in right else "left",
            no_wrap=index != len(head) - 1,
            overflow="fold",
        )
    for row in rows:
        drawn.add_row(
            *(
                Text(cell, style_of(cell).rich_name if index == status else "")
                for index, cell in enumerate(row)
            )
        )
    Console(highlight=False).print(drawn)


def _plain_table(head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int]) -> None:
    lines = [head, *rows]
    widths = [max(len(line[index]) for line in lines) for index in range(len(head))]
    for line in lines:
        cells = (
            cell.rjust(width) if index in right else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        say("  ".join(cells).rstrip())
