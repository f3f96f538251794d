"""A driver against a real control plane, and what it reports."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from testcluster.cluster import Cluster
from testcluster.reached import Reached

from cairn_bridge.cluster import AttemptKey, ByteStream, Fact, Outcome, Phase
from cairn_bridge.drivers.kubernetes import Api, KubernetesDriver, Patience, Site
from cairn_bridge.drivers.kubernetes.api import Document, Kind
from cairn_bridge.drivers.kubernetes.core import names
from cairn_bridge.drivers.kubernetes.core.manifests import POD_GROUPS
from cairn_common.events import GroupPlacement, LogLine, Resources, TaskPlacement
from cairn_common.pools import ClusterPools
from cairn_common.security import PassIssuer

ORDER = list(Phase)
PATIENCE = 60.0
"""Seconds for what takes one or two on a machine that does nothing else."""
_BY_COMMAND = {"run", "exit_code", "end", "stop"}
FAST = Patience(image=2.0, start=2.0, node=4.0, orphan=600.0)


class Recorder:
    """A reporter that remembers, and lets tests wait."""

    def __init__(self) -> None:
        self.facts: list[Fact] = []
        self.lines: dict[AttemptKey, dict[int, LogLine]] = {}
        self.said: Counter[tuple[AttemptKey, int]] = Counter()
        self.finals: Counter[AttemptKey] = Counter()
        self.slow = asyncio.Event()
        self.slow.set()
        self._changed = asyncio.Condition()

    async def fact(self, fact: Fact) -> None:
        await asyncio.sleep(0)
        self.facts.append(fact)
        await self._notify()

    async def log(self, key: AttemptKey, lines: Sequence[LogLine], *, final: bool) -> None:
        await self.slow.wait()
        for line in lines:
            self.lines.setdefault(key, {})[line.seq] = line
            self.said[key, line.seq] += 1
        self.finals[key] += final
        await self._notify()

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def until(self, done: Callable[[], Any], seconds: float = PATIENCE) -> None:
        """Until what is said makes `done` true."""
        try:
            async with asyncio.timeout(seconds), self._changed:
                await self._changed.wait_for(lambda: bool(done()))
        except TimeoutError:
            raise AssertionError(
                "not seen; the facts were:\n" + "\n".join(map(str, self.facts[-20:]))
            ) from None

    def phases(self, key: AttemptKey) -> list[Phase]:
        """What was told of an attempt, in order, without repetitions."""
        told = [fact.phase for fact in self.facts if key in fact.keys]
        return [phase for phase, _ in itertools.groupby(told)]

    def reached(self, keys: Iterable[AttemptKey], phase: Phase) -> bool:
        """Whether all have come at least so far."""
        return all(
            any(ORDER.index(told) >= ORDER.index(phase) for told in self.phases(key))
            for key in keys
        )

    def outcome(self, key: AttemptKey) -> Outcome:
        """How an attempt ended; every telling must be the same."""
        ends = {fact.outcome for fact in self.facts if key in fact.keys and fact.outcome}
        assert len(ends) == 1, ends
        return ends.pop()

    async def until_ended(self, *keys: AttemptKey, seconds: float = PATIENCE) -> list[Outcome]:
        """Until all have ended; how."""
        await self.until(lambda: self.reached(keys, Phase.FINISHED), seconds)
        return [self.outcome(key) for key in keys]

    def text(self, key: AttemptKey) -> list[str]:
        """The log, which must have no gap."""
        lines = self.lines.get(key, {})
        assert sorted(lines) == list(range(len(lines)))
        return [lines[seq].text for seq in range(len(lines))]


class World:
    """One namespace of one cluster; drivers come and go."""

    def __init__(self, cluster: Reached, namespace: str, pools: ClusterPools, api: Api) -> None:
        self.cluster = cluster
        self.api = api
        self.site = Site(f"c-{namespace}", namespace, pools)
        self.pods = Kind("v1", "pods", namespace)
        self.pod_groups = Kind(POD_GROUPS, "podgroups", namespace)
        self.secrets = Kind("v1", "secrets", namespace)
        self.services = Kind("v1", "services", namespace)
        self._numbers = itertools.count(1)

    @asynccontextmanager
    async def driver(
        self,
        recorder: Recorder | None = None,
        *,
        patience: Patience = FAST,
        site: Site | None = None,
        issuer: PassIssuer | None = None,
    ) -> AsyncIterator[tuple[KubernetesDriver, Recorder]]:
        """A driver that runs, and what it reports to."""
        recorder = recorder or Recorder()
        driver = KubernetesDriver(
            lambda: Api.connect(self.cluster.kubeconfig, self.cluster.context),
            site or self.site,
            patience=patience,
            issuer=issuer,
        )
        try:
            await driver.start(recorder)
            yield driver, recorder
        finally:
            await driver.close()

    async def all(self, kind: Kind) -> list[Document]:
        """The objects of Cairn in the namespace."""
        page = await self.api.page(kind, labelSelector=names.CLUSTER)
        return list(page["items"])

    async def create(self, document: Document, plural: str) -> None:
        """Makes an object of a kind that the driver itself does not know."""
        kind = Kind(document["apiVersion"], plural, document["metadata"]["namespace"])
        await self.api._write("POST", kind.path, document)

    async def free_pods(self) -> None:
        """Lets go of pods that a test left behind."""
        for pod in await self.all(self.pods):
            name = pod["metadata"]["name"]
            await self.api.patch(self.pods, name, {"metadata": {"finalizers": None}})

    async def until_gone(self, *kinds: Kind, seconds: float = PATIENCE) -> None:
        """Until nothing of these kinds is left."""
        async with asyncio.timeout(seconds):
            while any([await self.all(kind) for kind in kinds]):
                await asyncio.sleep(0.1)

    def pod_of(self, key: AttemptKey, group: GroupPlacement) -> str:
        """The name of an attempt's pod."""
        (uuid_,) = (task.uuid for task in group.tasks if task.index == key.index)
        return names.pod_name(uuid_, key.attempt)

    async def pod(self, key: AttemptKey, group: GroupPlacement) -> Document:
        """An attempt's pod as it is."""
        pod = await self.api.get(self.pods, self.pod_of(key, group))
        assert pod is not None
        return pod

    def group(self, size: int = 1, **fields: Any) -> GroupPlacement:
        """A new workflow with one group of equal tasks; see `task` for their fields."""
        number = next(self._numbers)
        own = {
            name: fields.pop(name)
            for name in tuple(fields)
            if name in GroupPlacement.model_fields and name != "tasks"
        }
        workflow = uuid.uuid4().hex
        return GroupPlacement(
            **{
                "workflow": f"story-{number}",
                "workflow_uuid": workflow,
                "group": "g",
                "group_index": 0,
                "group_uuid": f"{workflow[:16]}{0:08x}",
                "tasks": [self.task(workflow, index, **fields) for index in range(size)],
                **own,
            }
        )

    def task(self, workflow_uuid: str, index: int, **fields: Any) -> TaskPlacement:
        """One task. `sim` says what a simulated node does with it; a real one runs the command."""
        sim = fields.pop("sim", {})
        if not isinstance(self.cluster, Cluster) and (unreal := _told_only(sim)):
            pytest.skip(
                f"no command makes a real node do this, so only a simulated one can: {unreal}"
            )
        environment = {
            f"SIM_{name.upper()}": str(value) for name, value in sim.items()
        } | fields.pop("environment", {})
        return TaskPlacement(
            **{
                "index": index,
                "name": f"t{index}",
                "uuid": f"{workflow_uuid[:16]}{index:016x}",
                "image": "ubuntu:24.04",
                "command": ["sh", "-c", _script(sim)],
                "environment": environment,
                "resources": Resources(cpu=1, memory=1 << 28),
                **fields,
            }
        )


