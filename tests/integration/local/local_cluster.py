"""A local cluster with real processes, and a reporter that remembers what it was told."""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cairn_bridge.cluster import AttemptKey, Fact, Outcome, Phase
from cairn_bridge.drivers.local import LocalDriver
from cairn_common.events import GroupPlacement, LogLine, TaskPlacement


class Recorder:
    """A `Reporter` whose story can be waited for."""

    def __init__(self) -> None:
        self.facts: list[Fact] = []
        self.lines: dict[AttemptKey, dict[int, LogLine]] = defaultdict(dict)
        self.story: list[tuple[AttemptKey, str]] = []
        self.finals: list[AttemptKey] = []
        self._changed = asyncio.Condition()

    async def fact(self, fact: Fact) -> None:
        async with self._changed:
            self.facts.append(fact)
            self.story += [(key, fact.phase.value) for key in fact.keys]
            self._changed.notify_all()

    async def log(self, key: AttemptKey, lines: Sequence[LogLine], *, final: bool) -> None:
        async with self._changed:
            for line in lines:
                self.lines[key].setdefault(line.seq, line)
            if final:
                self.finals.append(key)
                self.story.append((key, "log"))
            self._changed.notify_all()

    async def until(self, condition: Callable[[], bool], seconds: float = 30.0) -> None:
        async with asyncio.timeout(seconds), self._changed:
            await self._changed.wait_for(condition)

    def outcomes(self) -> dict[AttemptKey, Outcome]:
        return {fact.keys[0]: fact.outcome for fact in self.facts if fact.outcome is not None}

    def reached(self, key: AttemptKey, phase: Phase) -> bool:
        return any(fact.phase is phase and key in fact.keys for fact in self.facts)

    async def outcome(self, key: AttemptKey, seconds: float = 30.0) -> Outcome:
        await self.until(lambda: key in self.outcomes(), seconds)
        return self.outcomes()[key]

    async def started(self, key: AttemptKey) -> None:
        await self.until(lambda: self.reached(key, Phase.STARTED))

    async def line(self, key: AttemptKey, text: str) -> None:
        await self.until(lambda: text in self.texts(key))

    def texts(self, key: AttemptKey, stream: str | None = None) -> list[str]:
        lines = sorted(self.lines[key].values(), key=lambda line: line.seq)
        return [line.text for line in lines if stream in {None, line.stream}]


_numbers = itertools.count(1)


def shell(script: str, **fields: Any) -> TaskPlacement:
    """A task that runs a shell script."""
    values: dict[str, Any] = {
        "index": 0,
        "name": "task",
        "uuid": "u",
        "image": "ubuntu:24.04",
        "command": ["sh", "-c"],
        "args": [script],
    }
    return TaskPlacement(**values | fields)


def group(*tasks: TaskPlacement, **fields: Any) -> GroupPlacement:
    """A placement in a workflow of its own."""
    number = next(_numbers)
    values: dict[str, Any] = {
        "workflow": f"flow-{number}",
        "workflow_uuid": "w",
        "group": "g",
        "group_index": 0,
        "group_uuid": "g",
        "tasks": [task.model_copy(update={"index": i}) for i, task in enumerate(tasks)],
    }
    return GroupPlacement(**values | fields)


def keys_of(placement: GroupPlacement) -> list[AttemptKey]:
    """The attempts of a placement."""
    return [
        AttemptKey(placement.workflow, task.index, task.attempt, task.name)
        for task in placement.tasks
    ]


class Cluster:
    """A driver with its reporter and its folders."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.root = folder / "cluster"
        self.store = folder / "store"
        self.options = options
        self.recorder = Recorder()
        self.driver = LocalDriver(self.root, self.store, **options)

    async def run(self, *tasks: TaskPlacement, **fields: Any) -> list[tuple[AttemptKey, Outcome]]:
        placement = group(*tasks, **fields)
        await self.driver.place(placement, None)
        return [(key, await self.recorder.outcome(key)) for key in keys_of(placement)]

    async def one(self, script: str, **fields: Any) -> tuple[AttemptKey, Outcome]:
        return (await self.run(shell(script, **fields)))[0]

    async def again(self) -> None:
        """The bridge ends and another one starts."""
        await self.driver.close()
        self.recorder = Recorder()
        self.driver = LocalDriver(self.root, self.store, **self.options)
        await self.driver.start(self.recorder)

    async def empty(self) -> None:
        """Ends all that runs and forgets it."""
        await self.driver.stop(self.driver.known(), "the test is over", 0)
        known = self.driver.known()
        await self.recorder.until(lambda: set(known) <= set(self.recorder.outcomes()))
        await self.driver.settle(known)
