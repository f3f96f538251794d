"""What following many logs costs: the API server in requests, the bridge in memory."""

from __future__ import annotations

import asyncio
import tracemalloc
from typing import Any, cast

import pytest

from cairn_bridge.cluster import AttemptKey
from cairn_bridge.drivers.kubernetes.api import Kind
from cairn_bridge.drivers.kubernetes.logs import Gates, LogFollower, Pauses


def test_a_log_that_ends_with_nothing_new_is_asked_for_ever_more_rarely() -> None:
    pauses = Pauses()
    waited = [pauses.after(brought=number == 0, whole=True) for number in range(6)]
    assert waited == [1.0, 5.0, 25.0, 60.0, 60.0, 60.0]
    assert pauses.after(brought=True, whole=True) == 1.0


def test_a_connection_that_broke_is_soon_tried_again() -> None:
    pauses = Pauses()
    assert [pauses.after(brought=False, whole=False) for _ in range(5)] == [0.1, 0.5, 2.5, 5.0, 5.0]
    assert pauses.after(brought=True, whole=False) == 0.1


def test_who_waits_to_follow_takes_little_memory() -> None:
    gates, count = Gates(0, 1), 1000
    nothing: Any = cast("Any", None)
    key = AttemptKey("w", 0, 0, "t")
    pods = Kind("v1", "pods", "default")
    tracemalloc.start()
    try:
        followers = [
            LogFollower(
                nothing, pods, "pod", key, helpers=True, mask=nothing, reporter=nothing, gates=gates
            )
            for _ in range(count)
        ]
        for follower in followers:
            follower.start()
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken / count < 800


class Answer:
    """A response that is never read."""

    def __init__(self) -> None:
        self.content = asyncio.StreamReader()
        self.closed = False

    def close(self) -> None:
        self.closed = True


class SlowApi:
    """An API that answers when it is told to."""

    def __init__(self) -> None:
        self.may_answer = asyncio.Event()
        self.asked = asyncio.Event()
        self.answers: list[Answer] = []

    async def open(self, *_: Any) -> Answer:
        self.asked.set()
        await self.may_answer.wait()
        self.answers.append(Answer())
        return self.answers[-1]


async def no_mask() -> Any:
    return str


@pytest.mark.parametrize("way", ["close", "rewind"])
async def test_an_answer_that_nobody_wants_any_more_is_closed(way: str) -> None:
    api = SlowApi()
    follower = LogFollower(
        cast("Any", api),
        Kind("v1", "pods", "default"),
        "pod",
        AttemptKey("w", 0, 0, "t"),
        helpers=False,
        mask=no_mask,
        reporter=cast("Any", None),
        gates=Gates(1, 1),
    )
    follower.start()
    await api.asked.wait()
    api.may_answer.set()
    while not api.answers:
        await asyncio.sleep(0)
    if way == "rewind":
        follower.rewind(0)
        for _ in range(10):
            await asyncio.sleep(0)
        assert api.answers[0].closed
    await follower.close()
    assert all(answer.closed for answer in api.answers)
