"""The log of an attempt: frames of whole lines, appended as they come.

A program may write a hundred thousand lines in a second, so nothing here is done line by line
while it runs: what one read of the pipe brought is cut after its last newline and written as one
frame, whose header says the number of its first line, how many there are and when they came. All
lines of a frame share that time. Decoding is left to who reads the log.

A frame that is cut short (the shim or the machine died within a write) is not there: a reader
ends before it.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

Stream = Literal["stdout", "stderr", "cairn"]
STREAMS: tuple[Stream, ...] = ("stdout", "stderr", "cairn")
STDOUT, STDERR, CAIRN = range(3)

LINE_LIMIT = 64 * 1024
"""Bytes; a longer line is cut into lines of this size."""

PARTIAL_SECONDS = 1.0
"""How long the beginning of a line waits for its end before it is logged as a line. Shorter would
cut the lines of a program that is merely slow; longer would hide what it waits for."""

_HEADER = struct.Struct("<2sBxIIQQ")  # magic, stream, lines, bytes, microseconds, first number
_MAGIC = b"CL"


class Line(NamedTuple):
    """One line of a log; `at` in seconds since the epoch."""

    seq: int
    at: float
    stream: Stream
    text: str


class Splitter:
    """Cuts one stream's bytes into whole lines. What it returns always ends with a newline."""

    def __init__(self) -> None:
        self._partial = b""
        self._since = 0.0  # when the partial line began
        self._last = 0.0  # when it last grew

    def feed(self, data: bytes, now: float) -> bytes:
        """Takes what was read (at most `LINE_LIMIT` bytes), returns the lines that it ends."""
        data = self._partial + data
        end = data.rfind(b"\n") + 1
        whole, partial = data[:end], data[end:]
        # Only a line that an earlier read began can be too long: the first.
        pieces = []
        while whole.find(b"\n") > LINE_LIMIT:
            piece, whole = _cut(whole)
            pieces.append(piece)
        pieces.append(whole)
        while len(partial) > LINE_LIMIT:
            piece, partial = _cut(partial)
            pieces.append(piece)
        if partial and (end or not self._partial):
            self._since = now
        self._partial, self._last = partial, now
        return b"".join(pieces)

    def due(self) -> float | None:
        """When `overdue` should be asked, on the clock of `feed`; None when nothing waits."""
        if not self._partial:
            return None
        if b"\r" in self._partial:
            return self._since + PARTIAL_SECONDS
        return self._last + PARTIAL_SECONDS

    def overdue(self, now: float) -> bytes:
        """The partial line, once it has waited long enough.

        A progress bar that rewrites its line with carriage returns never pauses: of it, what is
        up to the last return is taken.
        """
        due = self.due()
        if due is None or now < due:
            return b""
        if now >= self._last + PARTIAL_SECONDS:
            return self.end()
        piece, _, self._partial = self._partial.rpartition(b"\r")
        self._since = now
        return piece + b"\n" if piece else b""

    def end(self) -> bytes:
        """The partial line: nothing follows."""
        partial, self._partial = self._partial, b""
        return partial + b"\n" if partial else b""


def _cut(data: bytes) -> tuple[bytes, bytes]:
    """Cuts a line's first `LINE_LIMIT` bytes off, not within a character of UTF-8."""
    end = LINE_LIMIT
    while end > LINE_LIMIT - 4 and data[end] & 0xC0 == 0x80:
        end -= 1
    return data[:end] + b"\n", data[end:]


class Writer:
    """Appends frames to a log, up to a limit in bytes (0: none) that Cairn's own lines ignore."""

    def __init__(self, path: Path, limit: int) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._room = limit or 1 << 62
        self._size = 0
        self._seq = 0
        self.dropped = 0

    def append(self, stream: int, lines: bytes) -> None:
        """Writes whole lines; those that would pass the limit are counted and dropped."""
        if not lines:
            return
        size, count = len(lines), lines.count(b"\n")
        if stream != CAIRN:
            if size > self._room:
                self._room = 0  # nothing after a gap, or the log would seem to go on
                self.dropped += count
                return
            self._room -= size
        header = _HEADER.pack(_MAGIC, stream, count, size, time.time_ns() // 1000, self._seq)
        if self._write(header + lines):
            self._seq += count
        else:
            self.dropped += count

    def _write(self, frame: bytes) -> bool:
        """A full disk must not end the task: the frame is taken back and its lines dropped."""
        try:
            written = os.write(self._file, frame)
        except OSError:
            written = 0
        if written == len(frame):
            self._size += written
            return True
        os.ftruncate(self._file, self._size)
        return False

    def note(self, text: str) -> None:
        """Writes a line of Cairn's own."""
        self.append(CAIRN, text.replace("\n", " ").encode(errors="replace") + b"\n")

    def close(self) -> None:
        """Says what was dropped, and closes the file."""
        if self.dropped:
            self.note(f"{self.dropped} lines dropped: the log has reached its limit")
            self.dropped = 0
        os.close(self._file)


class Position(NamedTuple):
    """A place in a log: the frame at this offset, whose first line has this number."""

    offset: int = 0
    seq: int = 0


class Reader:
    """Reads a log that may still grow. Not thread-safe; opens the file for each call."""

    def __init__(self, path: Path, position: Position = Position()) -> None:  # noqa: B008
        self._path = path
        self.position = position

    def read(self, limit: int = 256 * 1024) -> list[Line]:
        """The next lines, of frames of at most `limit` bytes together (but at least one frame).

        Empty when there is no further whole frame.
        """
        lines: list[Line] = []
        offset, seq = self.position
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return lines
        try:
            data = os.pread(descriptor, limit, offset)
            start = 0
            for stream, count, begin, end, micros in _frames(data):
                start = end
                text = data[begin : end - 1].decode("utf-8", "replace")
                lines += _numbered(text, seq, micros / 1e6, STREAMS[stream])
                seq += count
            self.position = Position(offset + start, seq)
        finally:
            os.close(descriptor)
        return lines

    def skip_to(self, seq: int) -> None:
        """Moves on to the frame that has line `seq`, reading only headers."""
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            offset, number = self.position
            while len(header := os.pread(descriptor, _HEADER.size, offset)) == _HEADER.size:
                _, _, count, size, _, _ = _HEADER.unpack(header)
                if number + count > seq:
                    break
                offset, number = offset + _HEADER.size + size, number + count
            self.position = Position(offset, number)
        finally:
            os.close(descriptor)


def _frames(data: bytes) -> Iterator[tuple[int, int, int, int, int]]:
    """Stream, number of lines, begin and end of the payload, time, of each whole frame."""
    start = 0
    while start + _HEADER.size <= len(data):
        _, stream, count, size, micros, _ = _HEADER.unpack_from(data, start)
        begin = start + _HEADER.size
        start = begin + size
        if start > len(data):
            return
        yield stream, count, begin, start, micros


def _numbered(text: str, seq: int, at: float, stream: Stream) -> Iterator[Line]:
    for number, line in enumerate(text.split("\n"), seq):
        yield Line(number, at, stream, line.removesuffix("\r"))
