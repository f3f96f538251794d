"""The process that stands by one attempt from its first to its last moment.

It belongs to nobody: the bridge that had it started may be killed, and the next one finds it by
the attempt's directory. It fetches the inputs, has the command started in its room (`process`),
writes its log, watches its memory, has its checkpoints made, persists the outputs, and leaves
`exit.json`.

Who drives it connects to `socket` (the first driver is connected from birth) and is told in
single letters that something has changed; what it is stands in the directory:
`L` the log has grown, `R` ready to start, `S` the command has started. The end of the connection
means that the shim has gone. A driver says, in lines: `go`, `stop <Stop as JSON>`.
Another peer may ask for an exec instead, see `guest`.

`lifeline` is the end of a pipe that the supervisor of a standalone system holds. When it closes,
everything here is to vanish at once, and no outcome is left behind: nobody ran to the end.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

from cairn_runtime import guest, libc, process
from cairn_runtime.copying import StorageError
from cairn_runtime.keeper import Keeper
from cairn_runtime.logfile import LINE_LIMIT, STDERR, STDOUT, Splitter, Writer
from cairn_runtime.peers import Peer, listen
from cairn_runtime.reactor import Reactor
from cairn_runtime.room import NAMESPACES, Ending, Room, Stop, Task, write_atomically
from cairn_runtime.stages import Stage
from cairn_runtime.transfer import Say, fetch_inputs, persist_outputs

MEMORY_SECONDS = 0.5
INPUT_FAILED, OUTPUT_FAILED, START_ERROR = 2010, 2012, 3003  # exit codes of the user guide


def main(directory: Path, driver: socket.socket | None, lifeline: int | None) -> None:
    """Runs one attempt. Returns at once when another shim has it."""
    room = Room(directory)
    lock = os.open(room.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        # An fcntl lock: unlike flock's, it is not inherited by the task's processes.
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return
    if room.pid.exists():
        return  # another shim had it and is gone; running the command twice is not for us
    task = Task.decode(room.task.read_bytes())
    shim = Shim(room, task, driver, lifeline)
    room.pid.write_text(f"{os.getpid()} {_start_time()}\n", encoding="ascii")
    libc.set_process_name(f"cairn:{task.name}")
    libc.become_subreaper()
    shim.run()


def _start_time() -> str:
    return Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]


class Shim:
    """The life of one attempt, as a chain of callbacks: fetch, build, start, run, conclude."""

    def __init__(
        self, room: Room, task: Task, driver: socket.socket | None, lifeline: int | None
    ) -> None:
        self._room = room
        self._task = task
        self._lifeline = lifeline
        self._reactor = Reactor()
        self._log = Writer(room.log, task.log_limit)
        self._sight = room.sight(task.isolation, task.tools)
        self._listener = listen(room)
        self._reactor.read(self._listener.fileno(), self._welcome)
        if lifeline is not None:
            self._reactor.read(lifeline, self._vanish)
        self._drivers: dict[int, Peer] = {}
        if driver is not None:
            self._attach(driver)

        self._sandbox: process.Sandbox | None = None
        self._stage: Stage | None = None  # a running transfer
        self._keeper = Keeper(
            self._reactor, task.checkpoints, close=self._close_in_child, say=self._note
        )
        self._lost: str | None = None  # why the last checkpoint failed
        self._streams: dict[int, tuple[int, Splitter]] = {}  # descriptor -> stream, its splitter
        self._status = b""
        self._announced = b""
        self._told_to_go = not task.wait
        self._ready = False
        self._over = False
        self._restarts = 0
        self._pausing = False  # between two runs of the command
        self._started_at: float | None = None
        self._code: int | None = None
        self._reason = "exited"
        self._message: str | None = None
        self._stopping: Stop | None = None

    def run(self) -> None:
        """Serves until the attempt has ended and its outcome is on the disk."""
        self._room.furnish()
        for each in self._task.checkpoints:
            Path(each.base).mkdir(parents=True, exist_ok=True)
        if self._task.inputs:
            self._transfer(
                lambda say: fetch_inputs(self._room.inputs, self._task.inputs, say), self._fetched
            )
        else:
            self._build()
        self._reactor.run()

    # --- the chain ---

    def _fetched(self, failure: str | None) -> None:
        if self._stopping is not None:
            self._finish()
        elif failure is not None:
            self._fail("input-failed", INPUT_FAILED, failure)
        else:
            self._build()

    def _build(self) -> None:
        try:
            sandbox = process.start(self._room, self._task, self._close_in_child)
        except OSError as error:
            self._fail("start-error", START_ERROR, f"no room for the task: {error}")
            return
        self._sandbox = sandbox
        self._reactor.child(sandbox.pid, self._ended)
        self._reactor.soon()
        self._reactor.read(sandbox.status, self._hear)
        for descriptor, stream in ((sandbox.stdout, STDOUT), (sandbox.stderr, STDERR)):
            os.set_blocking(descriptor, False)
            self._streams[descriptor] = stream, Splitter()
            self._reactor.read(descriptor, lambda fd=descriptor: self._capture(fd))  # type: ignore[misc]

    def _hear(self) -> None:
        """What the init says, see `process`."""
        assert self._sandbox is not None
        data = os.read(self._sandbox.status, 65536)
        if not data:
            self._reactor.forget(self._sandbox.status)
            return
        *lines, self._status = (self._status + data).split(b"\n")
        for line in lines:
            words = process.decode_status(line)
            if words.ready:
                self._ready = True
                self._announce(b"R")
                self._go()
            if words.started:
                if self._started_at is None:
                    self._started_at = time.time()
                    self._room.started.write_text(f"{self._started_at:.6f}\n", encoding="ascii")
                    self._announce(b"S")
                    self._keeper.start()
                if self._task.memory:
                    self._watch_memory(self._restarts)
            if words.exit is not None:
                self._code = words.exit
            if words.error is not None:
                self._message = words.error
                self._log.note(words.error)
                if words.code is None:
                    self._reason, self._code = "start-error", START_ERROR
                else:
                    self._code = words.code

    def _go(self) -> None:
        if self._ready and self._told_to_go and self._sandbox is not None and not self._over:
            with contextlib.suppress(BrokenPipeError):
                os.write(self._sandbox.word, b"g")

    def _ended(self, status: int) -> None:
        """The init has ended, and with it, in namespaces, all else of the task."""
        sandbox = self._sandbox
        assert sandbox is not None
        self._over = True
        while self._reactor.watches(sandbox.status):
            self._hear()
        if self._code is None:
            self._code = process.exit_code(status) if self._started_at is not None else None
        if self._task.isolation != NAMESPACES:
            # What outlived the init is our child now, being an orphan below a subreaper.
            for orphan in process.descendants(os.getpid()):
                if orphan != self._keeper.pid:
                    process.kill_tree(orphan)
        for descriptor in list(self._streams):
            self._drain(descriptor)
        os.close(sandbox.status)
        os.close(sandbox.word)
        if (wait := self._wait_before_restart()) is not None:
            self._pause(wait)
        elif self._started_at is None and self._message is None and self._stopping is None:
            self._fail("start-error", START_ERROR, "the task's first process was killed")
        else:
            self._conclude()

    def _wait_before_restart(self) -> float | None:
        """Seconds, if the command is to run again after this end of it."""
        policy = self._task.restart
        if policy is None or not self._ran_to_its_end() or self._message is not None:
            return None
        return policy.wait_before(self._restarts + 1, self._code)

    def _pause(self, wait: float) -> None:
        self._restarts += 1
        self._log.note(
            f"the command ended with exit code {self._code};"
            f" restart {self._restarts} begins in {wait:g} s"
        )
        self._announce(b"L")
        self._sandbox, self._status, self._code = None, b"", None
        self._ready = self._over = False
        self._pausing = True
        self._reactor.at(time.monotonic() + wait, self._run_again)

    def _run_again(self) -> None:
        if self._pausing:
            self._pausing = False
            self._build()

    def _ran_to_its_end(self) -> bool:
        """Whether outputs are due: after any exit of the command's own, whatever its code.

        OSMO's guide says that outputs are uploaded once a task has finished, and not when it was
        canceled or evicted. Exit actions may call any code a completion, and downstream tasks
        then need what was left; so failed commands are not told apart here.
        """
        return self._started_at is not None and self._reason == "exited" and self._stopping is None

    # --- what is kept ---

    def _conclude(self) -> None:
        """The command has ended for good: the last checkpoint, the outputs, the outcome."""
        if self._started_at is None:
            self._keep_outputs()
        else:
            self._keeper.finish(self._kept)

    def _kept(self, failure: str | None) -> None:
        if self._ran_to_its_end():
            self._lost = failure
        elif failure is not None:
            self._note(failure)
        self._keep_outputs()

    def _keep_outputs(self) -> None:
        if not self._ran_to_its_end() or not self._task.outputs:
            self._persisted(None)
        elif any(self._room.output.iterdir()):
            self._transfer(self._persist, self._persisted)
        else:  # nothing to copy: not worth a process
            try:
                self._persist(self._log.note)
            except StorageError as error:
                self._persisted(str(error))
            else:
                self._persisted(None)

    def _persist(self, say: Say) -> None:
        persist_outputs(self._room.output, self._sight.output, self._task.outputs, say)

    def _persisted(self, failure: str | None) -> None:
        failure = failure or self._lost
        if failure is not None and self._stopping is None:
            self._fail("output-failed", OUTPUT_FAILED, failure)
        else:
            self._finish()

    def _fail(self, reason: str, code: int, message: str) -> None:
        self._log.note(message)
        self._reason, self._code, self._message = reason, code, message
        if self._keeper.pid is not None:  # the command ran before, and could not run again
            self._conclude()
        else:
            self._finish()

    def _finish(self) -> None:
        if self._stopping is not None:
            self._reason, self._message = self._stopping.reason, self._stopping.cause
            self._code = self._code if self._stopping.code is None else self._stopping.code
        self._log.close()
        ending = Ending(
            self._reason,
            self._code,
            self._message,
            self._started_at,
            time.time(),
            self._restarts,
        )
        write_atomically(self._room.ending, ending.encode())
        self._reactor.stop()  # our end closes the drivers' connections

    def _transfer(self, work: Callable[[Say], None], done: Callable[[str | None], None]) -> None:
        """Does `work` in a process of its own."""

        def ended(failure: str | None) -> None:
            self._stage = None
            done(failure)

        self._stage = Stage(
            self._reactor,
            lambda say, _orders: work(say),
            close=self._close_in_child,
            say=self._note,
            done=ended,
        )

    # --- the log ---

    def _note(self, words: str) -> None:
        """Logs a line of Cairn's own while the attempt goes on."""
        self._log.note(words)
        self._announce(b"L")

    def _capture(self, descriptor: int) -> None:
        stream, splitter = self._streams[descriptor]
        try:
            data = os.read(descriptor, LINE_LIMIT)
        except BlockingIOError:
            return
        now = time.monotonic()
        waited = splitter.due() is not None
        lines = splitter.feed(data, now) if data else splitter.end()
        if lines:
            self._log.append(stream, lines)
            self._announce(b"L")
        if not data:
            self._reactor.forget(descriptor)
            os.close(descriptor)
            del self._streams[descriptor]
        elif not waited and (due := splitter.due()) is not None:
            self._reactor.at(due, lambda: self._flush(descriptor))

    def _flush(self, descriptor: int) -> None:
        """Logs the beginning of a line whose end does not come."""
        if descriptor not in self._streams:
            return
        stream, splitter = self._streams[descriptor]
        if lines := splitter.overdue(time.monotonic()):
            self._log.append(stream, lines)
            self._announce(b"L")
        if (due := splitter.due()) is not None:
            self._reactor.at(due, lambda: self._flush(descriptor))

    def _drain(self, descriptor: int) -> None:
        """Takes what is left in a pipe. Its other end may be held by a process that got away,
        so no end of the stream is waited for."""
        stream, splitter = self._streams.pop(descriptor)
        with contextlib.suppress(BlockingIOError):
            while data := os.read(descriptor, LINE_LIMIT):
                self._log.append(stream, splitter.feed(data, time.monotonic()))
        self._log.append(stream, splitter.end())
        self._reactor.forget(descriptor)
        os.close(descriptor)

    # --- memory ---

    def _watch_memory(self, run: int) -> None:
        if self._over or self._sandbox is None or run != self._restarts:
            return
        limit, pid = self._task.memory, self._sandbox.pid
        # Processes that share memory are counted twice by the cheap sum; ask exactly before
        # killing anybody.
        if process.memory_of(pid) > limit and (used := process.shared_memory_of(pid)) > limit:
            self._reason = "out-of-memory"
            self._message = f"used {used >> 20} MiB of memory, its limit is {limit >> 20} MiB"
            self._code = 128 + signal.SIGKILL
            self._log.note(f"killed: {self._message}")
            self._kill()
            return
        self._reactor.at(time.monotonic() + MEMORY_SECONDS, lambda: self._watch_memory(run))

    # --- stopping ---

    def _stop(self, order: Stop) -> None:
        if self._stopping is None:
            self._stopping = order
        self._keeper.allow(order.grace)
        if self._stage is not None:
            self._stage.kill()
        elif self._pausing:
            self._pausing = False
            self._conclude()
        elif self._sandbox is None or self._over:
            return
        elif self._started_at is None or order.grace <= 0:
            self._kill()
        else:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._sandbox.pid, signal.SIGTERM)
            self._reactor.at(time.monotonic() + order.grace, self._kill)

    def _kill(self) -> None:
        if self._sandbox is None or self._over:
            return
        if self._task.isolation == NAMESPACES:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._sandbox.pid, signal.SIGKILL)
        else:
            process.kill_tree(self._sandbox.pid)

    def _vanish(self) -> None:
        if self._stage is not None:
            process.kill_tree(self._stage.pid)
        self._kill()
        if self._task.isolation != NAMESPACES:
            for orphan in process.descendants(os.getpid()):
                process.kill_tree(orphan)
        os._exit(1)

    # --- drivers and guests ---

    def _welcome(self) -> None:
        with contextlib.suppress(BlockingIOError):
            peer, _ = self._listener.accept()
            self._attach(peer)
            self._drivers[peer.fileno()].tell(b"L" + self._announced)

    def _attach(self, peer: socket.socket) -> None:
        peer.setblocking(False)
        self._drivers[peer.fileno()] = Peer(peer)
        self._reactor.read(peer.fileno(), lambda: self._obey(peer))

    def _obey(self, peer: socket.socket) -> None:
        driver = self._drivers[peer.fileno()]
        try:
            orders = driver.orders()
        except ConnectionError:
            self._reactor.forget(peer.fileno())
            del self._drivers[peer.fileno()]
            peer.close()
            return
        for order in orders:
            word, _, rest = order.partition(" ")
            if word == "go":
                self._told_to_go = True
                self._go()
            elif word == "stop":
                self._stop(Stop.decode(rest))
            elif word == "exec":
                self._host(driver, guest.Request.decode(rest))

    def _host(self, driver: Peer, request: guest.Request) -> None:
        """Starts a program beside the command, for a peer that sent its streams."""
        descriptors = driver.take_descriptors()
        try:
            if self._sandbox is None or self._started_at is None or self._over:
                driver.tell(guest.failed("the task is not running"))
                return
            pid = guest.start(
                self._sandbox.pid,
                self._task,
                self._room,
                request,
                descriptors,
                self._close_in_child,
            )
        except OSError as error:
            driver.tell(guest.failed(str(error)))
            return
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        self._reactor.child(pid, lambda status: driver.tell(guest.ended(status)))
        self._reactor.soon()

    def _announce(self, letter: bytes) -> None:
        if letter != b"L":
            self._announced += letter
        for driver in self._drivers.values():
            driver.tell(letter)

    # --- housekeeping ---

    def _close_in_child(self) -> None:
        """Closes, in a forked child, what would keep the shim's word or its peers alive."""
        self._reactor.close()
        self._listener.close()
        for driver in self._drivers.values():
            driver.close()
        if self._lifeline is not None:
            os.close(self._lifeline)
        if self._sandbox is not None and not self._over:
            os.close(self._sandbox.word)
        self._keeper.close()
        for descriptor in self._streams:
            os.close(descriptor)
