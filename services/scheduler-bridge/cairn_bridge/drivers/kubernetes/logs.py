"""The log of a pod's containers as numbered lines, followed as they come.

Lines are numbered by their place in the log: first those of the init container, then the user's
command, then the sidecar's; Cairn's own containers are stream `cairn`. So a bridge that starts
anew reads from the beginning and gives every line the same number again, and whoever stores them
drops what they have. Within one bridge a connection that breaks is taken up at the time of the
last line: the server knows seconds only, and what of that second was read is skipped by time and
count.

The next lines are read when the last ones have been reported: a slow bus holds the reading, the
API server's connection, and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Final, Literal, NamedTuple

import aiohttp
import structlog

from cairn_bridge.cluster import AttemptKey, Reporter
from cairn_bridge.drivers.kubernetes.api import Api, ApiError, Kind
from cairn_bridge.drivers.kubernetes.core import names
from cairn_bridge.drivers.kubernetes.core.masking import Mask
from cairn_common.events import LogLine

log = structlog.get_logger(__name__)

LINES_AT_ONCE: Final = 500
BYTES_AT_ONCE: Final = 256 * 1024
LINE_LIMIT: Final = 64 * 1024
_CHUNK: Final = 64 * 1024
_TRIES_AT_END: Final = 5
_MASK_PAUSE: Final = 5.0
_LINGER_SECONDS: Final = 0.2
"""How long after its container's end a connection may take to bring the next lines."""

Stream = Literal["stdout", "cairn"]


class Source(NamedTuple):
    """One container's part of the log."""

    container: str
    stream: Stream


_TASK: Final = Source(names.TASK_CONTAINER, "stdout")
_ALL: Final = (
    Source(names.FETCH_CONTAINER, "cairn"),
    _TASK,
    Source(names.KEEP_CONTAINER, "cairn"),
)


class _Position(NamedTuple):
    """The time of the last line read, and how many lines of that time were."""

    at: str = ""
    lines: int = 0


class Pauses:
    """How long to wait before the next connection; seconds.

    One that broke is soon tried again. A node that ends the log of a container that runs is asked
    ever more rarely as long as it has nothing new: five hundred such logs, each asked for every few
    seconds, would take a small API server's whole time.
    """

    BROKEN: Final = (0.1, 5.0)
    QUIET: Final = (1.0, 60.0)
    _GROWTH: Final = 5

    def __init__(self) -> None:
        self._next = 0.0

    def after(self, *, brought: bool, whole: bool) -> float:
        """The pause after a connection: whether it brought lines, and came to the log's end."""
        first, longest = self.QUIET if whole else self.BROKEN
        pause = first if brought else min(max(first, self._next), longest)
        self._next = pause * self._GROWTH
        return pause


class Gates:
    """How many logs of running and of ended pods are read at once.

    Who waits to follow is one entry in a queue, and no task: there may be ten thousand.
    """

    def __init__(self, following: int, reading: int) -> None:
        self.reading = asyncio.Semaphore(reading)
        self._free = following
        self._waiting: dict[LogFollower, None] = {}

    def enter(self, follower: LogFollower) -> None:
        """Let in who wants to follow, now or when it is its turn."""
        if self._free:
            self._free -= 1
            follower.follow()
        else:
            self._waiting[follower] = None

    def forget(self, follower: LogFollower) -> None:
        """It does not want to follow any more."""
        self._waiting.pop(follower, None)

    def close(self) -> None:
        """Let nobody in any more."""
        self._waiting.clear()

    def leave(self) -> None:
        """One that followed has read all: the next one may."""
        self._free += 1
        if self._waiting:
            following = next(iter(self._waiting))
            del self._waiting[following]
            self.enter(following)


