"""One attempt, followed from its launch to its outcome.

Two coroutines per running attempt: one hears the shim's letters and, at their end, judges how the
attempt ended; the other brings the log to the reporter, as fast as that takes it and no faster.
The shim's end comes first, then the whole log, then the fact.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from concurrent.futures import Executor
from datetime import UTC, datetime

from cairn_bridge.cluster import AttemptKey, Outcome, Phase, Reporter
from cairn_bridge.drivers.local.admission import Slots
from cairn_bridge.drivers.local.logs import batches
from cairn_common.events import FinishReason, LogLine, TaskPlacement
from cairn_runtime.logfile import Line, Position, Reader
from cairn_runtime.room import Ending, Room, Stop


class Attempt:
    """What the driver knows of one attempt."""

    def __init__(
        self, key: AttemptKey, room: Room, task: TaskPlacement | None, gang: int, need: Slots
    ) -> None:
        self.key = key
        self.room = room
        self.task = task  # gone once it has been launched: ten thousand ended ones cost little
        self.gang = gang
        self.need = need
        self.phase = Phase.ACCEPTED
        self.at = datetime.now(UTC)
        self.outcome: Outcome | None = None
        self.ending: Ending | None = None  # judged by the driver, not left by a shim
        self.stop: Stop | None = None
        self.ready = False
        self.holds_slots = False
        self.reported = False  # its end
        self.told = asyncio.Event()  # its end has been reported, now or before a restart
        self._connection: socket.socket | None = None
        self._grown = asyncio.Event()
        self._ended = False
        self._rewind: int | None = None
        self._safe = Position()  # what lies before it has been reported

    def reach(self, phase: Phase) -> datetime:
        """Notes a new phase and when it was reached."""
        self.phase, self.at = phase, datetime.now(UTC)
        return self.at

    def judge(self, ending: Ending) -> None:
        """The driver says how it ended: it never ran, or nobody can tell."""
        self.ending = ending
        self.task = None
        self.reach(Phase.FINISHED)

    def end(self, outcome: Outcome) -> None:
        """Its end has been reported."""
        self.phase, self.outcome = Phase.FINISHED, outcome
        self.told.set()

    # --- orders ---

    def connect(self, connection: socket.socket) -> None:
        """Takes over our end of a connection to the shim."""
        connection.setblocking(False)
        self._connection = connection
        if self.stop is not None:
            self._order(self.stop.encode())

    def release(self) -> None:
        """The barrier is open: the command may start."""
        self._order(b"go\n")

    def order_stop(self, stop: Stop) -> None:
        """Has the attempt ended; the first order's cause stays."""
        if self.stop is None:
            self.stop = stop
        self._order(stop.encode())

    def _order(self, line: bytes) -> None:
        if self._connection is not None:
            with contextlib.suppress(OSError):  # gone: its end is being seen elsewhere
                self._connection.send(line)

    def rewind(self, seq: int) -> None:
        """Has the log of a running attempt reported again from a line on."""
        self._rewind = seq if self._rewind is None else min(seq, self._rewind)
        self._grown.set()

    def disconnect(self) -> None:
        """Lets go of the shim, which goes on."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # --- following ---

    async def hear(self, heard: Callable[[str], object]) -> None:
        """Calls `heard` with each letter but L; returns when the shim has gone."""
        loop = asyncio.get_running_loop()
        while self._connection is not None:
            try:
                letters = await loop.sock_recv(self._connection, 4096)
            except ConnectionError:
                letters = b""
            if not letters:
                break
            self._grown.set()
            for letter in letters.replace(b"L", b"").decode():
                heard(letter)
        self.disconnect()

    def end_log(self) -> None:
        """No line follows what is in the file."""
        self._ended = True
        self._grown.set()

    async def bring_log(self, reporter: Reporter, executor: Executor) -> int:
        """Reports the log as it grows, to its end; returns its number of lines."""
        loop = asyncio.get_running_loop()
        reader = Reader(self.room.log, self._reported_position())
        from_seq = 0
        held: list[LogLine] = []  # the last lines go along with `final`
        last: list[Line] = []  # or the last one, if all were reported already
        while True:
            await self._grown.wait()
            self._grown.clear()
            ended = self._ended
            if self._rewind is not None:
                from_seq, self._rewind, held = self._rewind, None, []
                reader = Reader(self.room.log)
                await loop.run_in_executor(executor, reader.skip_to, max(0, from_seq - 1))
            while lines := await loop.run_in_executor(executor, self._read, reader):
                last = lines[-1:]
                for batch in batches(lines, from_seq):
                    if held:
                        await reporter.log(self.key, held, final=False)
                    held = batch
            if held and not ended:
                await reporter.log(self.key, held, final=False)
                held = []
            if ended and self._rewind is None:
                # Without it, nobody would notice that the lines before the end were lost.
                if not held and last:
                    (held,) = batches(last)
                await reporter.log(self.key, held, final=True)
                return reader.position.seq

    def _reported_position(self) -> Position:
        with contextlib.suppress(OSError, ValueError):
            offset, seq = self.room.reported.read_text(encoding="ascii").split()
            return Position(int(offset), int(seq))
        return Position()

    def _read(self, reader: Reader) -> list[Line]:
        # What the read before this one brought may still be held back, what came before that has
        # been reported: a bridge that follows a killed one says some lines twice, and omits none.
        before = reader.position
        lines = reader.read()
        if lines:
            if self._safe.offset:
                text = f"{self._safe.offset} {self._safe.seq}"
                with contextlib.suppress(OSError):
                    self.room.reported.write_text(text, encoding="ascii")
            self._safe = before
        return lines


def outcome_of(ending: Ending, log_lines: int) -> Outcome:
    """An ending as it is reported."""
    started = ending.started_at
    return Outcome(
        reason=FinishReason(ending.reason),
        exit_code=ending.exit_code,
        message=ending.message,
        started_at=None if started is None else datetime.fromtimestamp(started, UTC),
        log_lines=log_lines,
        restarts=ending.restarts,
    )