def _told_only(sim: Mapping[str, Any]) -> str:
    """What of a task's fate no command can bring about."""
    only = [f"{name} {value}" for name, value in sim.items() if name not in _BY_COMMAND]
    only += ["end Evicted"] if sim.get("end") == "Evicted" else []
    return ", ".join(only)


def _script(sim: Mapping[str, Any]) -> str:
    """The same as the simulated node does, for a shell."""
    run = str(sim.get("run", "1s"))
    end = "tail /dev/zero" if sim.get("end") == "OOMKilled" else f"exit {sim.get('exit_code', 0)}"
    return (
        f"trap 'sleep {str(sim.get('stop', '0s')).removesuffix('s')}; exit 143' TERM; "
        f"sleep {'infinity' if run == 'forever' else run.removesuffix('s')} & wait $!; {end}"
    )


async def assert_echoes_in_capitals(stream: ByteStream) -> None:
    """Bytes go both ways, more at once than any buffer holds."""
    big = b"abcdefgh" * 50_000
    sending = asyncio.create_task(stream.write(big))
    received = b""
    async with asyncio.timeout(PATIENCE):
        async for data in stream.read():
            received += data
            if len(received) == len(big):
                break
    await sending
    assert received == big.upper()


def keys_of(group: GroupPlacement) -> list[AttemptKey]:
    """The attempts of a placement."""
    return [AttemptKey(group.workflow, each.index, each.attempt, each.name) for each in group.tasks]


def next_attempt(group: GroupPlacement, *indices: int) -> GroupPlacement:
    """The placement of some tasks' next attempts."""
    tasks = [
        task.model_copy(update={"attempt": task.attempt + 1})
        for task in group.tasks
        if task.index in indices
    ]
    return group.model_copy(update={"tasks": tasks})
