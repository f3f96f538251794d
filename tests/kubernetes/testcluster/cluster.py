"""A whole simulated cluster: control plane, kwok, KAI, and what tests do to it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kubernetes_asyncio import client

from testcluster import kai, kwok
from testcluster.build import Parts, ensure_node_parts
from testcluster.control_plane import ControlPlane, Timing
from testcluster.kubeapi import create_all, request, until
from testcluster.lifecycles import NODE_LABEL
from testcluster.node.machine import Machine
from testcluster.nodes import NodeKind, nodes
from testcluster.reached import Reached

_MERGE = "application/merge-patch+json"


class Cluster(Reached):
    """One simulated cluster. Its methods may be called from any event loop, also from several.

    Its kubeconfig has one context, named like the cluster.
    """

    def __init__(
        self,
        name: str,
        parts: Parts,
        folder: Path,
        timing: Timing | None = None,
        *,
        with_kai: bool = True,
    ) -> None:
        self.plane = ControlPlane(name, parts, folder, timing or Timing())
        super().__init__(name, self.plane.kubeconfig, name)
        self._parts = parts
        self._with_kai = with_kai
        self._machines: list[Machine] = []

    async def start(self) -> None:
        """Start everything and wait until pods can be placed.

        Raises:
            StartError: a part ended instead.
        """
        await self.plane.start()
        async with self.api() as api:
            await kwok.install(api, self._parts)
            if self._with_kai:
                await kai.install(api, self._parts)
            self.plane.start_controllers()
            await kwok.start(self.plane, self._parts)
            if self._with_kai:
                kai.start(self.plane, self._parts)

            async def default_account() -> bool:
                accounts = await client.CoreV1Api(api).list_namespaced_service_account("default")
                return bool(accounts.items)

            await until(default_account, "the namespace `default` has its service account")
        self.plane.check()

    def stop(self) -> None:
        """End everything."""
        for machine in self._machines:
            machine.stop()
        self.plane.stop()

    async def add_nodes(self, definitions: Sequence[Mapping[str, Any]]) -> None:
        """Create nodes and wait until all are ready."""
        names = {one["metadata"]["name"] for one in definitions}
        async with self.api() as api:
            limit = asyncio.Semaphore(50)

            async def create(one: Mapping[str, Any]) -> None:
                async with limit:
                    await create_all(api, [one])

            async with asyncio.TaskGroup() as group:
                for one in definitions:
                    group.create_task(create(one))

            async def ready() -> bool:
                found = (
                    await request(api, "GET", "/api/v1/nodes", query={"resourceVersion": "0"})
                )["items"]
                return names <= {one["metadata"]["name"] for one in found if is_ready(one)}

            await until(ready, f"{len(names)} nodes are ready", seconds=120, pause=0.1)

    async def add(self, kind: NodeKind, count: int, **options: Any) -> list[str]:
        """Create `count` ready nodes of a kind; see `nodes.nodes`. Returns their names."""
        definitions = nodes(kind, count, **options)
        await self.add_nodes(definitions)
        return [one["metadata"]["name"] for one in definitions]

    async def add_real_node(
        self, name: str, labels: Mapping[str, str], *, taken: bool = False
    ) -> Machine:
        """Start a node with a real kubelet and container runtime, and wait until it is ready.

        Unless `taken`, it is tainted: beside simulated nodes only pods that tolerate `REAL` are
        placed there. Only where `why_no_node` has nothing to say; from the main thread only.

        Raises:
            CannotBuildError: its programs cannot be built.
            StartError: one of them ended instead.
        """
        parts = ensure_node_parts()
        machine = Machine(name, self.plane, self._parts, parts, labels, taken=taken)
        self._machines.append(machine)
        async with self.api() as api:
            await create_all(api, [machine.definition])
            machine.start()

            async def ready() -> bool:
                machine.check()
                return is_ready(await request(api, "GET", f"/api/v1/nodes/{name}"))

            await until(ready, f"{name} is ready; its logs are in {machine.folder}", seconds=120)
        return machine

    async def remove_real_node(self, machine: Machine) -> None:
        """End a real node, and forget it and what was bound to it."""
        machine.stop()
        self._machines.remove(machine)
        await self.remove_nodes([machine.name])

    async def lose_node(self, name: str) -> None:
        """Cut a node off: no heartbeat, nothing on it answers. It becomes NotReady in time."""
        await self._patch_node(name, {"metadata": {"labels": {NODE_LABEL: "lost"}}})

    async def find_node(self, name: str) -> None:
        """Undo `lose_node`; kwok makes it ready again."""
        await self._patch_node(name, {"metadata": {"labels": {NODE_LABEL: "true"}}})

    async def cordon(self, name: str, on: bool = True) -> None:
        """Let nothing new onto a node, or let it again."""
        await self._patch_node(name, {"spec": {"unschedulable": on}})

    async def drain(self, name: str) -> None:
        """Cordon a node and evict its pods through the eviction API, as `kubectl drain` does."""
        await self.cordon(name)
        async with self.api() as api:
            pods = await request(
                api, "GET", "/api/v1/pods", query={"fieldSelector": f"spec.nodeName={name}"}
            )
            for pod in pods["items"]:
                meta = pod["metadata"]
                await request(
                    api,
                    "POST",
                    f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}/eviction",
                    {
                        "apiVersion": "policy/v1",
                        "kind": "Eviction",
                        "metadata": {"name": meta["name"], "namespace": meta["namespace"]},
                    },
                )

    async def remove_nodes(self, names: Iterable[str]) -> None:
        """Delete nodes; what is bound to them is collected later, as without a kubelet."""
        async with self.api() as api:
            for name in names:
                await request(api, "DELETE", f"/api/v1/nodes/{name}")

    async def _patch_node(self, name: str, patch: Mapping[str, Any]) -> None:
        async with self.api() as api:
            await request(api, "PATCH", f"/api/v1/nodes/{name}", patch, content_type=_MERGE)


def is_ready(node: Mapping[str, Any]) -> bool:
    """Whether a node (plain JSON) is Ready."""
    return any(
        condition["type"] == "Ready" and condition["status"] == "True"
        for condition in node.get("status", {}).get("conditions", [])
    )
