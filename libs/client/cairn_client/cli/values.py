"""What people type and read: pairs, moments, durations."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import typer

_AGO = re.compile(r"(\d+)\s*([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def pairs(given: Sequence[str] | None, option: str) -> dict[str, object]:
    """`key=value` arguments. What stands last wins."""
    found: dict[str, object] = {}
    for item in given or ():
        key, separator, value = item.partition("=")
        if not separator or not key:
            raise typer.BadParameter(f"{item!r} is not KEY=VALUE", param_hint=option)
        found[key] = value
    return found


def moment(text: str) -> datetime:
    """A point in time: `2026-08-01`, `2026-08-01T12:00`, or `3h` for three hours ago.

    Without an offset it is this machine's local time.
    """
    ago = _AGO.fullmatch(text.strip())
    if ago is not None:
        try:
            return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        except OverflowError:
            raise typer.BadParameter(f"{text!r} is before all time") from None
    try:
        return datetime.fromisoformat(text.strip()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            f"{text!r} is no time: write 2026-08-01, 2026-08-01T12:00 or 3h (ago)"
        ) from None


def local(at: datetime | None) -> str:
    """A moment in local time, for people."""
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S") if at else "-"


def duration(seconds: float | None) -> str:
    """`0.4s`, `12s`, `3m05s`, `2h07m`, `4d03h`."""
    if seconds is None:
        return "-"
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days}d{hour:02}h"
    if hours:
        return f"{hours}h{minute:02}m"
    return f"{minutes}m{second:02}s" if minutes else f"{second}s"
