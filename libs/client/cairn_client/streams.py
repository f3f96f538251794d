"""Lines and server-sent events out of a stream of bytes.

Lines end at a line feed and nowhere else: a log line may hold carriage returns, form feeds or
U+2028, at which Python's own line splitting would cut it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

LONGEST_LINE = 4 << 20
"""Bytes kept while a line's end has not come; a longer line is handed on in pieces."""


def lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Whole lines without their ends, each as soon as it is there."""
    pending: list[bytes] = []
    size = 0
    for chunk in chunks:
        first, *rest = chunk.split(b"\n")
        pending.append(first)
        size += len(first)
        if rest:
            yield b"".join(pending)
            yield from rest[:-1]
            pending, size = [rest[-1]], len(rest[-1])
        if size > LONGEST_LINE:
            yield b"".join(pending)
            pending, size = [], 0
    if size:
        yield b"".join(pending)


def events(received: Iterable[bytes]) -> Iterator[tuple[str, bytes]]:
    """The type and data of each server-sent event of a stream of lines; `message` is the default.

    An event that the end of the stream cuts off is dropped, as the standard says.
    """
    kind, data = "", list[bytes]()
    for line in received:
        field, _, value = line.rstrip(b"\r").partition(b":")
        value = value.removeprefix(b" ")
        match field:
            case b"data":
                data.append(value)
            case b"event":
                kind = value.decode(errors="replace")
            case b"" if not line.strip(b"\r"):
                if data:
                    yield kind or "message", b"\n".join(data)
                kind, data = "", []
            case _:
                pass  # a comment that keeps the connection alive, or a field of no use here
