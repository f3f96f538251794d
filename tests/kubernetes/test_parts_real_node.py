"""Where a real node cannot be had, it is said why."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from testcluster.node import able


@pytest.mark.parametrize(
    ("where", "name", "answer", "words"),
    [
        (os, "geteuid", 1000, "it needs root"),
        (os, "cpu_count", 1, "it needs two CPUs"),
        (shutil, "which", None, "it needs the programs gcc, go, ip, mount, unshare"),
    ],
)
def test_what_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, where: object, name: str, answer: object, words: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(where, name, lambda *_: answer)
    assert able.why_no_node.__wrapped__() == words


def test_an_older_go_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = tmp_path / "go.mod"
    module.write_text("module later\n\ngo 99.0.1\n")
    monkeypatch.setattr(able, "_MODULE", module)
    assert able._why_no_go().startswith("it needs Go 99.0.1 or newer, not 1.")
