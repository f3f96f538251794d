"""A TCP connection to a port of a task on this machine."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

_CHUNK = 64 * 1024


class LocalPort:
    """See `ByteStream`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, port: int) -> LocalPort:
        """Raises LookupError when nobody listens there."""
        try:
            return cls(*await asyncio.open_connection("127.0.0.1", port))
        except OSError as error:
            raise LookupError(f"nobody listens at port {port}: {error}") from error

    async def write(self, data: bytes) -> None:
        """See `ByteStream`. What the task no longer reads is dropped."""
        with contextlib.suppress(ConnectionError):
            if not data:
                self._writer.write_eof()
                return
            self._writer.write(data)
            await self._writer.drain()

    async def read(self) -> AsyncIterator[bytes]:
        """See `ByteStream`."""
        with contextlib.suppress(ConnectionError):
            while data := await self._reader.read(_CHUNK):
                yield data

    async def close(self) -> None:
        """See `ByteStream`."""
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()
