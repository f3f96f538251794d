"""One server as requests see it: where it is, what its answers are, and how it fails.

Whatever the HTTP library raises leaves here as one of our own errors, and whatever the server says
leaves as a model, so that neither shows through in the methods of `Client`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import httpx
from pydantic import ValidationError

from cairn_client import __version__
from cairn_client.address import find
from cairn_client.errors import ApiError, ConnectionFailed, Problem, VersionMismatch
from cairn_client.models import Answer

A = TypeVar("A", bound=Answer)
Query = Mapping[str, Any]

_CONNECT_SECONDS = 10.0
_SHOWN_OF_A_PAGE = 200


class Connection:
    """Requests to one server."""

    def __init__(
        self,
        base_url: str | None,
        user: str | None,
        timeout: float,
        transport: httpx.BaseTransport | None,
    ) -> None:
        self._address = find(base_url)
        url = httpx.URL(self._address.url)
        # The server takes no other content, not even none: see its guard against web pages.
        headers = {
            "User-Agent": f"cairn-cli/{__version__}",
            "Content-Type": "application/json",
        }
        if user:
            headers["x-osmo-user"] = user
        self._http = httpx.Client(
            base_url=url,
            headers=headers,
            timeout=httpx.Timeout(timeout, connect=min(timeout, _CONNECT_SECONDS)),
            # A proxy cannot reach this machine's own loopback interface.
            trust_env=not _is_loopback(url.host),
            # Reading the certificates takes longer than most requests.
            verify=url.scheme == "https",
            transport=transport,
        )

    @property
    def url(self) -> str:
        """Where requests go."""
        return self._address.url

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def answer(
        self,
        model: type[A],
        method: str,
        path: str,
        query: Query | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> A:
        """An answer as a model.

        Raises:
            ApiError: the server refuses.
            ConnectionFailed: there was no answer.
            VersionMismatch: the answer is something else.
        """
        try:
            return model.parse(self.json(method, path, query, body))
        except ValidationError as error:
            raise self.mismatch(error, path) from error

    def json(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> Any:
        """An answer as decoded JSON."""
        response = self.send(method, path, query, body)
        try:
            return response.json()
        except ValueError:
            raise VersionMismatch(
                f"{self.url} does not answer as Cairn does: {_excerpt(response.text)}"
            ) from None

    def send(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> httpx.Response:
        """An answer as it comes. Query parameters that are None or empty are left out."""
        with self._lost():
            response = self._http.request(method, path, params=_present(query), json=body)
        self._check(response)
        return response

    def stream(
        self, path: str, query: Query | None = None, *, quiet: float | None = None
    ) -> Generator[bytes, None, None]:
        """The body of an answer that goes on. `quiet`: the longest silence; None waits for ever."""
        timeout = self._http.timeout
        limits = httpx.Timeout(
            connect=timeout.connect, read=quiet, write=timeout.write, pool=timeout.pool
        )
        with (
            self._lost(),
            self._http.stream("GET", path, params=_present(query), timeout=limits) as response,
        ):
            if not response.is_success:
                response.read()
            self._check(response)
            yield from response.iter_bytes()

    @contextmanager
    def _lost(self) -> Iterator[None]:
        """Turn what the HTTP library raises into our own words."""
        try:
            yield
        except httpx.ConnectError as error:
            raise ConnectionFailed(
                self.url, f"Nothing answers at {self.url} ({error}).", self._address.hint
            ) from error
        except httpx.TimeoutException as error:
            raise ConnectionFailed(
                self.url, f"{self.url} did not answer in time.", self._address.hint
            ) from error
        except (httpx.TransportError, httpx.StreamError, httpx.InvalidURL) as error:
            raise ConnectionFailed(
                self.url, f"The connection to {self.url} was lost: {error}", self._address.hint
            ) from error

    def _check(self, response: httpx.Response) -> None:
        if response.is_success:
            return
        if not response.is_error:
            raise VersionMismatch(
                f"{self.url} does not answer as Cairn does (HTTP {response.status_code})."
            )
        try:
            answer = response.json()
        except ValueError:
            answer = None
        raise refusal(response.status_code, answer, response.text)

    def mismatch(self, error: ValidationError, path: str) -> VersionMismatch:
        """An answer that is no such model."""
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(step) for step in first["loc"])
        return VersionMismatch(
            f"The answer of {self.url}{path} is not understood "
            f"({where + ': ' if where else ''}{first['msg']}). "
            f"This is client {__version__}; compare with `cairn version`."
        )


def refusal(status: int, answer: Any, text: str) -> ApiError:
    """An error answer in any of the forms that it has: ours, FastAPI's, or somebody else's."""
    if not isinstance(answer, dict):
        return ApiError(f"HTTP {status}: {_excerpt(text)}", status=status)
    problems = answer.get("problems")
    message = answer.get("message")
    detail = answer.get("detail")
    if not message and isinstance(detail, list):
        message = "\n".join(_detail(item) for item in detail)
    return ApiError(
        str(message or detail or f"HTTP {status}"),
        error_code=str(answer.get("error_code") or ""),
        status=status,
        problems=[
            Problem.from_json(item)
            for item in (problems if isinstance(problems, list) else ())
            if isinstance(item, dict)
        ],
        workflow_id=answer.get("workflow_id"),
    )


def _detail(item: Any) -> str:
    if not isinstance(item, dict):
        return str(item)
    where = ".".join(str(step) for step in item.get("loc", ()))
    return f"{where}: {item.get('msg')}"


def _excerpt(text: str) -> str:
    flat = " ".join(text.split())
    return flat[:_SHOWN_OF_A_PAGE] or "an empty answer"


def _present(query: Query | None) -> dict[str, Any]:
    """Without what was not asked for."""
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in (query or {}).items()
        if value is not None and value not in ((), [])
    }


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
