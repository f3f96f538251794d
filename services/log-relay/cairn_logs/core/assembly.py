"""Putting the logs of one workflow together, whatever order and number of copies they come in.

Lines are numbered without a gap within an attempt. A line that comes twice is taken once. A line
that comes too early (one before it was lost on the bus) is not taken at all: the bridge is asked
to send again from the missing number, which costs a resend and needs no memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from cairn_common.events import LogLine

AttemptId = tuple[int, int]
"""Task index and attempt."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What an event brings: lines to append, and whether the attempt's log is whole with them.

    `missing` is the number of the first line that has to be asked for, if there is one.
    """

    lines: Sequence[LogLine]
    whole: bool
    missing: int | None


@dataclass(slots=True)
class Assembly:
    """How far the logs of one workflow have come."""

    next_seq: dict[AttemptId, int] = field(default_factory=dict)
    whole: set[AttemptId] = field(default_factory=set)

    def take(self, attempt: AttemptId, lines: Sequence[LogLine], *, final: bool) -> Taken:
        """Take an event's lines in.

        Args:
            attempt: whose lines they are.
            lines: in order.
            final: whether the last of them is the attempt's last line; whoever sends it sends
                that line along, so that a loss before it is seen.
        """
        expected = self.next_seq.get(attempt, 0)
        new: list[LogLine] = []
        missing: int | None = None
        for line in lines:
            if line.seq > expected:
                missing = expected
                break
            if line.seq == expected:
                new.append(line)
                expected += 1
        if new:
            self.next_seq[attempt] = expected
        whole = final and missing is None
        if whole:
            self.whole.add(attempt)
        return Taken(new, whole, missing)

    def restore(self, attempts: Iterable[tuple[AttemptId, int, bool]]) -> None:
        """Go on where an archive file stopped: attempt, its next number, whether it is whole."""
        for attempt, next_seq, whole in attempts:
            self.next_seq[attempt] = max(next_seq, self.next_seq.get(attempt, 0))
            if whole:
                self.whole.add(attempt)
