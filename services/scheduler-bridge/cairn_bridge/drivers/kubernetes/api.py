"""The API server as this driver talks to it: plain documents, bounded concurrency, patience.

kubernetes-asyncio configures, authenticates and connects; its generated models are passed by, as
a bridge that follows ten thousand pods has no use for a Python object per field.

Who creates many objects at once waits here, not in the API server: so many requests are under
way and no more. What the server refuses for now (429, 5xx, a lost connection) is tried again.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import quote

import aiohttp
import orjson
import structlog

from cairn_bridge.cluster import ClusterError
from cairn_bridge.drivers.kubernetes.client import ApiClient, Configuration, kubeconfig

Document = dict[str, Any]
log = structlog.get_logger(__name__)

MANAGER: Final = "cairn-bridge"
_PLURALS: Final = {
    "Pod": "pods",
    "Secret": "secrets",
    "Service": "services",
    "Node": "nodes",
    "Event": "events",
    "Namespace": "namespaces",
    "PodGroup": "podgroups",
    "Queue": "queues",
    "Topology": "topologies",
    "PriorityClass": "priorityclasses",
}
_JSON: Final = "application/json"
MERGE_PATCH: Final = "application/merge-patch+json"
APPLY: Final = "application/apply-patch+yaml"
_REQUEST_SECONDS: Final = 60.0
_TRIES: Final = 8
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0


class ApiError(Exception):
    """The API server refused a request. `reason` as in its Status object, e.g. NotFound."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of objects: how the API names it, and where its objects live."""

    version: str
    plural: str
    namespace: str | None = None

    @property
    def path(self) -> str:
        """The path of the collection."""
        root = "/api" if "/" not in self.version else "/apis"
        where = f"/namespaces/{self.namespace}" if self.namespace else ""
        return f"{root}/{self.version}{where}/{self.plural}"

    def at(self, name: str, part: str = "") -> str:
        """The path of one object, or of a part of it such as `log`."""
        return f"{self.path}/{quote(name)}{f'/{part}' if part else ''}"


def kind_of(document: Mapping[str, Any]) -> Kind:
    """The kind of a document."""
    metadata = document["metadata"]
    return Kind(document["apiVersion"], _PLURALS[document["kind"]], metadata.get("namespace"))


