"""A cluster as tests see it, simulated or a user's own: a kubeconfig, a context, namespaces."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import yaml
from kubernetes_asyncio import client

from testcluster.kubeapi import connected, request, until


class Reached:
    """How to talk to one cluster with the rights of an administrator."""

    def __init__(self, name: str, kubeconfig: Path, context: str) -> None:
        self.name = name
        self.kubeconfig = kubeconfig
        self.context = context

    def api(self) -> AbstractAsyncContextManager[client.ApiClient]:
        """A new client, for `async with`."""
        return connected(self.kubeconfig, self.context)

    @asynccontextmanager
    async def namespace(self, prefix: str = "test") -> AsyncIterator[str]:
        """A namespace of its own with its default service account.

        At the end its pods are gone, so that what the next test finds free is free; the rest of the
        namespace is being deleted.
        """
        name = f"{prefix}-{secrets.token_hex(3)}"
        async with self.api() as api:
            core = client.CoreV1Api(api)
            await core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=name)))

            async def account() -> bool:
                return bool((await core.list_namespaced_service_account(name)).items)

            await until(account, f"the namespace {name} has its service account")
            try:
                yield name
            finally:
                await core.delete_collection_namespaced_pod(name)

                async def empty() -> bool:
                    return not (await core.list_namespaced_pod(name)).items

                try:
                    await until(empty, f"the pods of {name} are gone", seconds=20)
                except TimeoutError:  # on lost nodes nobody ends them: it takes force
                    await core.delete_collection_namespaced_pod(name, grace_period_seconds=0)
                await core.delete_namespace(name)

    async def dump(self) -> str:
        """What there is and what happened, as YAML, for the report of a failed test."""
        found: dict[str, object] = {}
        paths = {
            "nodes": "/api/v1/nodes",
            "pods": "/api/v1/pods",
            "podgroups": "/apis/scheduling.run.ai/v2alpha2/podgroups",
            "queues": "/apis/scheduling.run.ai/v2/queues",
            "events": "/api/v1/events",
        }
        async with self.api() as api:
            for kind, path in paths.items():
                try:
                    async with asyncio.timeout(10):
                        found[kind] = (await request(api, "GET", path, query={"limit": "500"}))[
                            "items"
                        ]
                except (client.ApiException, OSError, TimeoutError) as error:
                    found[kind] = f"not to be had: {error}"
        return yaml.safe_dump(found, sort_keys=False)


def real_clusters() -> Sequence[Reached]:
    """The user's own clusters: the contexts named in CAIRN_TEST_CONTEXTS (with commas), else the
    current one, of the kubeconfig that KUBECONFIG names; none where KUBECONFIG is unset."""
    named = os.environ.get("KUBECONFIG", "")
    if not named:
        return ()
    path = Path(named.split(os.pathsep)[0]).expanduser()
    contexts = (
        os.environ.get("CAIRN_TEST_CONTEXTS") or yaml.safe_load(path.read_text())["current-context"]
    )
    return [Reached(context, path, context) for context in str(contexts).split(",")]
