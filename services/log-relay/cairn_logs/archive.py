"""Where logs lie: one append-only file a workflow, one JSON object a line.

A file holds the lines of all its tasks in the order in which they came, which is how a workflow's
log is read. Marks stand between them: `whole` when an attempt's log has ended, `end` when the
workflow has. A torn last line, left by a crash, is cut off when the file is opened again; the
bridge still has what it held.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from cairn_common.events import LogLine, TaskLog
from cairn_common.events.subjects import token
from cairn_common.requests import LogReadRequest, LogRecord
from cairn_logs.core import Assembly, Taken

_MAX_OPEN = 512
_PAGE_BYTES = 512 * 1024
_PAGE_LINES = 2000
"""With the one line that may exceed it, an answer stays below a megabyte."""
_SCAN_BYTES = 16 << 20  # looked through for one page
_BLOCK = 64 * 1024
_END = b'{"end":true}\n'


@dataclass(slots=True)
class _File:
    handle: BinaryIO
    assembly: Assembly
    ended: bool


@dataclass(frozen=True, slots=True)
class Page:
    """Lines of a workflow's log; reading goes on at `cursor`."""

    records: list[LogRecord]
    cursor: int
    complete: bool


class Archive:
    """The folder of log files.

    Args:
        root: the folder; created if missing, readable by its owner only.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._open: OrderedDict[str, _File] = OrderedDict()

    def close(self) -> None:
        """Close all files."""
        while self._open:
            self._open.popitem()[1].handle.close()

    def append(self, event: TaskLog) -> Taken:
        """Append the lines of an event that are new; written, but not yet on the disk's platter."""
        file = self._file(event.workflow)
        attempt = (event.index, event.attempt)
        already = attempt in file.assembly.whole
        taken = file.assembly.take(attempt, event.lines, final=event.final)
        chunks = [_line(event, line) for line in taken.lines]
        if taken.whole and not already:
            mark = {"whole": True, "task": event.task, "i": event.index, "a": event.attempt}
            chunks.append(orjson.dumps(mark) + b"\n")
        if chunks:
            if file.ended:  # late lines: the mark is what a reader looks for at the end
                chunks.append(_END)
            file.handle.write(b"".join(chunks))
            file.handle.flush()
        return taken

    def descriptors(self, workflows: Iterable[str]) -> list[int]:
        """Copies of the files' descriptors, for `flush_to_disk` in another thread."""
        return [os.dup(self._file(workflow).handle.fileno()) for workflow in workflows]

    def end(self, workflow: str) -> None:
        """Mark that the workflow has ended: whoever follows its log may stop."""
        file = self._file(workflow)
        if not file.ended:
            file.handle.write(_END)
            file.handle.flush()
            file.ended = True

    def read(self, request: LogReadRequest) -> Page:
        """A page of a workflow's log; see `LogReadRequest`."""
        try:
            file = self._path(token(request.workflow)).open("rb")
        except (FileNotFoundError, ValueError):  # a name that no workflow can have
            return Page([], 0, complete=False)
        with file:
            cursor = request.cursor
            if request.last_n_lines is not None:
                cursor = _start_of_last(file, request, request.last_n_lines)
            return _page(file, cursor, request)

    def _path(self, workflow: str) -> Path:
        return self._root / f"{workflow}.jsonl"

    def _file(self, workflow: str) -> _File:
        file = self._open.get(workflow)
        if file is not None:
            self._open.move_to_end(workflow)
            return file
        path = self._path(workflow)
        assembly = Assembly()
        ended = False
        if path.exists():
            _repair(path)
            with path.open("rb") as old:
                assembly.restore(_marks(old))
                ended = _ends_at(old, old.seek(0, os.SEEK_END))
        file = _File(path.open("ab"), assembly, ended)
        self._open[workflow] = file
        if len(self._open) > _MAX_OPEN:
            self._open.popitem(last=False)[1].handle.close()
        return file


def _line(event: TaskLog, line: LogLine) -> bytes:
    return (
        orjson.dumps(
            {
                "task": event.task,
                "i": event.index,
                "a": event.attempt,
                "n": line.seq,
                "at": line.at,
                "io": line.stream,
                "text": line.text,
            }
        )
        + b"\n"
    )


