"""Folders as storage: copying, filtering, and not being led astray."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cairn_runtime.copying import MissingError, StorageError
from cairn_runtime.storage import FileStorage, open_storage


def fill(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_what_is_persisted_is_fetched(tmp_path: Path) -> None:
    source = fill(tmp_path / "out", a="1", deep__b="22")
    (source / "a").chmod(0o751)
    (source / "empty").mkdir()
    storage = FileStorage(tmp_path / "store")
    copied = storage.persist(source, "flow/task/0", None)
    assert (copied.files, copied.size) == (2, 3)
    assert names(tmp_path / "store/flow/task") == ["0", "0/a", "0/deep", "0/deep/b", "0/empty"]
    into = tmp_path / "in"
    into.mkdir()
    storage.fetch("flow/task/0", into, None)
    assert names(into) == ["a", "deep", "deep/b", "empty"]
    assert (into / "a").stat().st_mode & 0o777 == 0o751
    assert (into / "a").stat().st_mtime_ns == (source / "a").stat().st_mtime_ns


def test_a_regex_is_searched_for_in_relative_paths(tmp_path: Path) -> None:
    source = fill(
        tmp_path / "out", **{"a.txt": "", "deep__b.txt": "", "deep__c.bin": "", "txt__d": ""}
    )
    storage = FileStorage(tmp_path / "store")
    storage.persist(source, "some", r"deep/.*\.txt$")
    assert names(tmp_path / "store/some") == ["deep", "deep/b.txt"]
    into = tmp_path / "in"
    into.mkdir()
    storage.fetch("some", into, "nothing")
    assert names(into) == []
    with pytest.raises(StorageError, match="regular expression"):
        storage.fetch("some", into, "[")


@pytest.mark.parametrize(
    ("goal", "kept"),
    [
        ("a", "a"),
        ("../a", "../a"),
        ("/seen/a", "../a"),
        ("/seen/deep/../a", "../deep/../a"),
        ("../../outside", None),
        ("x/../../../outside", None),
        ("/etc/passwd", None),
        ("/seen/../etc", None),
        ("/seenother/a", None),
    ],
)
def test_links_stay_links_and_inside(tmp_path: Path, goal: str, kept: str | None) -> None:
    source = fill(tmp_path / "out", a="1", deep__b="2")
    (source / "deep/link").symlink_to(goal)
    copied = FileStorage(tmp_path / "store").persist(source, "x", None, "/seen")
    link = tmp_path / "store/x/deep/link"
    if kept is None:
        assert not link.is_symlink()
        assert "deep/link is a link out of the folder" in copied.skipped[0]
    else:
        assert str(link.readlink()) == kept


def test_folders_behind_links_and_odd_files_are_not_followed(tmp_path: Path) -> None:
    secret = fill(tmp_path / "secret", key="s")
    source = fill(tmp_path / "out", a="1")
    (source / "folder").symlink_to(secret)
    os.mkfifo(source / "pipe")
    copied = FileStorage(tmp_path / "store").persist(source, "x", None)
    assert names(tmp_path / "store/x") == ["a"]
    assert len(copied.skipped) == 2


def test_persisting_to_a_place_that_exists_adds_and_replaces(tmp_path: Path) -> None:
    storage = FileStorage(tmp_path / "store")
    storage.persist(fill(tmp_path / "one", a="1", b="1", deep__c="1"), "x", None)
    storage.persist(fill(tmp_path / "two", b="2", deep__d="2"), "x", None)
    target = tmp_path / "store/x"
    assert names(target) == ["a", "b", "deep", "deep/c", "deep/d"]
    assert (target / "b").read_text() == "2"
    assert names(tmp_path / "store") == sorted(["x", *(f"x/{name}" for name in names(target))])


def test_what_cannot_be_is_said_with_its_place(tmp_path: Path) -> None:
    storage = FileStorage(tmp_path)
    with pytest.raises(MissingError, match="there is nothing at"):
        storage.fetch("nothing", tmp_path, None)
    with pytest.raises(StorageError, match="leaves the store"):
        storage.fetch("../etc", tmp_path, None)
    fill(tmp_path, file="")
    with pytest.raises(StorageError, match="file"):
        storage.persist(fill(tmp_path / "out", a="1"), "file", None)
    with pytest.raises(StorageError, match="s3://bucket"):
        open_storage("s3://bucket/x")


def test_a_url_may_name_one_file(tmp_path: Path) -> None:
    path = fill(tmp_path, file="text") / "file"
    into = tmp_path / "in"
    into.mkdir()
    storage, prefix = open_storage(f"file://{path}")
    assert storage.fetch(prefix, into, None).files == 1
    assert (into / "file").read_text() == "text"
