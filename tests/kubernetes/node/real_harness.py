"""What tests of the real node have in common: its pool, and tasks that run on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from driver_harness import Recorder, World, keys_of
from testcluster.cluster import Cluster
from testcluster.node.images import TASK
from testcluster.node.machine import REAL, Machine

from cairn_bridge.cluster import AttemptKey, Outcome
from cairn_bridge.drivers.kubernetes.driver import KubernetesDriver
from cairn_common.events import FinishReason, GroupPlacement, InputSource, Resources

LABELS = {"node.kubernetes.io/instance-type": "real"}
STORE = "/cairn/store"


@dataclass(frozen=True, slots=True)
class Real:
    """The node; `store` is the folder on it that pods see as theirs."""

    cluster: Cluster
    machine: Machine
    store: Path


def pool_on(store: Path, place: str = STORE) -> dict[str, Any]:
    """A pool of the real node, as an operator would write it.

    Its helpers see the folder `store` of the node at `place`.
    """
    mount = {"volumeMounts": [{"name": "store", "mountPath": place}]}
    return {
        "default_platform": "real",
        "platforms": {
            "real": {
                "node_selector": LABELS,
                "tolerations": [{"key": REAL, "operator": "Exists"}],
                "default_memory": 128 << 20,
                "host_network_allowed": True,
            }
        },
        "template": {
            "spec": {
                "volumes": [
                    {"name": "store", "hostPath": {"path": str(store), "type": "Directory"}}
                ],
                "initContainers": [
                    {"name": "cairn-fetch", **mount},
                    {"name": "cairn-keep", **mount},
                ],
            }
        },
    }


def script(world: World, words: str, size: int = 1, **fields: Any) -> GroupPlacement:
    """A group of tasks that run a shell script."""
    return world.group(
        size,
        **{
            "image": TASK,
            "command": ["sh", "-c", words],
            "resources": Resources(cpu=0, memory=128 << 20),
            **fields,
        },
    )


async def run(
    driver: KubernetesDriver, told: Recorder, group: GroupPlacement
) -> tuple[AttemptKey, Outcome]:
    """Place a group of one task and wait for its end; the node is free again afterwards."""
    (key,) = keys_of(group)
    await driver.place(group, None)
    (outcome,) = await told.until_ended(key, seconds=90)
    await driver.settle([key])
    return key, outcome


async def handed_on(
    world: World, driver: KubernetesDriver, told: Recorder, location: str, write: str, read: str
) -> Sequence[str]:
    """What a task logs that runs `read`, with what another left at `location` as its input."""
    first = script(world, write, location=location)
    key, outcome = await run(driver, told, first)
    assert outcome.reason is FinishReason.EXITED, (outcome, text(told, key))
    source = InputSource(task="one", location=location)
    key, outcome = await run(driver, told, script(world, read, inputs=[source]))
    assert outcome.exit_code == 0, text(told, key)
    return text(told, key)


def text(told: Recorder, key: AttemptKey) -> Sequence[str]:
    """What a task logged: its own container's lines, and those of its helpers."""
    return told.text(key)
