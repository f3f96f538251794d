"""Exec and port-forward over WebSockets.

Source: Kubernetes remote command protocol `v5.channel.k8s.io` (the first byte of a frame is its
channel; 255 closes a channel) and `v4`, and the port-forward protocol of the same framing: for
the first port, channel 0 carries data and 1 errors, each beginning with the port's two bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from typing import Final

import aiohttp

from cairn_bridge.drivers.kubernetes.api import Api, Kind
from cairn_bridge.drivers.kubernetes.core.names import TASK_CONTAINER

_STDIN, _STDOUT, _STDERR, _STATUS = range(4)
_CLOSE: Final = 255
_V5, _V4 = "v5.channel.k8s.io", "v4.channel.k8s.io"
_CHUNK: Final = 32 * 1024
_QUEUED: Final = 64
"""Frames that wait for their reader before nothing more is taken from the connection."""


class _Channels(ABC):
    """What both have in common: one task takes frames in, and stops when nobody reads them."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._frames: asyncio.Queue[bytes | None] = asyncio.Queue(_QUEUED)
        self._receiver = asyncio.create_task(self._receive())

    async def _receive(self) -> None:
        try:
            async for message in self._socket:
                data = message.data
                if isinstance(data, str):
                    data = data.encode()
                if data:
                    await self._take(data[0], data[1:])
        finally:
            self._ended()
            await self._frames.put(None)

    @abstractmethod
    async def _take(self, channel: int, data: bytes) -> None:
        """One frame has come."""

    @abstractmethod
    def _ended(self) -> None:
        """Nothing comes any more."""

    async def _send(self, channel: int, data: bytes) -> None:
        for start in range(0, len(data), _CHUNK):
            with contextlib.suppress(ConnectionError, aiohttp.ClientError):
                # What the other side no longer reads is dropped.
                await self._socket.send_bytes(bytes([channel]) + data[start : start + _CHUNK])

    async def read(self) -> AsyncIterator[bytes]:
        """What comes, in order."""
        while (data := await self._frames.get()) is not None:
            yield data
        self._frames.put_nowait(None)

    async def close(self) -> None:
        """Ends both directions."""
        self._receiver.cancel()
        await asyncio.gather(self._receiver, return_exceptions=True)
        await self._socket.close()


class PodExec(_Channels):
    """See `ExecStream`. The program's output and its errors come as one stream."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._exit: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        super().__init__(socket)

    @classmethod
    async def start(cls, api: Api, pods: Kind, pod: str, command: Sequence[str]) -> PodExec:
        """Raises ApiError when the API server refuses."""
        query = [
            ("container", TASK_CONTAINER),
            *((name, "true") for name in ("stdin", "stdout", "stderr")),
            *(("command", word) for word in command),
        ]
        return cls(await api.web_socket(pods.at(pod, "exec"), query, (_V5, _V4)))

    async def write(self, data: bytes) -> None:
        """See `ExecStream`. Servers of the older protocol cannot be told of the input's end."""
        if data:
            await self._send(_STDIN, data)
        elif self._socket.protocol == _V5:
            await self._send(_CLOSE, bytes([_STDIN]))

    async def wait(self) -> int:
        """See `ExecStream`. Raises LookupError when it could not be started or was lost."""
        try:
            return await self._exit
        finally:
            await self.close()

    async def _take(self, channel: int, data: bytes) -> None:
        if channel in {_STDOUT, _STDERR} and data:
            await self._frames.put(data)
        elif channel == _STATUS:
            self._conclude(json.loads(data))

    def _conclude(self, status: dict[str, object]) -> None:
        if self._exit.done():
            return
        details = status.get("details")
        causes = details.get("causes") or [] if isinstance(details, dict) else []
        # Not every cause has a reason: none has that of a program which is not there.
        codes = (each["message"] for each in causes if each.get("reason") == "ExitCode")
        code = next(codes, None)
        if status.get("status") == "Success":
            self._exit.set_result(0)
        elif code is not None:
            self._exit.set_result(int(code))
        else:
            self._exit.set_exception(LookupError(str(status.get("message") or "not started")))

    def _ended(self) -> None:
        if not self._exit.done():
            self._exit.set_exception(
                LookupError("the task ended, and with it the program beside it")
            )
            self._exit.exception()  # whoever does not wait need not know


class PodPort(_Channels):
    """See `ByteStream`: one TCP connection to a pod's port."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._heads = {0: 2, 1: 2}  # bytes of the port's number that are still to come
        self.error: str | None = None
        super().__init__(socket)

    @classmethod
    async def connect(cls, api: Api, pods: Kind, pod: str, port: int) -> PodPort:
        """Raises ApiError when the API server refuses."""
        path = pods.at(pod, "portforward")
        return cls(await api.web_socket(path, [("ports", str(port))], (_V4,)))

    async def write(self, data: bytes) -> None:
        """See `ByteStream`. The protocol cannot end one direction: empty bytes end both."""
        if data:
            await self._send(0, data)
        else:
            await self._socket.close()

    def _ended(self) -> None:
        """The end of what is read says all."""

    async def _take(self, channel: int, data: bytes) -> None:
        head = self._heads.get(channel, 0)
        if head:
            self._heads[channel] = max(0, head - len(data))
            data = data[head:]
        if not data:
            return
        if channel == 0:
            await self._frames.put(data)
        else:
            self.error = data.decode("utf-8", "replace")
            await self._socket.close()
