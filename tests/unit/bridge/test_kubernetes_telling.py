"""What is said of groups that wait, and how often."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest

from cairn_bridge.cluster import AttemptKey, Fact, Phase
from cairn_bridge.drivers.kubernetes import telling
from cairn_bridge.drivers.kubernetes.api import Kind
from cairn_bridge.drivers.kubernetes.attempts import Register
from cairn_bridge.drivers.kubernetes.core.observe import look
from cairn_bridge.drivers.kubernetes.telling import Teller
from cairn_common.events import LogLine

POD = {
    "metadata": {
        "name": "cairn-x-0",
        "uid": "u",
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "labels": {"cairn/index": "0", "cairn/group": "g"},
        "annotations": {
            "cairn/workflow": "w-1",
            "cairn/task": "t",
            "cairn/attempt": "0",
            "cairn/placement": "d.1",
        },
    },
    "spec": {"containers": [{"name": "task", "image": "ubuntu:24.04"}]},
    "status": {"phase": "Pending"},
}


class Said:
    """A reporter that only remembers."""

    def __init__(self) -> None:
        self.words: list[str | None] = []

    async def fact(self, fact: Fact) -> None:
        self.words.append(fact.message)

    async def log(self, key: AttemptKey, lines: Sequence[LogLine], *, final: bool) -> None:
        """Not of interest."""


async def test_what_changes_all_the_time_is_said_at_once_and_then_now_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(telling, "_WORDS_SECONDS", 0.3)
    said = Said()
    teller = Teller(cast("Any", None), Kind("v1", "pods", "default"), said, helpers=False)
    sight = look(POD)
    assert sight is not None
    attempt = Register().note(sight)
    attempt.told = Phase.ACCEPTED
    for number in range(50):
        attempt.gang.waits_for = f"waiting: for {50 - number} more"
        teller.mind_words(attempt.gang)
        await asyncio.sleep(0.002)
    assert said.words == ["waiting: for 50 more"]
    async with asyncio.timeout(20):
        while len(said.words) < 2:
            await asyncio.sleep(0.02)
    assert said.words[-1] == "waiting: for 1 more", "the last word is not lost"
    teller.mind_words(attempt.gang)
    await asyncio.sleep(0.6)
    assert len(said.words) == 2
    await teller.close()