class LogFollower:
    """Brings one attempt's log to the reporter.

    Args:
        api: the API server.
        pods: the kind of pods, with their namespace.
        pod: the pod's name.
        key: whose log it is.
        helpers: whether the pod has containers of `cairn_runtime`.
        mask: reads what must be hidden; while it cannot, nothing is said.
        reporter: takes lines.
        gates: how many logs are followed at once, and how many of ended pods are read.
    """

    def __init__(
        self,
        api: Api,
        pods: Kind,
        pod: str,
        key: AttemptKey,
        *,
        helpers: bool,
        mask: Callable[[], Awaitable[Mask]],
        reporter: Reporter,
        gates: Gates,
    ) -> None:
        self._api = api
        self._mask = mask
        self._path = pods.at(pod, "log")
        self._key = key
        self._reporter = reporter
        self._gates = gates
        self._sources = _ALL if helpers else (_TASK,)
        self._rewind: int | None = None
        self._task: asyncio.Task[int] | None = None

    # An event takes most of a kilobyte; of ten thousand followers most only wait for their turn.

    @cached_property
    def _command_over(self) -> asyncio.Event:
        return asyncio.Event()

    @cached_property
    def _ended(self) -> asyncio.Event:
        return asyncio.Event()

    @cached_property
    def _rewound(self) -> asyncio.Event:
        return asyncio.Event()

    def start(self) -> None:
        """Begin to follow when it is our turn."""
        self._gates.enter(self)

    def follow(self) -> None:
        """Begin to follow; for `Gates`."""
        self._task = asyncio.create_task(self._follow())

    def command_over(self) -> None:
        """The user's command has ended; its pod may go on."""
        self._command_over.set()

    async def finish(self) -> int:
        """The pod has ended: report the rest, and return the number of lines."""
        self._command_over.set()
        self._ended.set()
        self._gates.forget(self)
        if self._task is None:  # who has ended does not wait for those that run
            self._task = asyncio.create_task(self._read_ended())
        return await self._task

    def rewind(self, seq: int) -> None:
        """Report again from a line on; for a log that is still followed."""
        self._rewind = seq if self._rewind is None else min(seq, self._rewind)
        self._rewound.set()

    async def close(self) -> None:
        """Stop following."""
        self._gates.forget(self)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _follow(self) -> int:
        try:
            return await self._run()
        finally:
            self._gates.leave()

    async def _read_ended(self) -> int:
        async with self._gates.reading:
            return await self._run()

    async def _run(self) -> int:
        mask = await self._read_mask()
        from_seq = self._rewind or 0
        while True:
            self._rewind = None
            self._rewound.clear()
            reading = _Reading(self._key, from_seq, self._reporter, mask)
            if await self._read_all(reading) and self._rewind is None:
                await reading.finish()
                return reading.seq
            from_seq = self._rewind or 0

    async def _read_mask(self) -> Mask:
        while True:
            try:
                return await self._mask()
            except (ApiError, aiohttp.ClientError, TimeoutError, OSError) as error:
                if self._ended.is_set():
                    raise
                log.warning("kubernetes.log_withheld", task=self._key, error=repr(error))
                await _first_of((self._ended,), _MASK_PAUSE)

    async def _read_all(self, reading: _Reading) -> bool:
        """Reads every source to its end; False if it is to begin anew."""
        for source in self._sources:
            over = self._command_over if source.container == names.TASK_CONTAINER else self._ended
            skip = _Skip()
            pauses, failures = Pauses(), 0
            while True:
                last, lines, whole = over.is_set(), reading.seq, False
                try:
                    whole = await self._read(source, skip, reading, over)
                    failures = 0
                    if self._rewind is not None:
                        return False
                    # What ends before its container does has only lost its connection.
                    if last or (whole and source.container == names.FETCH_CONTAINER):
                        break
                except ApiError as error:
                    if last or error.status in {404, 410}:
                        log.debug("kubernetes.no_log", task=self._key, error=str(error))
                        break
                except (aiohttp.ClientError, TimeoutError, OSError) as error:
                    failures += 1
                    if last and failures >= _TRIES_AT_END:
                        log.warning("kubernetes.log_lost", task=self._key, error=repr(error))
                        break
                if not over.is_set() or failures:
                    pause = pauses.after(brought=reading.seq > lines, whole=whole)
                    await _first_of((over, self._rewound), pause)
        return True

    async def _read(
        self, source: Source, skip: _Skip, reading: _Reading, over: asyncio.Event
    ) -> bool:
        """One connection's worth of lines; whether the log came to its end.

        While the container runs it is followed. When it is over and no line has come for a
        moment, the connection is given up; the caller reads what is left.
        """
        query = {"container": source.container, "timestamps": "true"}
        follow = not over.is_set()
        if follow:
            query["follow"] = "true"
        skip.resume()
        if skip.position.at:
            query["sinceTime"] = f"{skip.position.at[:19]}Z"
        signals = [asyncio.create_task(self._rewound.wait())]
        if follow:
            signals.append(asyncio.create_task(over.wait()))
        # A server may answer nothing at all before the first line.
        opening = asyncio.create_task(self._api.open(self._path, query))
        try:
            if not await _ready(opening, signals):
                return False
            content = opening.result().content
            return await self._pump(content, source, skip, reading, signals)
        finally:
            for task in (opening, *signals):
                task.cancel()
            await asyncio.gather(opening, *signals, return_exceptions=True)
            # It may have been answered just when nobody wanted to know any more.
            if not opening.cancelled() and opening.exception() is None:
                opening.result().close()

    async def _pump(
        self,
        content: aiohttp.StreamReader,
        source: Source,
        skip: _Skip,
        reading: _Reading,
        signals: list[asyncio.Task[Any]],
    ) -> bool:
        """Reports what comes; whether it came to its end."""
        splitter = _Lines()
        while True:
            reader = asyncio.create_task(content.read(_CHUNK))
            try:
                if not await _ready(reader, signals):
                    return False
                data = reader.result()
            finally:
                reader.cancel()
            for text in splitter.feed(data) if data else splitter.end():
                at, _, line = text.partition(" ")
                if skip.passes(at):
                    reading.add(at, source.stream, line)
            await reading.flush()
            if not data:
                return True


