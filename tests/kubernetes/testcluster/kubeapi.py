"""Talking to a cluster in tests: clients from a kubeconfig, objects from definitions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import yaml
from kubernetes_asyncio import client, config

T = TypeVar("T")


@asynccontextmanager
async def connected(
    kubeconfig: Path, context: str | None = None
) -> AsyncIterator[client.ApiClient]:
    """A client of the cluster that a kubeconfig names; closed at the end."""
    settings = client.Configuration()
    await config.load_kube_config(
        config_file=str(kubeconfig),
        context=context,
        client_configuration=settings,
        persist_config=False,
    )
    settings.connection_pool_maxsize = 200
    async with client.ApiClient(settings) as api:
        yield api


async def request(
    api: client.ApiClient,
    method: str,
    path: str,
    body: Any = None,
    *,
    content_type: str = "application/json",
    query: Mapping[str, str] | None = None,
) -> Any:
    """One request in plain JSON, without a model: for custom resources and for speed.

    Raises:
        ApiException: the server answered with an error.
    """
    return await api.call_api(
        path,
        method,
        query_params=list((query or {}).items()),
        header_params={"Content-Type": content_type, "Accept": "application/json"},
        body=body,
        response_types_map=dict.fromkeys((200, 201, 202), object),
        auth_settings=["BearerToken"],
        _return_http_data_only=True,
    )


async def create_all(api: client.ApiClient, objects: Iterable[Mapping[str, Any]]) -> None:
    """Create objects of kinds whose plural is known here, in their order; those that exist stay."""
    for one in objects:
        try:
            await request(api, "POST", collection(one), one)
        except client.ApiException as error:
            if error.status != 409:
                raise


_PLURALS = {"PriorityClass": "priorityclasses", "Topology": "topologies", "Logs": "logs"}


def collection(one: Mapping[str, Any]) -> str:
    """The path where an object of its kind and namespace is created."""
    version = one["apiVersion"]
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    namespace = one["metadata"].get("namespace")
    plural = _PLURALS.get(one["kind"], one["kind"].lower() + "s")
    return f"{root}/namespaces/{namespace}/{plural}" if namespace else f"{root}/{plural}"


def documents(path: Path) -> list[dict[str, Any]]:
    """The objects of a YAML file."""
    return [one for one in yaml.safe_load_all(path.read_text()) if one]


async def until(
    probe: Callable[[], Awaitable[T | None]],
    what: str,
    *,
    seconds: float = 60.0,
    pause: float = 0.05,
) -> T:
    """Ask again and again until there is an answer that is true, and return it.

    For tests only: what is under test must not poll.

    Raises:
        TimeoutError: naming `what`.
    """
    deadline = time.monotonic() + seconds
    while True:
        found = await probe()
        if found:
            return found
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {seconds:.0f} s still not: {what}")
        await asyncio.sleep(pause)
