"""`SpecLoader`: reading untrusted workflow files in bounded time and memory.

A template is a program, and no check inside its own process can stop every endless loop. So a few
warm worker processes (see `worker`) do the rendering and parsing; each has a limit on its address
space and a deadline, and is killed and replaced when it passes either. Both limits grow with the
size of the text, so that large honest files pass.

Calls beyond the number of workers wait in order. A worker gets no environment but its import
path: there are no secrets in it to find.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import cairn_common
from cairn_common.spec.limits import Limits
from cairn_common.spec.load import LoadedWorkflow
from cairn_common.spec.models import WorkflowSpec
from cairn_common.spec.problems import Problem, SpecError
from cairn_common.spec.refusals import too_large, too_much_memory, too_slow

_HEADER = 8
_ATTEMPTS = 2
_IMPORT_PATH = Path(cairn_common.__file__).resolve().parent.parent
# What an honest text costs, measured at 100,000 tasks (17 MB) and doubled or more.
_MEMORY_PER_BYTE = 200
_SECONDS_PER_BYTE = 2.5e-6
_START_SECONDS = 30.0
# Answers above this are decoded in a thread, so that the event loop goes on.
_DECODE_IN_THREAD = 256 * 1024


class _WorkerDiedError(Exception):
    """The process ended instead of answering."""


class SpecLoader:
    """A pool of worker processes that load workflow files.

    workers:      processes, each serving one call at a time
    timeout:      seconds one small file may take; larger files get 2.5 s more per megabyte
    memory_bytes: address space one small file may add; larger files get 200 bytes more per byte

    Use as `async with SpecLoader() as loader: await loader.load(text)`. One instance serves any
    number of concurrent calls of one event loop.
    """

    def __init__(
        self, workers: int = 2, timeout: float = 2.0, memory_bytes: int = 256 * 1024 * 1024
    ) -> None:
        if workers < 1:
            raise ValueError("a SpecLoader needs at least one worker")
        self._count = workers
        self._timeout = timeout
        self._memory = memory_bytes
        # An empty place (None) means: start a process when it is needed.
        self._idle: asyncio.LifoQueue[_Worker | None] = asyncio.LifoQueue()
        self._replacing: set[asyncio.Task[None]] = set()
        self._open = False

    async def __aenter__(self) -> Self:
        self._open = True
        started = await asyncio.gather(*(_Worker.start() for _ in range(self._count)))
        for worker in started:
            self._idle.put_nowait(worker)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open = False
        for task in list(self._replacing):
            task.cancel()
        await asyncio.gather(*self._replacing, return_exceptions=True)
        while not self._idle.empty():
            worker = self._idle.get_nowait()
            if worker is not None:
                await worker.stop()

    async def load(
        self,
        text: str,
        *,
        file: str = "workflow.yaml",
        set_variables: Sequence[str] = (),
        set_string_variables: Sequence[str] = (),
        env_vars: Sequence[str] = (),
        limits: Limits | None = None,
        templates: bool = True,
    ) -> LoadedWorkflow:
        """As `load_workflow`, in a worker process. Raises SpecError, also for time and memory.

        Raises RuntimeError when the loader is not open or a worker cannot be started.
        """
        if not self._open:
            raise RuntimeError("SpecLoader is not open: use it as an async context manager")
        limits = limits or Limits()
        if len(text) > limits.max_bytes:
            # Also what the sender would be refused; it need not travel first.
            raise SpecError([too_large(limits, file)])
        seconds = self._timeout + len(text) * _SECONDS_PER_BYTE
        request = {
            "text": text,
            "file": file,
            "set_variables": list(set_variables),
            "set_string_variables": list(set_string_variables),
            "env_vars": list(env_vars),
            "limits": limits.to_wire(),
            "templates": templates,
            "memory_bytes": self._memory + len(text) * _MEMORY_PER_BYTE,
            "seconds": seconds + 1.0,
        }
        answer = await self._call(json.dumps(request).encode(), seconds, file)
        if len(answer) > _DECODE_IN_THREAD:
            return await asyncio.to_thread(_decode, answer, text, file)
        return _decode(answer, text, file)

    async def _call(self, request: bytes, seconds: float, file: str) -> bytes:
        """One request to the next free worker, and to another one if that dies of it."""
        for _ in range(_ATTEMPTS):
            worker = await self._idle.get()
            stays = False
            try:
                if worker is None:
                    worker = await _Worker.start()
                async with asyncio.timeout(seconds):
                    answer = await worker.call(request)
                stays = not answer.last
                return answer.body
            except TimeoutError:
                raise SpecError([too_slow(seconds, file)]) from None
            except _WorkerDiedError:
                # Of this text, or of something else while it was idle: the next one will tell.
                continue
            finally:
                # Whatever went wrong, also a cancelled caller: a worker in the middle of an
                # answer is of no further use.
                if stays:
                    self._idle.put_nowait(worker)
                else:
                    self._replace(worker)
        raise SpecError([too_much_memory(file)])

    def _replace(self, worker: _Worker | None) -> None:
        """Kill a worker, and start another for its place in the background."""
        if worker is not None:
            worker.kill()
        task = asyncio.create_task(self._start_another(worker))
        self._replacing.add(task)
        task.add_done_callback(self._replacing.discard)

    async def _start_another(self, dead: _Worker | None) -> None:
        fresh: _Worker | None = None
        try:
            if dead is not None:
                await dead.stop()
            if self._open:
                fresh = await _Worker.start()
        except (OSError, RuntimeError):
            fresh = None  # the next call tries again and tells its caller
        finally:
            self._idle.put_nowait(fresh)


class _Answer(NamedTuple):
    """What a worker sent, and whether it ends after it."""

    body: bytes
    last: bool


class _Worker:
    """One process and the socket that is its standard input and output.

    A plain Popen: with asyncio's own subprocesses, its child watcher and the kills here would race
    for the exit status.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer

    @classmethod
    async def start(cls) -> _Worker:
        """A process that said it is ready; raises RuntimeError or OSError if it does not."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.to_thread(_spawn, theirs)
        reader, writer = await asyncio.open_connection(sock=ours)
        worker = cls(process, reader, writer)
        try:
            async with asyncio.timeout(_START_SECONDS):
                await worker._receive()
        except (TimeoutError, _WorkerDiedError):
            await worker.stop()
            raise RuntimeError("the process that reads workflow files does not start") from None
        except asyncio.CancelledError:
            worker.kill()
            raise
        return worker

    async def call(self, request: bytes) -> _Answer:
        try:
            self._writer.write(len(request).to_bytes(_HEADER, "big"))
            self._writer.write(request)
            await self._writer.drain()
        except OSError:
            raise _WorkerDiedError from None
        return await self._receive()

    async def _receive(self) -> _Answer:
        try:
            header = await self._reader.readexactly(_HEADER + 1)
            length, last = int.from_bytes(header[:_HEADER], "big"), bool(header[_HEADER])
            return _Answer(await self._reader.readexactly(length), last)
        except (asyncio.IncompleteReadError, OSError):
            raise _WorkerDiedError from None

    def kill(self) -> None:
        """Send the end; `stop` also waits for it."""
        self._process.kill()
        self._writer.transport.abort()

    async def stop(self) -> None:
        """Kill the process and collect its exit status."""
        self.kill()
        await asyncio.to_thread(self._process.wait)


def _spawn(channel: socket.socket) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "cairn_common.spec.worker"],
        stdin=channel.fileno(),
        stdout=channel.fileno(),
        env={"PYTHONPATH": str(_IMPORT_PATH), "PYTHONHASHSEED": "0"},
        cwd="/",
        start_new_session=True,
    )


def _decode(answer: bytes, text: str, file: str) -> LoadedWorkflow:
    """An answer as a value or as the SpecError it stands for."""
    fields = json.loads(answer)
    if "problems" in fields:
        problems = [Problem.from_wire(problem) for problem in fields["problems"]]
        raise SpecError(problems, rendered=fields["rendered"])
    spec = WorkflowSpec.model_validate_json(fields["spec"])
    if fields["written_as_tasks"]:
        spec = spec.marked_as_tasks()
    rendered = text if fields["rendered"] is None else fields["rendered"]
    return LoadedWorkflow(spec, rendered, text, tuple(fields["warnings"]), file)