async def _ready(reader: asyncio.Task[Any], signals: list[asyncio.Task[Any]]) -> bool:
    """Whether something was read; False when it is time to let go of the connection."""
    await asyncio.wait({reader, *signals}, return_when=asyncio.FIRST_COMPLETED)
    if signals[0].done():
        return False
    if not reader.done():
        await asyncio.wait({reader}, timeout=_LINGER_SECONDS)
    return reader.done()


async def _first_of(events: Sequence[asyncio.Event], seconds: float) -> None:
    """Until one of them, and no longer than so many seconds."""
    waiting = [asyncio.create_task(each.wait()) for each in events]
    await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


class _Skip:
    """Lets pass what lies behind the position that was reached before."""

    def __init__(self) -> None:
        self._until = self.position = _Position()
        self._seen = 0

    def resume(self) -> None:
        """The log comes again, from some moment before the position."""
        self._until, self._seen = self.position, 0

    def passes(self, at: str) -> bool:
        if self._until.at and at < self._until.at:
            return False
        if at == self._until.at:
            self._seen += 1
            if self._seen <= self._until.lines:
                return False
        same = at == self.position.at
        self.position = _Position(at, self.position.lines + 1 if same else 1)
        return True


class _Lines:
    """Cuts bytes into lines of bounded length, each with the server's timestamp in front."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        found = [text for line in lines for text in _pieces(line)]
        while len(self._rest) > LINE_LIMIT + 64:
            stamp, _, rest = self._rest.partition(b" ")
            piece, rest = rest[:LINE_LIMIT], rest[LINE_LIMIT:]
            found.append(f"{stamp.decode()} {piece.decode('utf-8', 'replace')}")
            self._rest = stamp + b" " + rest
        return found

    def end(self) -> list[str]:
        rest, self._rest = self._rest, b""
        return _pieces(rest) if rest else []


def _pieces(line: bytes) -> list[str]:
    stamp, _, text = line.partition(b" ")
    at = stamp.decode("ascii", "replace")
    return [
        f"{at} {text[start : start + LINE_LIMIT].decode('utf-8', 'replace')}"
        for start in range(0, max(1, len(text)), LINE_LIMIT)
    ]


class _Reading:
    """Numbers lines and reports them, the last ones together with the word that they are."""

    def __init__(self, key: AttemptKey, from_seq: int, reporter: Reporter, mask: Mask) -> None:
        self.seq = 0
        self._mask = mask
        self._key = key
        self._from = from_seq
        self._reporter = reporter
        self._held: list[LogLine] = []
        self._size = 0
        self._last: LogLine | None = None
        self._full: list[list[LogLine]] = []

    def add(self, at: str, stream: Stream, text: str) -> None:
        line = LogLine(seq=self.seq, at=_moment(at), stream=stream, text=self._mask(text))
        self.seq += 1
        self._last = line
        if line.seq < self._from:
            return
        self._held.append(line)
        self._size += len(text)
        if len(self._held) >= LINES_AT_ONCE or self._size >= BYTES_AT_ONCE:
            self._full.append(self._held)
            self._held, self._size = [], 0

    async def flush(self) -> None:
        batches, self._full = self._full, []
        if self._held:
            batches.append(self._held)
            self._held, self._size = [], 0
        for batch in batches:
            await self._reporter.log(self._key, batch, final=False)

    async def finish(self) -> None:
        """The last line goes along, or nobody would notice that it was lost."""
        await self.flush()
        await self._reporter.log(self._key, [self._last] if self._last else [], final=True)


def _moment(text: str) -> datetime:
    """A timestamp of nanoseconds, as exact as Python has it."""
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except ValueError:
        return datetime.now(UTC)
