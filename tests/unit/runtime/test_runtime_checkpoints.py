"""When checkpoints are made: the timing by itself, then threads, then a pod's process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cairn_runtime import checkpoints
from cairn_runtime.checkpoints import SHORTEST, Checkpointer, Turns
from cairn_runtime.copying import Copied, StorageError
from cairn_runtime.pod import main
from cairn_runtime.room import Checkpoint
from cairn_runtime.storage import open_storage

seconds = st.floats(0, 1e6)


@given(st.floats(0, 1e5), seconds, st.lists(seconds, max_size=20))
def test_a_turn_begins_the_frequency_after_the_end_of_the_one_before(
    frequency: float, start: float, lengths: list[float]
) -> None:
    turns = Turns(frequency, start)
    ended = now = start
    for length in lengths:
        wait = turns.wait(now)
        assert wait == pytest.approx(max(frequency, SHORTEST), abs=1e-3)
        now += wait
        assert turns.wait(now) == pytest.approx(0, abs=1e-3)
        ended = now = now + length
        turns.end(ended)


@given(seconds, seconds, seconds)
def test_the_wait_shrinks_with_time_and_is_never_negative(
    frequency: float, start: float, later: float
) -> None:
    turns = Turns(frequency, start)
    assert 0 <= turns.wait(start + later) <= turns.wait(start)


def entry(folder: Path, name: str = "ckpt", **fields: object) -> Checkpoint:
    values: dict[str, object] = {
        "path": f"/{name}",
        "base": str(folder),
        "inner": name,
        "url": f"file://{folder}/store/{name}",
        "frequency": 600.0,
    }
    return Checkpoint(**{**values, **fields})  # type: ignore[arg-type]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class Stuck:
    """A storage that does not come to an end by itself."""

    def update(
        self, source: int, prefix: str, regex: str | None, seen_as: str, check: Callable[[], None]
    ) -> Copied:
        while True:
            check()
            time.sleep(0.01)


def test_entries_do_not_wait_for_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        checkpoints,
        "open_storage",
        lambda url: (Stuck(), "") if url == "stuck" else open_storage(url),
    )
    for name in ("slow", "quick"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").write_text("1")
    said: list[str] = []
    entries = [
        entry(tmp_path, "slow", url="stuck", frequency=0.0),
        entry(tmp_path, "quick", frequency=0.0),
    ]
    checkpointer = Checkpointer(entries, said.append)
    checkpointer.start()
    until(lambda: sum("/quick finished" in line for line in said) >= 2)
    assert said.count("checkpointing /slow to stuck") == 1  # it is still at its first turn
    checkpointer.finish(0.1)
    with pytest.raises(StorageError, match=r"the last checkpoint of /slow .* grace period"):
        checkpointer.join()
    assert names(tmp_path / "store") == ["quick"]


def test_the_last_turn_comes_at_once_and_names_every_failure(tmp_path: Path) -> None:
    (tmp_path / "ckpt").mkdir()
    (tmp_path / "ckpt/a").write_text("1")
    (tmp_path / "file").touch()
    entries = [
        entry(tmp_path),
        entry(tmp_path, url="s3://bucket/x"),
        entry(tmp_path, url=f"file://{tmp_path}/file/x"),
        entry(tmp_path, regex="["),
    ]
    checkpointer = Checkpointer(entries, lambda _: None)
    checkpointer.start()
    checkpointer.finish()
    with pytest.raises(StorageError) as caught:
        checkpointer.join()
    words = str(caught.value)
    assert words.count("the last checkpoint of /ckpt") == 3
    assert "s3://bucket" in words
    assert "regular expression" in words
    assert (tmp_path / "store/ckpt/a").exists()


KEEP = (
    "import os, sys; from pathlib import Path; from cairn_runtime.pod import main;"
    "sys.exit(main('keep', os.environ, Path(sys.argv[1])))"
)


class Sidecar:
    """`keep` as a process, with one checkpoint of `work` and one target of the outputs."""

    def __init__(self, folder: Path, **fields: object) -> None:
        self.data = folder / "data"
        (self.data / "output").mkdir(parents=True)
        self.work = folder / "work"
        self.work.mkdir()
        order = {
            "inputs": [],
            "outputs": [{"url": f"file://{folder}/kept", "regex": None}],
            "checkpoints": [
                {
                    "path": "/train",
                    "base": str(self.work),
                    "inner": "",
                    "url": f"file://{folder}/saved",
                    "frequency": 0.1,
                    "regex": None,
                    **fields,
                }
            ],
        }
        self.process = subprocess.Popen(
            [sys.executable, "-c", KEEP, str(self.data)],
            env=os.environ | {"CAIRN_POD": json.dumps(order)},
            stdout=subprocess.PIPE,
            text=True,
        )
        until(lambda: main("ready", {}, self.data) == 0)

    def end(self) -> tuple[int, str]:
        self.process.send_signal(signal.SIGTERM)
        said, _ = self.process.communicate(timeout=20)
        return self.process.returncode, said


def test_the_sidecar_copies_while_it_waits_and_once_more(tmp_path: Path) -> None:
    sidecar = Sidecar(tmp_path)
    (sidecar.work / "step-1").write_text("1")
    (sidecar.data / "output/out").write_text("1")
    until((tmp_path / "saved/step-1").exists)
    assert not (tmp_path / "kept").exists()
    (sidecar.work / "step-2").write_text("2")
    code, said = sidecar.end()
    assert code == 0
    assert names(tmp_path / "saved") == ["step-1", "step-2"]
    assert names(tmp_path / "kept") == ["out"]
    assert f"checkpointing /train to file://{tmp_path}/saved" in said


def test_a_last_checkpoint_that_fails_is_the_sidecars_last_word(tmp_path: Path) -> None:
    sidecar = Sidecar(tmp_path, url="s3://bucket/x")
    (sidecar.work / "step").write_text("1")
    (sidecar.data / "output/out").write_text("1")
    code, said = sidecar.end()
    assert code == 1
    assert said.splitlines()[-1].startswith("the last checkpoint of /train to s3://bucket/x failed")
    assert names(tmp_path / "kept") == ["out"]  # kept all the same
