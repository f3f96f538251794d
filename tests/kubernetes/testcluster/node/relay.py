"""Carries TCP connections from one network namespace into another.

`relay.py LISTEN TARGET`, each `tcp:PORT` of the loopback address or `unix:PATH`. A Unix socket is a
file, so both namespaces reach it: one relay on each side of it makes a way through. Only the
standard library is imported, as the node runs it before anything of the tests is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _connect(target: str) -> Streams:
    kind, _, where = target.partition(":")
    if kind == "unix":
        return await asyncio.open_unix_connection(where)
    return await asyncio.open_connection("127.0.0.1", int(where))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


async def _serve(listen: str, target: str) -> None:
    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Whoever breaks off, the other side learns of it by the end of its connection.
        with contextlib.suppress(OSError), contextlib.closing(writer):
            there, back = await _connect(target)
            with contextlib.closing(back):
                async with asyncio.TaskGroup() as both:
                    both.create_task(_quietly(_pump(reader, back)))
                    both.create_task(_quietly(_pump(there, writer)))

    kind, _, where = listen.partition(":")
    if kind == "unix":
        server = await asyncio.start_unix_server(carry, where)
    else:
        server = await asyncio.start_server(carry, "127.0.0.1", int(where))
    await server.serve_forever()


async def _quietly(pump: asyncio.Future[None]) -> None:
    with contextlib.suppress(OSError):
        await pump


if __name__ == "__main__":
    asyncio.run(_serve(*sys.argv[1:3]))
