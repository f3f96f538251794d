"""Lines of a log file as events, in pieces that one message carries."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor
from datetime import UTC, datetime

from cairn_bridge.cluster import AttemptKey, Reporter
from cairn_common.events import LogLine
from cairn_runtime.logfile import Line, Reader
from cairn_runtime.room import Room

LINES_AT_ONCE = 500
BYTES_AT_ONCE = 256 * 1024
"""Of one call of `Reporter.log`: less than what one message of the bus carries."""


def batches(lines: Sequence[Line], from_seq: int = 0) -> list[list[LogLine]]:
    """Lines as events, from a number on, in pieces that fit a message."""
    found: list[list[LogLine]] = []
    piece: list[LogLine] = []
    size = 0
    moment, at = -1.0, datetime.now(UTC)
    for line in lines:
        if line.seq < from_seq:
            continue
        if line.at != moment:
            moment, at = line.at, datetime.fromtimestamp(line.at, UTC)
        if len(piece) >= LINES_AT_ONCE or size + len(line.text) > BYTES_AT_ONCE:
            found.append(piece)
            piece, size = [], 0
        piece.append(LogLine(seq=line.seq, at=at, stream=line.stream, text=line.text))
        size += len(line.text)
    if piece:
        found.append(piece)
    return found


async def report_whole(
    key: AttemptKey, room: Room, from_seq: int, reporter: Reporter, executor: Executor
) -> int:
    """Reports the log of an ended attempt, from a line on; returns its number of lines.

    The last line is always among what is reported, or nobody would notice that it was lost.
    """
    loop = asyncio.get_running_loop()
    reader = Reader(room.log)
    await loop.run_in_executor(executor, reader.skip_to, max(0, from_seq - 1))
    held: list[LogLine] = []
    last: Sequence[Line] = ()
    while lines := await loop.run_in_executor(executor, reader.read):
        last = lines[-1:]
        for batch in batches(lines, from_seq):
            if held:
                await reporter.log(key, held, final=False)
            held = batch
    if not held and last:
        (held,) = batches(last)
    await reporter.log(key, held, final=True)
    return reader.position.seq


def count(room: Room) -> int:
    """How many lines a log has. Blocks for a moment."""
    reader = Reader(room.log)
    reader.skip_to(1 << 62)
    return reader.position.seq
