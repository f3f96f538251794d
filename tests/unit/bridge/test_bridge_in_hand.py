"""Orders in hand: acknowledged in order, and left out if they were stopped before they began."""

from __future__ import annotations

import asyncio
import random
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from cairn_bridge.acks import Acks
from cairn_bridge.cluster import AttemptKey, Identity, identity
from cairn_bridge.pending import Pending, without
from cairn_common.events import GroupPlacement, TaskPlacement
from cairn_common.messaging import Inbox, Message


class Server:
    """Takes acknowledgements of all up to one, as JetStream does."""

    def __init__(self) -> None:
        self.incarnation = 0
        self.acknowledged = 0
        self.counted = 0

    async def ack(self, last: Message, count: int) -> None:
        if last.incarnation == self.incarnation:
            self.acknowledged = last.sequence
            self.counted += count

    def message(self, number: int, workflow: str = "w") -> Message:
        return Message(
            f"task.ready.c.{workflow}",
            {},
            b"",
            f"$JS.ACK.S.D.1.{number}.{number}.0.0",
            cast("Inbox", cast("Any", self)),
            self.incarnation,
        )


@given(st.integers(1, 30), st.randoms(use_true_random=False))
def test_a_message_is_acknowledged_when_all_before_it_are_done(
    count: int, order: random.Random
) -> None:
    async def run() -> None:
        server, acks = Server(), Acks()
        messages = [server.message(number + 1) for number in range(count)]
        for message in messages:
            acks.take(message)
        done: set[int] = set()
        for message in order.sample(messages, count):
            await acks.done([message])
            done.add(message.sequence)
            whole = next(n for n in range(count + 1) if n + 1 not in done)
            assert server.acknowledged == whole
            assert server.counted == whole

    asyncio.run(run())


async def test_those_of_a_former_durable_do_not_count() -> None:
    server, acks = Server(), Acks()
    old = [server.message(number) for number in (1, 2, 3)]
    server.incarnation = 1
    new = [server.message(number) for number in (1, 2, 3)]
    for message in (*old, *new):
        acks.take(message)
    await acks.done([*old[1:], new[0]])
    assert server.acknowledged == 0
    await acks.done(old[:1])
    assert (server.acknowledged, server.counted) == (1, 1)
    await acks.done(new[1:])
    assert (server.acknowledged, server.counted) == (3, 3)


def keys(workflow: str, *indices: int) -> list[AttemptKey]:
    return [AttemptKey(workflow, index, 0, f"t{index}") for index in indices]


def placement(tasks: int) -> GroupPlacement:
    return GroupPlacement(
        workflow="w",
        workflow_uuid="u",
        group="g",
        group_index=0,
        group_uuid="g",
        tasks=[
            TaskPlacement(index=i, name=f"t{i}", uuid="u", image="x", command=["true"])
            for i in range(tasks)
        ],
    )


def test_a_stop_is_remembered_as_long_as_something_of_its_workflow_waits() -> None:
    pending, server = Pending(), Server()
    pending.stop("w", keys("w", 0))  # nothing of it waits: that is for the driver
    first, other, last = server.message(1), server.message(2, "v"), server.message(3)
    for message in (first, other, last):
        pending.push(message)
    assert pending.pop() == (first, set())
    pending.stop("w", keys("w", 1, 2))
    assert pending.pop() == (other, set())
    assert pending.pop() == (last, {("w", 1, 0), ("w", 2, 0)})
    assert not pending
    pending.push(first)
    assert pending.pop() == (first, set())


def test_what_is_left_of_a_placement() -> None:
    whole = placement(3)
    stopped: set[Identity] = {identity(key) for key in keys("w", 0, 2)}
    left = without(whole, stopped)
    assert left is not None
    assert [task.index for task in left.tasks] == [1]
    assert without(whole, set()) is whole
    assert without(whole, {("w", 9, 0)}) is whole
    assert without(whole, stopped | {("w", 1, 0)}) is None