class Api:
    """A connection to one API server.

    Args:
        client: a configured client of kubernetes-asyncio, which `close` closes.
        at_once: how many writing requests are under way at the same time.
    """

    def __init__(self, client: ApiClient, at_once: int = 64) -> None:
        self._client = client
        self._session: aiohttp.ClientSession = client.rest_client.pool_manager
        self._host: str = client.configuration.host or ""
        self._gate = asyncio.Semaphore(at_once)

    @classmethod
    async def connect(
        cls, kubeconfig_file: Path | None, context: str | None, at_once: int = 64
    ) -> Api:
        """By a kubeconfig file and one of its contexts, or as a pod of the cluster itself.

        Raises:
            ClusterError: there is no such file or context, or no service account.
        """
        configuration = Configuration()
        configuration.connection_pool_maxsize = 0  # watches and logs hold theirs for long
        try:
            if kubeconfig_file is None and context is None and _in_cluster():
                kubeconfig.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
            else:
                await kubeconfig.load_kube_config(
                    config_file=str(kubeconfig_file) if kubeconfig_file else None,
                    context=context,
                    client_configuration=configuration,
                )
        except (kubeconfig.ConfigException, OSError) as error:
            raise ClusterError(f"no way to the cluster: {error}") from error
        return cls(ApiClient(configuration), at_once)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()

    # --- objects ---

    async def create(self, document: Document) -> Document | None:
        """Makes an object; None if one of that name is there already."""
        try:
            return await self._write("POST", kind_of(document).path, document)
        except ApiError as error:
            if error.reason == "AlreadyExists":
                return None
            raise

    async def get(self, kind: Kind, name: str) -> Document | None:
        """An object; None if there is none."""
        return await self._or_none(self._try_again("GET", kind.at(name)))

    async def apply(self, document: Document) -> Document:
        """Server-side apply: what is there becomes what is wanted, and nothing else changes."""
        path = kind_of(document).at(document["metadata"]["name"])
        return await self._write(
            "PATCH", path, document, APPLY, {"fieldManager": MANAGER, "force": "true"}
        )

    async def patch(self, kind: Kind, name: str, changes: Document) -> Document | None:
        """A JSON merge patch; None if there is no such object."""
        return await self._or_none(self._write("PATCH", kind.at(name), changes, MERGE_PATCH))

    async def delete(
        self, kind: Kind, name: str, *, grace: int | None = None, uid: str | None = None
    ) -> bool:
        """Deletes an object, if it is the one with that uid; False if there is none."""
        options: Document = {"propagationPolicy": "Background"}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        try:
            await self._write("DELETE", kind.at(name), options)
        except ApiError as error:
            if error.reason in {"NotFound", "Conflict"}:
                return False
            raise
        return True

    async def page(self, kind: Kind, **query: str) -> Document:
        """One page of a collection, as the server answers it."""
        return await self._try_again("GET", kind.path, query=query)

    # --- streams ---

    async def open(
        self, path: str, query: Mapping[str, str], idle_seconds: float | None = None
    ) -> aiohttp.ClientResponse:
        """A response as it comes, which the caller closes.

        Raises:
            ApiError: the server refused.
            aiohttp.ClientError, TimeoutError: the connection broke, or was silent for too long.
        """
        timeout = aiohttp.ClientTimeout(sock_connect=_REQUEST_SECONDS, sock_read=idle_seconds)
        headers, parameters = await self._auth()
        response = await self._session.get(
            self._host + path, params={**parameters, **query}, headers=headers, timeout=timeout
        )
        if response.status >= 400:
            async with response:
                raise _error(response.status, await response.read())
        return response

    async def web_socket(
        self, path: str, query: list[tuple[str, str]], protocols: tuple[str, ...]
    ) -> aiohttp.ClientWebSocketResponse:
        """A WebSocket to a part of an object such as `exec`.

        Raises:
            ApiError: the server refused.
        """
        headers, parameters = await self._auth()
        try:
            return await self._session.ws_connect(
                self._host + path,
                params=[*parameters.items(), *query],
                headers=headers,
                protocols=protocols,
                heartbeat=30.0,
                max_msg_size=0,
            )
        except aiohttp.WSServerHandshakeError as error:
            raise ApiError(error.status, "Refused", error.message) from error

    # --- requests ---

    async def _write(
        self,
        method: str,
        path: str,
        body: Document,
        content_type: str = _JSON,
        query: Mapping[str, str] | None = None,
    ) -> Document:
        async with self._gate:
            return await self._try_again(method, path, body, content_type, query)

    async def _try_again(
        self,
        method: str,
        path: str,
        body: Document | None = None,
        content_type: str = _JSON,
        query: Mapping[str, str] | None = None,
    ) -> Document:
        """One request, repeated while the server is only busy or away. All of ours may be."""
        data = None if body is None else orjson.dumps(body)
        pause = _FIRST_PAUSE
        for left in reversed(range(_TRIES)):
            try:
                return await self._once(method, path, data, content_type, query or {})
            except ApiError as error:
                if left == 0 or not (error.status == 429 or error.status >= 500):
                    raise
                reason = str(error)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                if left == 0:
                    raise
                reason = f"{type(error).__name__}: {error}"
            log.debug("kubernetes.again", method=method, path=path, reason=reason)
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
            pause = min(pause * 2, _LONGEST_PAUSE)
        raise AssertionError("unreachable")

    async def _once(
        self,
        method: str,
        path: str,
        data: bytes | None,
        content_type: str,
        query: Mapping[str, str],
    ) -> Document:
        headers, parameters = await self._auth()
        headers["Content-Type"] = content_type
        async with self._session.request(
            method,
            self._host + path,
            params={**parameters, **query},
            data=data,
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=_REQUEST_SECONDS),
        ) as response:
            content = await response.read()
            if response.status >= 400:
                raise _error(response.status, content)
            return cast("Document", orjson.loads(content))

    async def _or_none(self, request: Any) -> Document | None:
        try:
            return cast("Document", await request)
        except ApiError as error:
            if error.reason == "NotFound":
                return None
            raise

    async def _auth(self) -> tuple[dict[str, str], dict[str, str]]:
        """Headers and parameters that say who asks; tokens are renewed as they expire."""
        headers = dict(self._client.default_headers)
        parameters: list[tuple[str, str]] = []
        await self._client.update_params_for_auth(headers, parameters, ["BearerToken"])
        return headers, dict(parameters)


def _in_cluster() -> bool:
    return Path("/var/run/secrets/kubernetes.io/serviceaccount/token").exists()


def _error(status: int, content: bytes) -> ApiError:
    try:
        document = orjson.loads(content)
        return ApiError(status, document.get("reason") or "", document.get("message") or "")
    except (orjson.JSONDecodeError, AttributeError):
        return ApiError(status, "", content[:500].decode("utf-8", "replace"))
