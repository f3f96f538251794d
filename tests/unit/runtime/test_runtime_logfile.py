"""The log file: splitting, frames, limits, and readers that come while it grows."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from cairn_runtime.logfile import (
    CAIRN,
    LINE_LIMIT,
    PARTIAL_SECONDS,
    STDERR,
    STDOUT,
    Position,
    Reader,
    Splitter,
    Writer,
)


@given(st.lists(st.binary(max_size=40)))
def test_splitting_loses_nothing(pieces: list[bytes]) -> None:
    splitter = Splitter()
    got = b"".join(splitter.feed(piece, 0.0) for piece in pieces) + splitter.end()
    whole = b"".join(pieces)
    assert got == whole + (b"\n" if whole and not whole.endswith(b"\n") else b"")


def test_a_long_line_is_cut_between_characters() -> None:
    splitter = Splitter()
    text = "é" * LINE_LIMIT
    data = b"x" + text.encode() + b"\nshort\n"
    got = b""
    for start in range(0, len(data), LINE_LIMIT):
        got += splitter.feed(data[start : start + LINE_LIMIT], 0.0)
    lines = got.decode().splitlines()  # strict: nothing was cut within a character
    assert "".join(lines[:-1]) == "x" + text
    assert all(len(line.encode()) <= LINE_LIMIT for line in lines)
    assert lines[-1] == "short"


def test_the_beginning_of_a_line_is_shown_when_its_end_does_not_come() -> None:
    splitter = Splitter()
    assert splitter.feed(b"a\nasking: ", 10.0) == b"a\n"
    assert splitter.due() == 10.0 + PARTIAL_SECONDS
    assert splitter.overdue(10.5) == b""
    assert splitter.overdue(11.0) == b"asking: \n"
    assert splitter.due() is None


def test_a_progress_bar_is_shown_though_it_never_pauses() -> None:
    splitter = Splitter()
    for step in range(12):
        splitter.feed(f"\r{step}%".encode(), 10 + step / 10)
    assert splitter.overdue(11.1) == b"".join(f"\r{n}%".encode() for n in range(11)) + b"\n"
    assert splitter.end() == b"11%\n"


def test_a_reader_follows_a_writer(tmp_path: Path) -> None:
    path = tmp_path / "log"
    reader = Reader(path)
    assert reader.read() == []
    writer = Writer(path, 0)
    writer.append(STDOUT, b"one\ntwo\r\n")
    writer.append(STDERR, b"b\xffd\n")
    lines = reader.read()
    assert [(line.seq, line.stream, line.text) for line in lines] == [
        (0, "stdout", "one"),
        (1, "stdout", "two"),
        (2, "stderr", "b\ufffdd"),
    ]
    assert reader.read() == []
    writer.note("words\nof ours")
    assert [line.text for line in reader.read()] == ["words of ours"]
    writer.close()
    other = Reader(path)
    other.skip_to(2)
    assert other.position.seq == 2
    assert [line.seq for line in other.read()] == [2, 3]
    other.skip_to(99)
    assert other.position == reader.position


def test_a_frame_that_was_cut_short_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "log"
    writer = Writer(path, 0)
    writer.append(STDOUT, b"whole\n")
    writer.append(STDOUT, b"torn\n")
    writer.close()
    data = path.read_bytes()
    for size in range(len(data) // 2 + 1, len(data)):
        path.write_bytes(data[:size])
        assert [line.text for line in Reader(path).read()] == ["whole"]


def test_beyond_the_limit_lines_are_counted_but_not_ours(tmp_path: Path) -> None:
    path = tmp_path / "log"
    writer = Writer(path, 10)
    writer.append(STDOUT, b"12345678\n")
    writer.append(STDOUT, b"ab\ncd\n")
    writer.append(STDOUT, b"\n")  # would fit, but nothing follows a gap
    writer.append(CAIRN, b"ours\n")
    assert writer.dropped == 3
    writer.close()
    texts = [line.text for line in Reader(path, Position()).read()]
    assert texts[:2] == ["12345678", "ours"]
    assert texts[2].startswith("3 lines dropped")
