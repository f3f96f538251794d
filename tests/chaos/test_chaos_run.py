"""A short run of chaos: a dozen workflows under way, one fault of each sort."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .run import Settings, run_chaos
from .system import System

SORTS = ("kill -9 of several", "stop postgres", "pause engine", "delete all", "wipe JetStream")


@pytest.fixture
def home() -> Iterator[Path]:
    """A short path, for the sake of the sockets in it."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        yield Path(folder)
        System(Path(folder), 2, 1).unmount()


@pytest.mark.timeout(600)
async def test_nothing_is_lost_doubled_or_stuck(home: Path) -> None:
    told: list[str] = []
    settings = Settings(minutes=2.0, workflows=12, seed=3, only=SORTS, faults=len(SORTS))
    outcome = await run_chaos(settings, home, told.append)
    assert outcome.good, "\n".join([*told, outcome.tables()])
    assert len(outcome.injections) == len(SORTS)
    assert outcome.ended > 12
