"""Cairn as it runs beside Kubernetes clusters: each service a process, a bridge for each cluster.

NATS has decentralized accounts, PostgreSQL is real, and people use the `cairn` command.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
from kubernetes_asyncio import client
from testcluster.account import bridge_account
from testcluster.kubeapi import collection, create_all, request, until
from testcluster.nodes import RACK
from testcluster.processes import Process, free_port
from testcluster.reached import Reached

from e2e.conftest import System
from securing import secured_nats
from servers import running_servers

GPU: Mapping[str, Any] = {"node_selector": {"node.kubernetes.io/instance-type": "gpu"}}
EDGE: Mapping[str, Any] = {"node_selector": {"node.kubernetes.io/instance-type": "edge"}}
_NARROW = {"cpu": {"guarantee": 2, "maximum": 2}}
Pools = Mapping[str, Mapping[str, Any]]
POOLS: Pools = {
    "north": {
        "alpha": {"platforms": {"ovx-l40": GPU, "dgx-h100": GPU}},
        "narrow": {"queue": _NARROW},
        "free": {
            "platforms": {
                "gpu": {
                    **GPU,
                    "privileged_allowed": True,
                    "host_network_allowed": True,
                    "allowed_mounts": ["/data"],
                }
            },
            "topology_keys": [{"key": "rack", "label": RACK}],
            "credentials": {"maps": {"secret": "team-maps", "keys": ["user", "password"]}},
        },
    },
    "south": {
        "beta": {
            "platforms": {
                **dict.fromkeys(("ovx-l40", "dgx-h100", "ovx-a40"), GPU),
                "agx-orin-jp6": EDGE,
            }
        }
    },
}
"""The pools of each cluster: `narrow` has room for two cores, `free` allows what others do not."""


class Cairn(System):
    """The services, and the command line to them.

    Args:
        clusters: each gets a bridge.
        folder: for logs and settings.
        settings: of all services.
        accounts: where the credentials are.
        namespace: where pods are made, in every cluster.
        pools: of each cluster.
        runtime_image: of the containers beside a task, if there are any.
        changes: settings of all services that differ from what tests usually have.
    """

    def __init__(
        self,
        clusters: Sequence[Reached],
        folder: Path,
        settings: Mapping[str, str],
        accounts: Path,
        namespace: str,
        pools: Pools,
        runtime_image: str | None,
        changes: Mapping[str, str],
    ) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        super().__init__(folder, {"CAIRN_URL": self.url})
        self.clusters = {cluster.name: cluster for cluster in clusters}
        self.folder = folder
        self.namespace = namespace
        self.pools = pools
        self.runtime_image = runtime_image
        self.settings = {
            **settings,
            "CAIRN_API_PORT": self.url.rpartition(":")[2],
            "CAIRN_DEFAULT_POOL": min(min(each) for each in pools.values()),
            "CAIRN_LOG_DIR": str(folder / "logs"),
            "CAIRN_BACKOFF_BASE": "0.5",
            "CAIRN_OFFER_INTERVAL": "3",
            "CAIRN_LOG_FORMAT": "json",
            "CAIRN_INVENTORY_SECONDS": "2",
            "CAIRN_UNSETTLED_SECONDS": "5",
            "CAIRN_IMAGE_PATIENCE": "2",
            **changes,
        }
        self.processes: dict[str, Process] = {}
        self._accounts = accounts

    def start(self) -> None:
        """Start all services; returns when workflows can be submitted to both clusters."""
        for name, module in (("api", "api"), ("engine", "engine"), ("log-relay", "logs")):
            settings = {"CAIRN_NATS_CREDENTIALS": str(self._accounts / "services.creds")}
            self._run(name, f"cairn_{module}", settings)
        for cluster in self.clusters:
            self.start_bridge(cluster)
        self._wait_until_ready()

    def start_bridge(self, cluster: str) -> None:
        """Start the bridge of a cluster."""
        pools = self.folder / f"pools-{cluster}.yaml"
        pools.write_text(orjson.dumps({"pools": self.pools[cluster]}).decode())
        settings = {
            "CAIRN_NATS_CREDENTIALS": self._accounts / f"bridge-{cluster}.creds",
            "CAIRN_TASK_KEY": self._accounts / f"tasks-{cluster}.json",
            "CAIRN_CLUSTER": cluster,
            "CAIRN_CLUSTER_DRIVER": "kubernetes",
            "CAIRN_KUBECONFIG": self.kubeconfig(cluster),
            "CAIRN_KUBERNETES_NAMESPACE": self.namespace,
            "CAIRN_POOLS_FILE": pools,
            **({"CAIRN_RUNTIME_IMAGE": self.runtime_image} if self.runtime_image else {}),
        }
        name = f"bridge-{cluster}"
        self._run(name, "cairn_bridge", {key: str(value) for key, value in settings.items()})

    def kubeconfig(self, cluster: str) -> Path:
        """How its bridge reaches a cluster."""
        return self.folder / f"bridge-{cluster}.kubeconfig"

    def stop(self) -> None:
        """End all services."""
        for process in self.processes.values():
            process.stop()

    def stop_service(self, name: str) -> None:
        """kill -9."""
        self.processes.pop(name).stop()

    def _run(self, name: str, module: str, settings: Mapping[str, str]) -> None:
        command = (sys.executable, "-P", "-m", module)
        environment = {**self.settings, **settings}
        self.processes[name] = Process(name, command, self.folder, environment)

    def _wait_until_ready(self, seconds: float = 120.0) -> None:
        deadline = time.monotonic() + seconds
        wanted = {pool for pools in self.pools.values() for pool in pools}
        while True:
            for process in self.processes.values():
                process.check()
            with contextlib.suppress(OSError, urllib.error.URLError, KeyError):
                address = f"{self.url}/api/resources?all_pools=true"
                with urllib.request.urlopen(address, timeout=5) as response:
                    nodes = orjson.loads(response.read())["resources"]
                    if wanted <= {pool for node in nodes for pool in node["pool_platform_labels"]}:
                        return
            if time.monotonic() > deadline:
                raise TimeoutError(f"no inventory of all pools; the logs are in {self.folder}")
            time.sleep(0.2)

    # --- what a cluster shows ---

    async def pods(self, cluster: str) -> list[dict[str, Any]]:
        """Cairn's pods in a cluster."""
        async with self.clusters[cluster].api() as api:
            path = f"/api/v1/namespaces/{self.namespace}/pods"
            return list((await request(api, "GET", path))["items"])

    async def pod_of(self, cluster: str, workflow: str, task: str) -> dict[str, Any]:
        """The pod of a task, once there is one."""

        async def found() -> dict[str, Any] | None:
            for pod in await self.pods(cluster):
                annotations = pod["metadata"]["annotations"]
                if (annotations["cairn/workflow"], annotations["cairn/task"]) == (workflow, task):
                    return pod
            return None

        return await until(found, f"task {task} of {workflow} has a pod", seconds=60)

    async def create(self, cluster: str, *objects: Mapping[str, Any]) -> None:
        """Make objects in a cluster."""
        async with self.clusters[cluster].api() as api:
            await create_all(api, objects)

    async def delete(self, cluster: str, one: Mapping[str, Any]) -> None:
        """Remove an object that `create` made."""
        async with self.clusters[cluster].api() as api:
            await request(api, "DELETE", f"{collection(one)}/{one['metadata']['name']}")

    async def until_quota(self, cluster: str, name: str) -> None:
        """Until a ResourceQuota counts, and so holds."""
        path = f"/api/v1/namespaces/{self.namespace}/resourcequotas/{name}"
        async with self.clusters[cluster].api() as api:

            async def counted() -> bool:
                return bool((await request(api, "GET", path))["status"].get("hard"))

            await until(counted, f"the quota {name} counts")

    @contextlib.asynccontextmanager
    async def made_pods(
        self, cluster: str, made: list[str] | None = None
    ) -> AsyncIterator[list[str]]:
        """The names of the pods that are made in a cluster from now on, added to `made`."""
        made = [] if made is None else made
        async with self.clusters[cluster].api() as api:
            core = client.CoreV1Api(api)
            start = (
                await core.list_namespaced_pod(self.namespace, limit=1)
            ).metadata.resource_version
            response = await core.list_namespaced_pod(
                self.namespace,
                watch=True,
                resource_version=start,
                _preload_content=False,
                _request_timeout=(10, 3600),
            )

            async def follow() -> None:
                async for line in response.content:
                    event = orjson.loads(line)
                    if event["type"] == "ADDED":
                        made.append(event["object"]["metadata"]["name"])

            task = asyncio.create_task(follow())
            try:
                yield made
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                response.close()


