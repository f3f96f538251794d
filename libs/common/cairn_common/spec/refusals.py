"""The refusals of a file as a whole: too large, too slow, too hungry. None has a position."""

from __future__ import annotations

from cairn_common.spec.limits import Limits
from cairn_common.spec.problems import ErrorCode, Problem


def too_large(limits: Limits, file: str) -> Problem:
    """More bytes than the limits allow."""
    return Problem(
        f"the file has more than {limits.max_bytes:,} bytes",
        code=ErrorCode.USAGE,
        hint="Keep data out of the workflow file: use inputs, or files in the image.",
        file=file,
    )


def too_slow(seconds: float, file: str) -> Problem:
    """Still not read after its deadline."""
    return Problem(
        f"reading the file took longer than {seconds:.1f} s",
        code=ErrorCode.USAGE,
        hint="Check the loops of its templates.",
        file=file,
    )


def too_much_memory(file: str) -> Problem:
    """More memory than its size explains."""
    return Problem(
        "the file needs too much memory to read",
        code=ErrorCode.USAGE,
        hint="Check its templates for loops and repeated texts, and its YAML for nested aliases.",
        file=file,
    )
