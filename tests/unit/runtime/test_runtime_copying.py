"""Copying a folder while it is written to, and over an earlier copy of it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cairn_runtime.copying import FOLDER, Copied, MissingError, StorageError, open_folder
from cairn_runtime.storage import FileStorage

OLD = 1_700_000_000_123_456_789  # nanoseconds


def never() -> None:
    """No reason to end a copy."""


class Saved:
    """A task's folder and where it is copied to."""

    def __init__(self, folder: Path) -> None:
        self.source = folder / "task"
        self.source.mkdir()
        self.target = folder / "store/x"
        self.storage = FileStorage(folder / "store")

    def write(self, name: str, text: str, *, date: int = OLD) -> None:
        path = self.source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        os.utime(path, ns=(date, date))

    def update(
        self, check: Callable[[], None] = never, regex: str | None = None, seen_as: str = "/seen"
    ) -> Copied:
        folder = os.open(self.source, FOLDER)
        try:
            return self.storage.update(folder, "x", regex, seen_as, check)
        finally:
            os.close(folder)

    def names(self) -> list[str]:
        return sorted(str(path.relative_to(self.target)) for path in self.target.rglob("*"))


@pytest.fixture
def saved(tmp_path: Path) -> Saved:
    """An empty folder."""
    return Saved(tmp_path)


def test_only_what_has_changed_is_copied_again(saved: Saved) -> None:
    saved.write("a", "1")
    saved.write("deep/b", "22")
    (saved.source / "latest").symlink_to("deep/b")
    first = saved.update()
    assert (first.files, first.size, first.unchanged) == (3, 3, 0)
    assert saved.update()[:2] == (0, 0)
    saved.write("a", "2", date=OLD + 1)
    saved.write("deep/c", "3")
    second = saved.update()
    assert (second.files, second.size, second.unchanged) == (2, 2, 2)
    assert (saved.target / "a").read_text() == "2"
    assert saved.names() == ["a", "deep", "deep/b", "deep/c", "latest"]
    assert [path.name for path in saved.target.parent.iterdir()] == ["x"]


def test_another_writer_of_the_same_place_is_noticed(saved: Saved) -> None:
    saved.write("a", "1")
    saved.update()
    (saved.target / "a").unlink()
    assert saved.update().files == 1


def test_a_file_written_twice_within_one_tick_of_the_clock_is_copied_twice(saved: Saved) -> None:
    path = saved.source / "a"
    path.write_text("1")
    date = path.stat().st_mtime_ns
    saved.update()
    path.write_text("2")
    os.utime(path, ns=(date, date))
    assert saved.update().files == 1
    assert (saved.target / "a").read_text() == "2"


def test_what_was_deleted_stays_in_the_store(saved: Saved) -> None:
    saved.write("a", "1")
    saved.update()
    (saved.source / "a").unlink()
    saved.write("b", "1")
    saved.update()
    assert saved.names() == ["a", "b"]


def test_links_to_folders_are_replaced_and_kept(saved: Saved) -> None:
    saved.write("step-1/model", "1")
    saved.write("step-2/model", "2")
    (saved.source / "latest").symlink_to("step-1")
    saved.update()
    (saved.source / "latest").unlink()
    (saved.source / "latest").symlink_to("step-2")
    saved.update()
    assert str((saved.target / "latest").readlink()) == "step-2"
    assert (saved.target / "step-1/model").read_text() == "1"


def test_a_name_may_become_another_kind_of_thing(saved: Saved) -> None:
    saved.write("a", "file")
    saved.write("b/in", "folder")
    (saved.source / "c").symlink_to("b")
    saved.update()
    (saved.source / "a").unlink()
    saved.write("a/in", "folder now")
    (saved.source / "b/in").unlink()
    (saved.source / "b").rmdir()
    saved.write("b", "file now")
    (saved.source / "c").unlink()
    saved.write("c/in", "folder now")
    saved.update()
    assert (saved.target / "a/in").read_text() == "folder now"
    assert (saved.target / "b").read_text() == "file now"
    assert not (saved.target / "c").is_symlink()
    assert (saved.target / "c/in").read_text() == "folder now"