def _bodies(file: BinaryIO, start: int) -> Iterator[tuple[dict[str, Any], int]]:
    """The objects from an offset on, each with the offset after it; a torn last line is left."""
    position = start
    for raw in file:
        if not raw.endswith(b"\n"):
            return
        position += len(raw)
        yield orjson.loads(raw), position


def _record(body: dict[str, Any], request: LogReadRequest) -> LogRecord | None:
    """The line as it is given out, if it is one and the reader wants it."""
    if (
        "text" not in body
        or (request.task is not None and body["task"] != request.task)
        or (request.attempt is not None and body["a"] != request.attempt)
        or (request.stream is not None and body["io"] != request.stream)
        or (request.contains is not None and request.contains not in body["text"])
    ):
        return None
    return LogRecord(
        task=body["task"],
        attempt=body["a"],
        seq=body["n"],
        at=body["at"],
        stream=body["io"],
        text=body["text"],
    )


def _marks(file: BinaryIO) -> Iterator[tuple[tuple[int, int], int, bool]]:
    for body, _ in _bodies(file, 0):
        if "text" in body:
            yield (body["i"], body["a"]), body["n"] + 1, False
        elif body.get("whole"):
            yield (body["i"], body["a"]), 0, True


def _ends_at(file: BinaryIO, offset: int) -> bool:
    """Whether the workflow's end is marked before this offset, and nothing follows it."""
    file.seek(max(0, offset - len(_END)))
    return file.read(len(_END) + 1) == _END


def _page(file: BinaryIO, cursor: int, request: LogReadRequest) -> Page:
    """What the reader wants of what lies behind the cursor, as much as one answer carries."""
    file.seek(cursor)
    records: list[LogRecord] = []
    size = 0
    limit = cursor + _SCAN_BYTES
    for body, end in _bodies(file, cursor):
        record = _record(body, request)
        if record is not None:
            size += end - cursor
            if records and size > _PAGE_BYTES:
                break
            records.append(record)
        cursor = end
        if len(records) >= _PAGE_LINES or cursor >= limit:
            break
    return Page(records, cursor, complete=_ends_at(file, cursor))


def _start_of_last(file: BinaryIO, request: LogReadRequest, lines: int) -> int:
    """Where the last lines begin that the reader wants."""
    start = 0
    wanted = lines
    for raw, offset in _backwards(file):
        if wanted <= 0:
            return offset + len(raw) if lines <= 0 else start
        if _record(orjson.loads(raw), request) is not None:
            start, wanted = offset, wanted - 1
    return start if wanted <= 0 else 0


def _backwards(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Whole lines with the offset of each, the last one first; a torn last line is left."""
    start = file.seek(0, os.SEEK_END)
    behind = b""
    torn = True
    while start:
        block = min(start, _BLOCK)
        start -= block
        file.seek(start)
        data = file.read(block) + behind
        if torn:
            data = data[: data.rfind(b"\n") + 1]
            torn = not data
        cut = data.find(b"\n") + 1 if start else 0
        behind = data[:cut]
        offset = start + len(data)
        for line in reversed(data[cut:].splitlines(keepends=True)):
            offset -= len(line)
            yield line, offset


def _repair(path: Path) -> None:
    """Cut off a last line that a crash left unfinished."""
    with path.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        while size:
            start = max(0, size - 65536)
            file.seek(start)
            newline = file.read(size - start).rfind(b"\n")
            if newline >= 0:
                file.truncate(start + newline + 1)
                return
            size = start
        file.truncate(0)


def flush_to_disk(descriptors: Iterable[int]) -> None:
    """Make sure that what was appended survives a loss of power; closes the descriptors."""
    for descriptor in descriptors:
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def attempts_of(events: Sequence[TaskLog]) -> dict[str, list[TaskLog]]:
    """The events that end an attempt's log, by workflow."""
    ended: dict[str, list[TaskLog]] = {}
    for event in events:
        if event.final:
            ended.setdefault(event.workflow, []).append(event)
    return ended
