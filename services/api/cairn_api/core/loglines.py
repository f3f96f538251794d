"""Log lines as the reference's client prints them (CONTRACT B, log line format).

`YYYY/MM/DD HH:MM:SS [task] text`, in UTC; `[task retry-2]` in a later attempt, and a second
bracket on lines that the system itself adds. That bracket says `[osmo]`, because parsers of
the reference's users look for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from cairn_common.requests import LogRecord

TIME_FORMAT = "%Y/%m/%d %H:%M:%S"


def stamp(at: datetime) -> str:
    """The time of a line."""
    return at.astimezone(UTC).strftime(TIME_FORMAT)


def whose(task: str, attempt: int) -> str:
    """The bracket that names an attempt."""
    return f"[{task} retry-{attempt}]" if attempt else f"[{task}]"


def format_page(records: Iterable[LogRecord]) -> bytes:
    """Lines, each with its end."""
    return "".join(
        f"{stamp(record.at)} {whose(record.task, record.attempt)}"
        f"{'[osmo]' if record.stream == 'cairn' else ''} {record.text}\n"
        for record in records
    ).encode(errors="replace")
