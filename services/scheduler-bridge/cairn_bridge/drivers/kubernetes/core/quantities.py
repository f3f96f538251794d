"""Kubernetes quantities as integers.

Source: Kubernetes API, `Quantity`: decimal and binary suffixes, milli and exponents. Workflow
files have another notation (`cairn_common.spec.units`), in which 1G is 1Gi.
"""

from __future__ import annotations

import re
from fractions import Fraction
from math import ceil
from typing import Any

_QUANTITY = re.compile(r"([+-]?\d+(?:\.\d*)?|[+-]?\.\d+)(?:([eE][+-]?\d+)|([A-Za-z]{0,2}))")
_SUFFIXES = {
    "": Fraction(1),
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 1000),
    "k": Fraction(10**3),
    "M": Fraction(10**6),
    "G": Fraction(10**9),
    "T": Fraction(10**12),
    "P": Fraction(10**15),
    "E": Fraction(10**18),
    "Ki": Fraction(1 << 10),
    "Mi": Fraction(1 << 20),
    "Gi": Fraction(1 << 30),
    "Ti": Fraction(1 << 40),
    "Pi": Fraction(1 << 50),
    "Ei": Fraction(1 << 60),
}


def parse(value: Any) -> Fraction:
    """A quantity as Kubernetes writes it.

    Raises:
        ValueError: it is none.
    """
    match = _QUANTITY.fullmatch(str(value).strip())
    if match is None or (match[3] or "") not in _SUFFIXES:
        raise ValueError(f"{value!r} is no quantity")
    number = Fraction(match[1])
    if match[2]:
        return number * Fraction(f"1{match[2]}")
    return number * _SUFFIXES[match[3] or ""]


def whole(value: Any, otherwise: int = 0) -> int:
    """A quantity rounded up to an integer; `otherwise` where there is none."""
    if value is None:
        return otherwise
    return ceil(parse(value))
