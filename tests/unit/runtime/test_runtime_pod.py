"""The containers beside a task in a pod, as processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cairn_runtime.pod import main


def order(inputs: list[dict[str, object]], outputs: list[dict[str, object]]) -> dict[str, str]:
    return {"CAIRN_POD": json.dumps({"inputs": inputs, "outputs": outputs})}


def test_inputs_are_there_before_the_task(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    for name, mode in (("a.txt", 0o600), ("run.sh", 0o700)):
        (tmp_path / "store" / name).write_text("a")
        (tmp_path / "store" / name).chmod(mode)
    (tmp_path / "store/link").symlink_to("a.txt")
    source = {
        "number": 1,
        "url": f"file://{tmp_path}/store",
        "label": "prepare",
        "regex": None,
        "required": False,
    }
    assert main("fetch", order([source], []), tmp_path / "data") == 0
    brought = tmp_path / "data/input/1"
    assert (brought / "link").read_text() == "a"
    assert (brought / "a.txt").stat().st_mode & 0o777 == 0o644
    assert (brought / "run.sh").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "data/output").stat().st_mode & 0o777 == 0o777


def test_an_input_that_is_missing_fails_with_its_name(tmp_path: Path) -> None:
    source = {"number": 0, "url": f"file://{tmp_path}/no", "label": "sets", "required": True}
    assert main("fetch", order([source], []), tmp_path / "data") == 1


def at_barrier(word: Path) -> subprocess.Popen[bytes]:
    code = (
        "import sys; from pathlib import Path; from cairn_runtime.pod import main;"
        "sys.exit(main('barrier', {}, Path(), Path(sys.argv[1])))"
    )
    return subprocess.Popen([sys.executable, "-c", code, str(word)])


def handles(pid: int, number: int) -> bool:
    """Whether a process has a handler of its own for a signal, see proc(5)."""
    status = Path(f"/proc/{pid}/status").read_text()
    (mask,) = [line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:")]
    return bool(int(mask, 16) >> (number - 1) & 1)


def test_the_barrier_holds_until_the_word_is_open(tmp_path: Path) -> None:
    word = tmp_path / "word"
    word.write_text("closed")
    process = at_barrier(word)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=0.5)
    word.with_name("next").write_text("open")
    word.with_name("next").replace(word)  # as the kubelet does it
    assert process.wait(timeout=20) == 0


def test_who_waits_at_the_barrier_can_be_stopped(tmp_path: Path) -> None:
    word = tmp_path / "word"
    word.write_text("closed")
    process = at_barrier(word)
    deadline = time.monotonic() + 20
    while not handles(process.pid, signal.SIGTERM):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.terminate()
    assert process.wait(timeout=20) == 128 + signal.SIGTERM


def test_outputs_are_kept_when_the_task_has_ended(tmp_path: Path) -> None:
    output = tmp_path / "data" / "output"
    output.mkdir(parents=True)
    target = {"url": f"file://{tmp_path}/kept", "regex": None}
    code = (
        "import os, sys; from pathlib import Path; from cairn_runtime.pod import main;"
        "sys.exit(main('keep', os.environ, Path(sys.argv[1])))"
    )
    assert main("ready", {}, tmp_path / "data") == 1
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "data")],
        env=os.environ | order([], [target]),
        stdout=subprocess.PIPE,
    )
    deadline = time.monotonic() + 20
    while main("ready", {}, tmp_path / "data") != 0:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    (output / "model.bin").write_bytes(b"weights")
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 0
    assert (tmp_path / "kept" / "model.bin").read_bytes() == b"weights"
