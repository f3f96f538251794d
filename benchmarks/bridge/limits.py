"""What the API server, kwok and KAI bear here without us: the measure for the bridge.

A bare loop creates pods as fast as kubernetes-asyncio can; one watch, read as plain JSON, tells
when the pods are placed and run.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
from kubernetes_asyncio import client
from testcluster.kubeapi import create_all, request
from testcluster.workloads import gang

from cairn_bridge.drivers.kubernetes.core.names import GROUP

CONCURRENCY = 64


@dataclass
class Progress:
    """How many pods of a run are where, and since when all of them; seconds of `time.monotonic`."""

    bound: set[str] = field(default_factory=set)
    running: set[str] = field(default_factory=set)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def see(self, one: Mapping[str, Any]) -> None:
        """Take note of a pod as the watch shows it."""
        name = one["metadata"]["name"]
        if one["spec"].get("nodeName"):
            self.bound.add(name)
        if one["status"].get("phase") == "Running":
            self.running.add(name)
        self.changed.set()

    async def until(self, names: set[str], reached: set[str], seconds: float) -> float:
        """When all `names` are in `reached`.

        Raises:
            TimeoutError: not within `seconds`.
        """
        async with asyncio.timeout(seconds):
            while not names <= reached:
                self.changed.clear()
                await self.changed.wait()
        return time.monotonic()


class Seen(Progress):
    """Notes, too, when the watch first showed each pod running, and which gangs are whole.

    One watch for all purposes: each costs the API server and this process as much as the bridge's.

    Args:
        size: how many pods of the bridge make a gang.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.at: dict[str, float] = {}
        self.whole: asyncio.Queue[str] = asyncio.Queue()
        """Pods of gangs of which all pods are there."""
        self._size = size
        self._gangs: defaultdict[str, dict[str, None]] = defaultdict(dict)

    def see(self, one: Mapping[str, Any]) -> None:
        """Take note of a pod as the watch shows it."""
        super().see(one)
        name = one["metadata"]["name"]
        if one["status"].get("phase") == "Running":
            self.at.setdefault(name, time.monotonic())
        gang = self._gangs[one["metadata"]["labels"].get(GROUP, "")]
        if name not in gang:
            gang[name] = None
            if len(gang) == self._size:
                for each in gang:
                    self.whole.put_nowait(each)


@asynccontextmanager
async def watched(
    api: client.ApiClient, namespace: str, progress: Progress | None = None
) -> AsyncIterator[Progress]:
    """The pods of a namespace, watched from now on."""
    core = client.CoreV1Api(api)
    progress = progress or Progress()
    start = (await core.list_namespaced_pod(namespace, limit=1)).metadata.resource_version

    async def follow() -> None:
        version = start
        while True:
            response = await core.list_namespaced_pod(
                namespace,
                watch=True,
                resource_version=version,
                allow_watch_bookmarks=True,
                _preload_content=False,
                _request_timeout=(10, 3600),
            )
            async for line in response.content:
                event = orjson.loads(line)
                version = event["object"]["metadata"]["resourceVersion"]
                if event["type"] in {"ADDED", "MODIFIED"}:
                    progress.see(event["object"])

    task = asyncio.create_task(follow())
    try:
        yield progress
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def binding(
    api: client.ApiClient, namespace: str, nodes: int, seen: Seen
) -> AsyncIterator[None]:
    """Binds the pods of whole gangs to one of so many nodes, as a scheduler would."""

    async def bind() -> None:
        while True:
            name = await seen.whole.get()
            if name in seen.bound:
                continue
            target = {"apiVersion": "v1", "kind": "Node", "name": f"cpu-{hash(name) % nodes}"}
            body = {
                "apiVersion": "v1",
                "kind": "Binding",
                "metadata": {"name": name},
                "target": target,
            }
            path = f"/api/v1/namespaces/{namespace}/pods/{name}/binding"
            try:
                await request(api, "POST", path, body)
            except client.ApiException as error:
                if error.status != 409:  # bound by now
                    raise

    # What fails here ends the measurement, which would wait for ever.
    async with asyncio.TaskGroup() as group:
        workers = [group.create_task(bind()) for _ in range(32)]
        yield
        for worker in workers:
            worker.cancel()


async def create_pods(
    api: client.ApiClient, pods: Sequence[Mapping[str, Any]], concurrency: int = CONCURRENCY
) -> float:
    """Create pods in a bare loop, `concurrency` at a time; returns pods per second."""
    core = client.CoreV1Api(api)
    waiting = iter(pods)

    async def work() -> None:
        for one in waiting:
            await core.create_namespaced_pod(one["metadata"]["namespace"], one)

    started = time.monotonic()
    await asyncio.gather(*(work() for _ in range(concurrency)))
    return len(pods) / (time.monotonic() - started)


@dataclass(frozen=True, slots=True)
class Placed:
    """How long a group took; seconds since its first object was sent."""

    created: float
    bound: float
    running: float


async def place(
    api: client.ApiClient, progress: Progress, namespace: str, name: str, members: int
) -> Placed:
    """Create a gang whose pods run for ever, and wait until all run."""
    group, *pods = gang(namespace, name, members, sim={"run": "forever"})
    names = {one["metadata"]["name"] for one in pods}
    started = time.monotonic()
    await create_all(api, [group])
    await create_pods(api, pods)
    created = time.monotonic()
    bound = await progress.until(names, progress.bound, 600)
    running = await progress.until(names, progress.running, 600)
    return Placed(created - started, bound - started, running - started)
