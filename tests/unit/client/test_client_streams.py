"""Logs, events and snapshots as they come, also when the connection does not last."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cairn_client import ApiError, Client, ConnectionFailed, VersionMismatch, streams
from unit.client.fake_cairn import FakeCairn, group, snapshot, task


@given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=6))
def test_lines_do_not_depend_on_how_bytes_arrive(data: bytes, cuts: list[int]) -> None:
    places = [0, *sorted(cut for cut in cuts if cut <= len(data)), len(data)]
    chunks = [data[a:b] for a, b in pairwise(places)]
    whole = data.split(b"\n")
    assert list(streams.lines(chunks)) == (whole if whole[-1] else whole[:-1])


def test_a_line_without_end_is_handed_on_in_pieces() -> None:
    chunk = b"x" * (1 << 20)
    pieces = list(streams.lines([chunk] * 10))
    assert b"".join(pieces) == chunk * 10
    assert max(map(len, pieces)) <= streams.LONGEST_LINE + len(chunk)


def test_events_in_all_their_forms() -> None:
    text = b": hi\r\ndata: a\ndata:b\n\nevent: x\nid: 1\ndata: c\r\n\r\nevent: y\n\ndata: cut"
    assert list(streams.events(streams.lines([text]))) == [("message", b"a\nb"), ("x", b"c")]


def test_logs_are_lines_as_they_were_written(server: FakeCairn, cairn: Client) -> None:
    server.text(
        "GET /api/workflow/x/logs", "[a] é\x0c\u2028".encode()[:5], b"\xa9\r\n[b] \xff\nend"
    )
    server.text("GET /api/workflow/x/logs", b"[a] \xc3", b"\xa9\x0c\r\n[b] \xff\n", b"end")
    assert list(cairn.logs("x", task="a", retry_id=0, last=3)) == ["[a] é\x0c\r", "[b] �", "end"]
    assert server.last.query == {"task_name": ["a"], "retry_id": ["0"], "last_n_lines": ["3"]}
    server.text("GET /api/workflow/x/error_logs", b"e\n")
    assert list(cairn.logs("x", error=True)) == ["e"]
    server.text("GET /api/workflow/x/events", b"one\n", b"two\n")
    assert list(cairn.events("x")) == ["one", "two"]


def test_a_refused_stream_says_why(server: FakeCairn, cairn: Client) -> None:
    server.refuse("GET /api/workflow/x/logs", "Workflow x is not found.")
    with pytest.raises(ApiError, match="not found"):
        next(cairn.logs("x"))


def test_a_broken_stream_says_so(server: FakeCairn, cairn: Client) -> None:
    def broken() -> Iterator[bytes]:
        yield b"one\n"
        raise httpx.RemoteProtocolError("peer closed")

    server.on("GET /api/workflow/x/logs", lambda _: httpx.Response(200, content=broken()))
    lines = cairn.logs("x")
    assert next(lines) == "one"
    with pytest.raises(ConnectionFailed, match="peer closed"):
        next(lines)


def test_watch_ends_with_the_final_snapshot(server: FakeCairn, cairn: Client) -> None:
    first = snapshot("RUNNING", group("g", task("a")))
    retried = group("g", task("a", "RESCHEDULED"), task("a", "COMPLETED", retry_id=1))
    server.watch([first, snapshot("COMPLETED", retried), first])
    seen = list(cairn.watch("hello-1"))
    assert [s.status for s in seen] == ["RUNNING", "COMPLETED"]
    assert [(t.name, t.retry_id) for t in seen[-1].tasks] == [("a", 1)]
    server.watch([snapshot("FAILED")])
    assert not cairn.wait("hello-1").succeeded


def test_watch_connects_again(
    server: FakeCairn, cairn: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    server.watch([snapshot("PENDING")], [], [snapshot("RUNNING")], [snapshot("COMPLETED")])
    lost: list[ConnectionFailed] = []
    seen = list(cairn.watch("hello-1", on_loss=lost.append))
    assert [s.status for s in seen] == ["PENDING", "RUNNING", "COMPLETED"]
    assert len(lost) == 2


def test_watch_gives_up(server: FakeCairn, cairn: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    server.watch([snapshot("RUNNING")], *([[]] * 1000))
    with pytest.raises(ConnectionFailed):
        list(cairn.watch("hello-1", patience=0.05))
    # A server that was never reached is not waited for.
    server.watch([])
    with pytest.raises(ConnectionFailed):
        next(cairn.watch("hello-1"))
    server.refuse("GET /api/workflow/hello-1/watch", "down", 503)
    with pytest.raises(ApiError, match="down"):
        next(cairn.watch("hello-1"))


def test_a_watch_in_other_words(server: FakeCairn, cairn: Client) -> None:
    server.text("GET /api/workflow/hello-1/watch", b"data: {}\n\n")
    with pytest.raises(VersionMismatch):
        next(cairn.watch("hello-1"))
    server.text("GET /api/workflow/hello-1/watch", b"data: {\n\n")
    with pytest.raises(VersionMismatch):
        next(cairn.watch("hello-1"))
