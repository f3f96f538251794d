"""What every request passes first: host, origin, kind and size of the body, client version.

Plain ASGI, because streams of logs pass through here as they come. The rules are in `core.guard`.
"""

from __future__ import annotations

from collections.abc import Collection

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cairn_api.core.errors import ApiError
from cairn_api.core.guard import content_is_json, host_is_allowed, origin_is_allowed
from cairn_api.core.versions import greet

_MOST_DISCARDED = 64 << 20
_BODILESS = frozenset({"GET", "HEAD", "OPTIONS"})


class Doors:
    """Lets requests in that may come in.

    Args:
        app: what is behind.
        hosts: names in the Host header besides those of this machine.
        most_bytes: the largest body.
    """

    def __init__(self, app: ASGIApp, *, hosts: Collection[str], most_bytes: int) -> None:
        self._app = app
        self._hosts = frozenset(host.lower() for host in hosts)
        self._most_bytes = most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the module."""
        if scope["type"] != "http":
            if scope["type"] != "websocket":
                await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            self._check(scope, headers)
            greeting = greet(headers.get("x-osmo-client-version"))
        except ApiError as error:
            await refusal(error)(scope, receive, send)
            return

        size = 0

        async def bounded() -> Message:
            nonlocal size
            message = await receive()
            if message["type"] == "http.request":
                size += len(message.get("body", b""))
                if size > self._most_bytes:
                    # What is behind stops reading; `answer` says why.
                    return {"type": "http.disconnect"}
            return message

        refused = False

        async def answer(message: Message) -> None:
            nonlocal refused
            if message["type"] == "http.response.start":
                if size > self._most_bytes:
                    refused = True
                    await self._read_off(receive)
                    await refusal(self._too_large())(scope, receive, send)
                    return
                added = MutableHeaders(scope=message)
                for name, value in greeting.headers:
                    added[name] = value
                added["x-content-type-options"] = "nosniff"
            if not refused:
                await send(message)

        await self._app(scope, bounded, answer)

    async def _read_off(self, receive: Receive) -> None:
        """Take in some more of what is too large: who is still sending does not hear a refusal."""
        left = _MOST_DISCARDED
        while left > 0:
            message = await receive()
            left -= max(1, len(message.get("body", b"")))
            if message["type"] != "http.request" or not message.get("more_body"):
                return

    def _check(self, scope: Scope, headers: Headers) -> None:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not host_is_allowed(hosts[0], self._hosts):
            raise ApiError("This host is not served here.", "USAGE", status=421)
        origin = headers.get("origin")
        if origin is not None and not origin_is_allowed(origin, scope["scheme"], hosts[0]):
            raise ApiError("Requests of other origins are refused.", "USAGE", status=403)
        if headers.get("sec-fetch-site") in {"cross-site", "same-site"}:
            raise ApiError("Requests of other origins are refused.", "USAGE", status=403)
        length = headers.get("content-length")
        if length is not None and length.isdecimal() and int(length) > self._most_bytes:
            raise self._too_large()
        has_body = length not in {None, "0"} or "transfer-encoding" in headers
        if (
            has_body
            and scope["method"] not in _BODILESS
            and not content_is_json(headers.get("content-type", ""))
        ):
            raise ApiError("Send application/json.", "USAGE", status=415)

    def _too_large(self) -> ApiError:
        return ApiError(f"A request has at most {self._most_bytes:,} bytes.", "USAGE", status=413)


def refusal(error: ApiError) -> JSONResponse:
    """The response that a refusal is."""
    body = error.answer().model_dump(exclude={"problems"})
    # The rest of a refused body is not read, so the connection is of no further use.
    headers = {"Connection": "close"} if error.status == 413 else None
    return JSONResponse(body, status_code=error.status, headers=headers)