@contextlib.contextmanager
def running_cairn(
    clusters: Sequence[Reached],
    folder: Path,
    pools: Pools = POOLS,
    runtime_image: str | None = "cairn:0.1.0",
    **changes: str,
) -> Iterator[Cairn]:
    """Everything, from nothing; at the end the clusters are as they were.

    Args:
        clusters: the clusters.
        folder: for all files.
        pools: of each cluster.
        runtime_image: of the containers beside a task, if there are any.
        changes: settings of all services that differ.
    """
    namespace = f"cairn-e2e-{secrets.token_hex(3)}"  # the last one may still be vanishing
    with (
        running_servers(folder / "servers") as servers,
        secured_nats(folder, [cluster.name for cluster in clusters]) as nats,
    ):
        settings = {**servers.settings, "CAIRN_NATS_URL": nats.url}
        cairn = Cairn(
            clusters, folder, settings, nats.folder, namespace, pools, runtime_image, changes
        )
        with asyncio.Runner() as runner:
            opened = contextlib.AsyncExitStack()
            try:
                for cluster in clusters:
                    runner.run(_open_namespace(cluster, namespace))
                    opened.push_async_callback(_empty_namespace, cluster, namespace)
                    account = bridge_account(cluster, namespace, cairn.kubeconfig(cluster.name))
                    runner.run(opened.enter_async_context(account))
                opened.callback(cairn.stop)
                cairn.start()
                yield cairn
            finally:
                runner.run(opened.aclose())


async def _open_namespace(cluster: Reached, namespace: str) -> None:
    async with cluster.api() as api:
        await create_all(
            api, [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}]
        )

        async def account() -> bool:
            return bool(
                (await client.CoreV1Api(api).list_namespaced_service_account(namespace)).items
            )

        await until(account, f"the namespace {namespace} has its service account")


async def _empty_namespace(cluster: Reached, namespace: str) -> None:
    """Nothing of what the bridges left holds a node any more."""
    path = f"/api/v1/namespaces/{namespace}/pods"
    async with cluster.api() as api:
        for pod in (await request(api, "GET", path))["items"]:
            one = f"{path}/{pod['metadata']['name']}"
            free = {"metadata": {"finalizers": None}}
            with contextlib.suppress(client.ApiException):
                await request(api, "PATCH", one, free, content_type="application/merge-patch+json")
                await request(api, "DELETE", one, query={"gracePeriodSeconds": "0"})
        await request(api, "DELETE", f"/api/v1/namespaces/{namespace}")
