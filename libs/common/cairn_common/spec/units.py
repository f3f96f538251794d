"""Durations, quantities and exit codes as people write them in a workflow file.

Each notation has one parser and one formatter, and `parse(format(x)) == x`: a specification can
be stored as text and read again without drift. Parsers raise ValueError with the message OSMO's
users know (CONTRACT E.2), since pydantic turns a ValueError into a located problem.
"""

from __future__ import annotations

import re
from datetime import timedelta
from fractions import Fraction

_DURATION_UNITS = {
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
    "ms": timedelta(milliseconds=1),
    "us": timedelta(microseconds=1),
}
_SHORT_DURATION = re.compile(r"(\d+)(d|h|m|s|ms|us)", re.ASCII)
_NUMBER = re.compile(r"\d+(\.\d+)?", re.ASCII)
_ISO_DURATION = re.compile(
    r"P(?!$)(?:(?P<weeks>\d+(?:\.\d+)?)W)?(?:(?P<days>\d+(?:\.\d+)?)D)?"
    r"(?:T(?!$)(?:(?P<hours>\d+(?:\.\d+)?)H)?(?:(?P<minutes>\d+(?:\.\d+)?)M)?"
    r"(?:(?P<seconds>\d+(?:\.\d+)?)S)?)?",
    re.ASCII,
)
# Generous for any workflow, and far from where timedelta or a database column overflows.
MAX_DURATION = timedelta(days=365 * 100)
_MAX_DIGITS = 30

_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", re.ASCII)
# OSMO reads decimal units as binary ones: 1G is 1Gi.
_QUANTITY_UNITS = {
    "": Fraction(1),
    "B": Fraction(1),
    "m": Fraction(1, 1000),
    "K": Fraction(1 << 10),
    "Ki": Fraction(1 << 10),
    "M": Fraction(1 << 20),
    "Mi": Fraction(1 << 20),
    "G": Fraction(1 << 30),
    "Gi": Fraction(1 << 30),
    "T": Fraction(1 << 40),
    "Ti": Fraction(1 << 40),
}
MAX_QUANTITY = 1 << 62

ExitCodes = tuple[tuple[int, int], ...]
"""Sorted inclusive ranges that do not touch, e.g. `((0, 0), (11, 20))`."""
MAX_EXIT_CODE = 65535
_EXIT_CODE = re.compile(r"\s*(\d{1,5})\s*(?:-\s*(\d{1,5})\s*)?", re.ASCII)


def parse_duration(value: object) -> timedelta:
    """Read `10m`, `90` (seconds), `1.5` (seconds) or ISO 8601 `PT10S`.

    Raises ValueError when the notation is unknown, negative or beyond `MAX_DURATION`.
    """
    if isinstance(value, timedelta):
        duration = value
    elif isinstance(value, (int, float, str)) and not isinstance(value, bool):
        duration = _parse_duration_text(str(value).strip())
    else:
        raise ValueError(_unknown_duration(value))
    if not timedelta(0) <= duration <= MAX_DURATION:
        raise ValueError(f"Duration {value} is out of range: it must be between 0 and 100 years.")
    return duration


def _parse_duration_text(text: str) -> timedelta:
    if len(text) > _MAX_DIGITS:
        raise ValueError(_unknown_duration(text))
    try:
        if match := _SHORT_DURATION.fullmatch(text):
            return int(match[1]) * _DURATION_UNITS[match[2]]
        if _NUMBER.fullmatch(text):
            return _exact(Fraction(text))
        if match := _ISO_DURATION.fullmatch(text):
            parts = {unit: Fraction(n) for unit, n in match.groupdict().items() if n}
            seconds = (
                parts.get("weeks", Fraction(0)) * 604_800
                + parts.get("days", Fraction(0)) * 86_400
                + parts.get("hours", Fraction(0)) * 3_600
                + parts.get("minutes", Fraction(0)) * 60
                + parts.get("seconds", Fraction(0))
            )
            return _exact(seconds)
    except OverflowError:
        raise ValueError(f"Duration {text} is out of range: it must be below 100 years.") from None
    raise ValueError(_unknown_duration(text))


def _exact(seconds: Fraction) -> timedelta:
    """Seconds to the nearest microsecond; float arithmetic would drift on round trips."""
    return timedelta(microseconds=round(seconds * 1_000_000))


def _unknown_duration(value: object) -> str:
    return (
        f"Cannot recognize duration: {value}. "
        "Only support ISO 8601 (e.g. PT10S) or xd, xh, xm, xs, xms, xus"
    )


def format_duration(duration: timedelta) -> str:
    """The shortest exact notation: one number with the largest unit that divides it."""
    micros = duration // timedelta(microseconds=1)
    for unit, size in _DURATION_UNITS.items():
        step = size // timedelta(microseconds=1)
        if micros % step == 0:
            return f"{micros // step}{unit}" if micros else "0s"
    raise AssertionError("microseconds divide every timedelta")


def parse_quantity(value: object, field: str = "memory") -> int:
    """Read `4Gi`, `512M` or a bare number of bytes; the result is whole bytes, rounded up.

    Raises ValueError when the unit is unknown or the number is not a plain decimal.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(f"Resource {field} field must be an amount such as 4Gi or 512Mi.")
    text = str(value).strip()
    match = _QUANTITY.fullmatch(text) if len(text) <= _MAX_DIGITS else None
    if match is None:
        raise ValueError(
            f"Resource {field} field has an invalid amount: {text[:40]}. "
            "Write a number and a unit, such as 4Gi or 512Mi."
        )
    number, unit = match.groups()
    if unit not in _QUANTITY_UNITS:
        raise ValueError(f"Resource {field} field has invalid unit: {unit}")
    size = -(-(Fraction(number) * _QUANTITY_UNITS[unit]) // 1)
    if size > MAX_QUANTITY:
        raise ValueError(f"Resource {field} field is out of range: {text}")
    return int(size)


def format_quantity(size: int) -> str:
    """Bytes as the largest binary unit that divides them exactly: `4Gi`, `1536Mi`, `1000`."""
    for unit, shift in (("Ti", 40), ("Gi", 30), ("Mi", 20), ("Ki", 10)):
        if size and size % (1 << shift) == 0:
            return f"{size >> shift}{unit}"
    return str(size)


def parse_exit_codes(value: object) -> ExitCodes:
    """Read `0,2-5` (or a single number) into sorted, merged inclusive ranges.

    Raises ValueError for anything else, for a range that runs backwards and for codes beyond 65535.
    """
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise ValueError("exit codes are written as numbers and ranges, such as 0,2-5")
    ranges: list[tuple[int, int]] = []
    for part in str(value).split(","):
        match = _EXIT_CODE.fullmatch(part)
        low, high = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if low > high or high > MAX_EXIT_CODE:
            raise ValueError("exit codes are written as numbers and ranges, such as 0,2-5")
        ranges.append((low, high))
    ranges.sort()
    merged = [ranges[0]]
    for low, high in ranges[1:]:
        if low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return tuple(merged)


def format_exit_codes(codes: ExitCodes) -> str:
    """`((0, 0), (2, 5))` -> `0,2-5`."""
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in codes)
