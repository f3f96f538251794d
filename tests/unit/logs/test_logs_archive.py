"""The archive: what is written is read, whole or in pages, and survives being cut off."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cairn_common.events import LogLine, TaskLog
from cairn_common.requests import LogReadReply, LogReadRequest, LogRecord
from cairn_logs import archive as archive_module
from cairn_logs.archive import Archive, Page, flush_to_disk

NOW = datetime.now(UTC)
LARGEST_ANSWER = 1_000_000


def event(
    texts: Sequence[str],
    first: int = 0,
    *,
    task: str = "t",
    index: int = 0,
    attempt: int = 0,
    stream: Literal["stdout", "stderr", "cairn"] = "stdout",
    final: bool = False,
) -> TaskLog:
    lines = [
        LogLine(seq=seq, at=NOW, stream=stream, text=text) for seq, text in enumerate(texts, first)
    ]
    return TaskLog(
        workflow="w-1", task=task, index=index, attempt=attempt, lines=lines, final=final
    )


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    made = Archive(tmp_path)
    yield made
    made.close()


def texts(page: Page) -> list[str]:
    return [record.text for record in page.records]


def read(archive: Archive, **wishes: Any) -> Page:
    return archive.read(LogReadRequest(workflow="w-1", **wishes))


def everything(archive: Archive, **wishes: Any) -> list[LogRecord]:
    """All pages, each of which must fit an answer."""
    records: list[LogRecord] = []
    while True:
        page = read(archive, **wishes)
        reply = LogReadReply(
            records=page.records, cursor=page.cursor, complete=page.complete, read_at=NOW
        )
        assert len(reply.model_dump_json()) < LARGEST_ANSWER
        records += page.records
        if page.complete or page.cursor == wishes.get("cursor"):
            return records
        wishes = wishes | {"cursor": page.cursor, "last_n_lines": None}


def test_a_log_is_read_as_it_came(archive: Archive) -> None:
    archive.append(event(["a", "b"]))
    archive.append(event(["x\ny\r", "\u2028 ü"], task="u", index=1))
    archive.append(event(["c"], 2, final=True))
    page = read(archive)
    assert [(each.task, each.text) for each in page.records] == [
        ("t", "a"),
        ("t", "b"),
        ("u", "x\ny\r"),
        ("u", "\u2028 ü"),
        ("t", "c"),
    ]
    assert not page.complete
    archive.end("w-1")
    archive.end("w-1")
    assert read(archive).complete
    assert texts(read(archive, cursor=page.cursor)) == []
    assert read(archive, cursor=read(archive).cursor).complete


def test_nothing_is_there(archive: Archive, tmp_path: Path) -> None:
    assert read(archive) == Page([], 0, complete=False)
    (tmp_path.parent / "secret.jsonl").write_text('{"text": "s"}\n')
    request = LogReadRequest(workflow="../secret")
    assert archive.read(request) == Page([], 0, complete=False)
    archive.end("w-1")
    assert read(archive).complete
    assert read(archive, last_n_lines=5).complete


def test_lines_that_come_late_are_read_too(archive: Archive) -> None:
    archive.append(event(["a"]))
    archive.end("w-1")
    before = read(archive)
    assert before.complete
    archive.append(event(["b"], 1, final=True))
    assert [each.text for each in everything(archive)] == ["a", "b"]
    assert texts(read(archive, cursor=before.cursor)) == ["b"]
    assert read(archive).complete


def test_filters(archive: Archive) -> None:
    archive.append(event(["one", "two"]))
    archive.append(event(["three"], 2, stream="stderr"))
    archive.append(event(["four"], attempt=1))
    archive.append(event(["five"], task="u", index=1))
    assert texts(read(archive, task="u")) == ["five"]
    assert texts(read(archive, attempt=1)) == ["four"]
    assert texts(read(archive, stream="stderr")) == ["three"]
    assert texts(read(archive, contains="o")) == ["one", "two", "four"]
    assert texts(read(archive, contains="o", last_n_lines=2)) == ["two", "four"]


@pytest.mark.parametrize("torn", [b"", b'{"task":"t","i":0,"a":0,"n":2,"te', b"x" * 200_000])
def test_a_torn_last_line_is_cut_off(tmp_path: Path, torn: bytes) -> None:
    first = Archive(tmp_path)
    first.append(event(["a", "b"]))
    first.close()
    with (tmp_path / "w-1.jsonl").open("ab") as file:
        file.write(torn)
    archive = Archive(tmp_path)
    assert texts(read(archive)) == ["a", "b"]
    assert texts(read(archive, last_n_lines=1)) == ["b"]
    taken = archive.append(event(["b", "c"], 1, final=True))
    assert ([line.seq for line in taken.lines], taken.whole) == ([2], True)
    assert texts(read(archive)) == ["a", "b", "c"]
    archive.close()


def test_a_file_with_nothing_but_a_torn_line(tmp_path: Path) -> None:
    (tmp_path / "w-1.jsonl").write_bytes(b'{"task":')
    archive = Archive(tmp_path)
    assert texts(read(archive, last_n_lines=1)) == []
    archive.append(event(["a"]))
    assert texts(read(archive)) == ["a"]
    archive.close()


def test_an_archive_that_is_opened_again_goes_on(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    archive.append(event(["a"], final=True))
    archive.end("w-1")
    archive.close()
    archive = Archive(tmp_path)
    taken = archive.append(event(["a"], final=True))
    assert (list(taken.lines), taken.whole) == ([], True)
    archive.end("w-1")
    archive.close()
    assert (tmp_path / "w-1.jsonl").read_bytes().count(b'{"end":true}') == 1
    assert (tmp_path / "w-1.jsonl").read_bytes().count(b'"whole"') == 1


def test_more_workflows_than_files_may_be_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_module, "_MAX_OPEN", 2)
    archive = Archive(tmp_path)
    for seq in range(3):
        for number in range(5):
            each = event([f"{seq}"], seq)
            archive.append(each.model_copy(update={"workflow": f"w-{number}"}))
    assert texts(read(archive)) == ["0", "1", "2"]
    flush_to_disk(archive.descriptors(["w-0", "w-1"]))
    archive.close()


def test_answers_are_bounded(archive: Archive) -> None:
    long = "\x01" * 65_536  # six bytes each in JSON
    archive.append(event([long] * 20, task="long", index=1))
    many = [f"line {number} " + "x" * 400 for number in range(6000)]
    archive.append(event(many))
    archive.end("w-1")
    assert len(everything(archive)) == 6020
    assert [each.text for each in everything(archive, task="t")] == many
    assert [each.text for each in everything(archive, last_n_lines=5000)] == many[-5000:]
    assert len(everything(archive, last_n_lines=6010)) == 6010
    assert [each.text for each in everything(archive, last_n_lines=10**9)][-6000:] == many
    assert everything(archive, last_n_lines=0) == []
    assert [each.text for each in everything(archive, contains="line 5999 ")] == many[-1:]


@given(
    st.lists(st.tuples(st.sampled_from("tu"), st.text(max_size=50)), max_size=60),
    st.integers(0, 70),
    st.integers(1, 5000),
)
def test_the_last_lines(
    tmp_path_factory: pytest.TempPathFactory,
    said: list[tuple[str, str]],
    wanted: int,
    block: int,
) -> None:
    archive = Archive(tmp_path_factory.mktemp("archive"))
    counts = {"t": 0, "u": 0}
    for task, text in said:
        archive.append(event([text], counts[task], task=task, index="tu".index(task)))
        counts[task] += 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archive_module, "_BLOCK", block)
        both = read(archive, last_n_lines=wanted)
        one = read(archive, last_n_lines=wanted, task="t")
    archive.close()
    assert texts(both) == [text for _, text in said][max(0, len(said) - wanted) :]
    mine = [text for task, text in said if task == "t"]
    assert texts(one) == mine[max(0, len(mine) - wanted) :]
