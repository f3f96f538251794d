"""Following a workflow: one reader of the record a workflow, however many followers.

An event on NATS only wakes the reader; what followers are told is what the record says. A fact
about a task reaches us when it reaches the engine, so the record may not hold it yet: after a
fact the reader looks again a few times, later and later. Looking now and then while nothing
is heard makes up for messages lost in a reconnect.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from cairn_api.core.model import Snapshot
from cairn_api.core.story import Story
from cairn_api.handlers.listening import Listening
from cairn_api.store import EngineMissingError, Reader, UnavailableError
from cairn_common.events import partition_of

log = structlog.get_logger(__name__)

_LOOK_AGAIN = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
_RETRY_SECONDS = 1.0
_REST = 2.0
"""After reading for a second, rest for this many: a huge workflow must not keep us busy."""


class Watch:
    """One workflow while somebody follows it.

    `version` counts what was different; `story` grows. `ended`: nothing will change any more.
    """

    def __init__(self, workflow: str, reader: Reader, debounce: float, idle: float) -> None:
        self.workflow = workflow
        self.version = 0
        self.snapshot: Snapshot | None = None
        self.story = Story()
        self.ended = False
        self._reader = reader
        self._debounce = debounce
        self._idle = idle
        self._wake = asyncio.Event()
        self._finished = asyncio.Event()
        self._fact = False
        self._changed = asyncio.Condition()

    def heard(self, subject: str) -> None:
        """Something has happened."""
        self._fact |= subject.startswith("task.")
        if subject.startswith("workflow.finished."):
            self._finished.set()
        self._wake.set()

    async def newer(self, version: int, seconds: float) -> bool:
        """Wait until there is something newer than `version`, or the end; False if time is up."""
        try:
            async with asyncio.timeout(seconds), self._changed:
                await self._changed.wait_for(lambda: self.ended or self.version > version)
        except TimeoutError:
            return False
        return True

    async def end(self) -> None:
        """Let the followers go."""
        async with self._changed:
            self.ended = True
            self._changed.notify_all()

    async def run(self) -> None:
        """Read until the workflow has ended."""
        clock = asyncio.get_running_loop().time
        looks = 0
        while True:
            self._wake.clear()
            if self._fact:
                self._fact, looks = False, len(_LOOK_AGAIN)
            began = clock()
            try:
                await self._look()
                pause = _LOOK_AGAIN[-looks] if looks else self._idle
                looks = max(0, looks - 1)
            except (UnavailableError, EngineMissingError) as error:
                log.info("workflow not read yet", workflow=self.workflow, error=str(error))
                pause = _RETRY_SECONDS
            cost = clock() - began
            if self.ended:
                return
            rest = _REST * cost
            if await _within(self._wake, max(pause, rest)):
                # What comes close together is told as one, but for the end nobody waits.
                await _within(self._finished, max(self._debounce, rest))
                self._finished.clear()

    async def _look(self) -> None:
        snapshot = await self._reader.snapshot(self.workflow)
        if snapshot == self.snapshot and snapshot is not None:
            return
        async with self._changed:
            self.snapshot = snapshot
            self.version += 1
            self.ended = snapshot is None or snapshot.workflow.status.final
            if snapshot is not None:
                self.story.follow(snapshot)
            self._changed.notify_all()


async def _within(event: asyncio.Event, seconds: float) -> bool:
    """Whether the event is set within that time."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True


class Watches:
    """The watches that somebody follows.

    Args:
        reader: the record.
        listening: to be woken.
        debounce: seconds; changes closer together are told as one.
        idle: seconds between looks while nothing is heard.
    """

    def __init__(
        self, reader: Reader, listening: Listening, *, debounce: float, idle: float
    ) -> None:
        self._reader = reader
        self._listening = listening
        self._debounce = debounce
        self._idle = idle
        self._open: dict[str, tuple[Watch, asyncio.Task[None]]] = {}
        self._followers: dict[Watch, int] = {}

    @asynccontextmanager
    async def follow(self, workflow: str) -> AsyncIterator[Watch]:
        """A watch of the workflow, shared with others, for the length of the block."""
        if workflow in self._open:
            watch, task = self._open[workflow]
        else:
            watch = Watch(workflow, self._reader, self._debounce, self._idle)
            task = asyncio.create_task(self._run(watch), name=f"watch {workflow}")
            self._open[workflow] = watch, task
        self._followers[watch] = self._followers.get(watch, 0) + 1
        try:
            yield watch
        finally:
            self._followers[watch] -= 1
            if not self._followers[watch]:
                del self._followers[watch]
                if self._open.get(workflow, (None,))[0] is watch:
                    del self._open[workflow]
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def close(self) -> None:
        """Let all followers go."""
        for watch, _ in list(self._open.values()):
            await watch.end()

    async def _run(self, watch: Watch) -> None:
        subject = f"*.*.{partition_of(watch.workflow)}.{watch.workflow}"
        try:
            async with self._listening.to(watch.heard, subject):
                await watch.run()
        finally:
            # Also after a failure: nobody may wait for a watch that does not look any more.
            await watch.end()
            if self._open.get(watch.workflow, (None,))[0] is watch:
                del self._open[watch.workflow]
