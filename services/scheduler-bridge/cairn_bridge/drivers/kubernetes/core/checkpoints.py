"""What a task's checkpoints need in its pod.

A folder that is not in the data volume gets an emptyDir, which the task sees at the folder's path
and the sidecar at a path of ours: so no path of a user's covers what the sidecar runs on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from cairn_bridge.cluster import PlacementError
from cairn_bridge.drivers.kubernetes.core import names
from cairn_bridge.drivers.kubernetes.core.briefing import OUTPUT
from cairn_bridge.drivers.kubernetes.core.site import Site
from cairn_common.events import TaskPlacement
from cairn_common.pools import mount_of
from cairn_common.spec.checkpoints import homes, normal, overlap, refusal

Document = dict[str, Any]
_SIDECAR = "/osmo/checkpoints"


def checkpoint_orders(task: TaskPlacement, say: Callable[[str], str]) -> list[Document]:
    """What the sidecar is told: `cairn_runtime.room.Checkpoint`."""
    paths = [normal(say(each.path)) for each in task.checkpoints]
    where = homes(paths, OUTPUT)
    volumes = _volumes(where)
    return [
        {
            "path": path,
            "base": f"{_SIDECAR}/{volumes[root]}" if root in volumes else root,
            "inner": inner,
            "url": say(each.url),
            "frequency": each.frequency,
            "regex": each.regex,
        }
        for each, path in zip(task.checkpoints, paths, strict=True)
        for root, inner in [where[path]]
    ]


def checkpoint_volumes(
    site: Site, task: TaskPlacement, say: Callable[[str], str], host_mounts: Sequence[str]
) -> Document:
    """Volumes and their mounts, as a part of a pod's spec.

    Args:
        site: the cluster.
        task: the placement of the task.
        say: replaces tokens.
        host_mounts: the folders of the node that the task gets, as the platform writes them.

    Raises:
        PlacementError: there is nobody to make checkpoints, or a folder cannot have them.
    """
    if not task.checkpoints:
        return {}
    if site.runtime_image is None:
        raise PlacementError(
            f"task {task.name}: cluster {site.cluster} makes no checkpoints: its bridge has no "
            "image of the runtime"
        )
    paths = [normal(say(each.path)) for each in task.checkpoints]
    mounts = {mount_of(each)[1]: each for each in host_mounts}
    for path in paths:
        if words := refusal(path):
            raise PlacementError(f"task {task.name}: checkpoint path: {words}")
        if mount := overlap(path, mounts):
            raise PlacementError(
                f"task {task.name}: the checkpoint path {path} and the volume mount {mount} lie in "
                "one another"
            )
    volumes = _volumes(homes(paths, OUTPUT))
    seen = [{"name": name, "mountPath": root} for root, name in volumes.items()]
    read = [
        {"name": name, "mountPath": f"{_SIDECAR}/{name}", "readOnly": True}
        for name in volumes.values()
    ]
    return {
        "containers": [{"name": names.TASK_CONTAINER, "volumeMounts": seen}],
        "initContainers": [{"name": names.KEEP_CONTAINER, "volumeMounts": read}],
        "volumes": [{"name": name, "emptyDir": {}} for name in volumes.values()],
    }


def _volumes(where: dict[str, tuple[str, str]]) -> dict[str, str]:
    """The names of the volumes, by the folders that need one of their own."""
    roots = dict.fromkeys(root for root, _ in where.values() if root != OUTPUT)
    return {root: f"cairn-checkpoint-{number}" for number, root in enumerate(roots)}
