"""A program beside a running task, and its bytes: the asker's side of `cairn_runtime.guest`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import AsyncIterator, Sequence

from cairn_runtime.guest import Request

_CHUNK = 64 * 1024


class LocalExec:
    """See `ExecStream`. The program's output and its errors come as one stream."""

    def __init__(self, connection: socket.socket, writing: int, reading: int) -> None:
        self._connection = connection
        self._writing: int | None = writing
        self._reading = reading
        self._answer: asyncio.Task[int] = asyncio.create_task(self._listen())

    @classmethod
    async def start(cls, connection: socket.socket, command: Sequence[str]) -> LocalExec:
        """Asks the shim at the other end; takes over the connection."""
        connection.setblocking(False)
        input_read, input_write = os.pipe()
        output_read, output_write = os.pipe()
        try:
            line = Request(list(command)).encode()
            socket.send_fds(connection, [line], [input_read, output_write, output_write])
        except OSError:
            os.close(input_write)
            os.close(output_read)
            connection.close()
            raise
        finally:
            os.close(input_read)
            os.close(output_write)
        for descriptor in (input_write, output_read):
            os.set_blocking(descriptor, False)
        return cls(connection, input_write, output_read)

    async def write(self, data: bytes) -> None:
        """See `ExecStream`. What the program no longer reads is dropped."""
        if self._writing is None:
            return
        if not data:
            os.close(self._writing)
            self._writing = None
            return
        view = memoryview(data)
        while view and self._writing is not None:
            try:
                view = view[os.write(self._writing, view) :]
            except BlockingIOError:
                await _wait_for(self._writing, writing=True)
            except BrokenPipeError:
                return

    async def read(self) -> AsyncIterator[bytes]:
        """See `ExecStream`."""
        while True:
            try:
                data = os.read(self._reading, _CHUNK)
            except BlockingIOError:
                await _wait_for(self._reading, writing=False)
                continue
            if not data:
                return
            yield data

    async def wait(self) -> int:
        """See `ExecStream`. Raises LookupError when it could not be started or was lost."""
        try:
            return await self._answer
        finally:
            await self.write(b"")
            with contextlib.suppress(OSError):
                os.close(self._reading)

    async def _listen(self) -> int:
        loop = asyncio.get_running_loop()
        heard = b""
        with self._connection:
            while data := await loop.sock_recv(self._connection, 4096):
                heard += data
                # The shim greets every peer with letters; the answer is the line of JSON.
                begin = heard.find(b"{")
                if begin >= 0 and heard.endswith(b"\n"):
                    answer = json.loads(heard[begin : heard.index(b"\n", begin)])
                    if "error" in answer:
                        raise LookupError(answer["error"])
                    return int(answer["exit"])
        raise LookupError("the task ended, and with it the program beside it")


async def _wait_for(descriptor: int, *, writing: bool) -> None:
    """Until a pipe can be written to or read from."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    add, remove = (
        (loop.add_writer, loop.remove_writer) if writing else (loop.add_reader, loop.remove_reader)
    )

    def now() -> None:
        if not ready.done():
            ready.set_result(None)

    add(descriptor, now)
    try:
        await ready
    finally:
        remove(descriptor)