def test_a_link_that_an_earlier_copy_left_leads_nowhere(saved: Saved, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    saved.target.mkdir(parents=True)
    (saved.target / "a").symlink_to(outside)
    saved.write("a/in", "1")
    assert saved.update().files == 1
    assert list(outside.iterdir()) == []
    assert (saved.target / "a/in").read_text() == "1"


def test_a_regex_chooses_and_makes_no_empty_folders(saved: Saved) -> None:
    saved.write("a.log", "1")
    saved.write("deep/b.pt", "1")
    saved.write("other/c.log", "1")
    saved.update(regex=r"\.pt$")
    saved.write("more/d.pt", "1")
    saved.update(regex=r"\.pt$")
    assert saved.names() == ["deep", "deep/b.pt", "more", "more/d.pt"]


def test_an_abandoned_copy_changes_nothing_and_leaves_nothing(saved: Saved) -> None:
    saved.write("a", "1")
    saved.update()
    saved.write("a", "2", date=OLD + 1)
    saved.write("b", "2")
    calls: Iterator[int] = iter(range(100))

    def enough() -> None:
        if next(calls) == 2:
            raise StorageError("enough")

    with pytest.raises(StorageError, match="enough"):
        saved.update(enough)
    assert (saved.target / "a").read_text() == "1"
    assert saved.names() == ["a"]
    assert [path.name for path in saved.target.parent.iterdir()] == ["x"]


def test_a_file_that_grows_is_read_to_the_length_it_had(saved: Saved) -> None:
    path = saved.source / "log"
    path.write_bytes(b"x" * 1000)

    def grow() -> None:
        with path.open("ab") as file:
            file.write(b"y" * 1000)

    # Once before the file is opened, and once for each piece of it.
    saved.update(grow)
    assert (saved.target / "log").read_bytes() == b"x" * 1000 + b"y" * 1000


def test_whatever_happens_to_files_meanwhile_a_copy_ends_well_and_inside(
    saved: Saved, tmp_path: Path
) -> None:
    """A task replaces files and folders by links to a secret, and back, as fast as it can."""
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("secret")
    over = threading.Event()

    def restless() -> None:
        folder, file = saved.source / "folder", saved.source / "file"
        while not over.is_set():
            folder.mkdir()
            (folder / "key").write_text("mine")
            file.write_text("mine")
            (folder / "key").unlink()
            folder.rmdir()
            folder.symlink_to(secret)
            file.unlink()
            file.symlink_to(secret / "key")
            folder.unlink()
            file.unlink()
            os.mkfifo(file)
            file.unlink()

    thread = threading.Thread(target=restless)
    thread.start()
    try:
        for _ in range(300):
            saved.update()
            for path in saved.target.rglob("*"):
                assert not path.is_symlink()
                assert path.is_dir() or path.read_text() in {"", "mine"}
    finally:
        over.set()
        thread.join()


def test_readers_see_whole_files_only(saved: Saved) -> None:
    size = 300_000
    over = threading.Event()
    broken: list[bytes] = []

    def read() -> None:
        while not over.is_set():
            if (saved.target / "model").exists():
                data = (saved.target / "model").read_bytes()
                if len(data) != size or len(set(data)) != 1:
                    broken.append(data)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        for number in range(60):
            saved.write("model", chr(97 + number % 26) * size, date=OLD + number)
            assert saved.update().files == 1
    finally:
        over.set()
        thread.join()
    assert broken == []


def test_the_folder_itself_is_not_found_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "secret/deep").mkdir(parents=True)
    base = tmp_path / "base"
    base.mkdir()
    (base / "ckpt").symlink_to(tmp_path / "secret")
    (base / "file").touch()
    for inner in ("ckpt", "ckpt/deep", "file"):
        with pytest.raises(StorageError, match="is no folder, and links are not followed"):
            open_folder(base, inner)
    with pytest.raises(MissingError):
        open_folder(base, "later")
    os.close(open_folder(base, ""))


def test_folders_without_end_are_refused(saved: Saved) -> None:
    saved.write("/".join(["d"] * 300) + "/f", "1")
    with pytest.raises(StorageError, match="more than 256 deep"):
        saved.update()
