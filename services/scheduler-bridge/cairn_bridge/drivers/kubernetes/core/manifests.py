"""From a placement to the objects of a cluster.

A group's parent is its PodGroup. Secrets and Service are owned by it, so deleting it deletes
them. Pods are not owned by it: KAI's podgrouper takes a pod with an owner for its own and would
tear it out of its gang; the driver removes pods whose PodGroup has gone.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cairn_bridge.cluster import AttemptKey, PlacementError
from cairn_bridge.drivers.kubernetes.core import names
from cairn_bridge.drivers.kubernetes.core.briefing import names_hosts, speaker
from cairn_bridge.drivers.kubernetes.core.gang import Layout, lay_out, leaf_for
from cairn_bridge.drivers.kubernetes.core.pods import Document, build_pod
from cairn_bridge.drivers.kubernetes.core.site import Site
from cairn_common.events import GroupPlacement, InjectedFile, TaskPlacement

POD_GROUPS = "scheduling.run.ai/v2alpha2"
_PASSES_TOGETHER = 400  # of about 1 KiB each
_SECRET_BYTES = 900 * 1024  # etcd takes 1.5 MiB; the API server bounds a Secret at 1 MiB


@dataclass(slots=True)
class Manifests:
    """The objects of one placement, in the order in which they are made."""

    digest: str
    pod_group: Document
    owned: list[Document]
    pods: dict[AttemptKey, Document]


def digest_of(group: GroupPlacement) -> str:
    """Names the placement among those of its group."""
    return names.placement_digest((task.index, task.attempt) for task in group.tasks)


def build(
    site: Site,
    group: GroupPlacement,
    traces: Mapping[int, str] | None = None,
    present: Document | None = None,
    passes: Mapping[str, str] | None = None,
) -> Manifests:
    """All objects of a placement.

    Args:
        site: the cluster.
        group: the placement.
        traces: the W3C trace contexts of its tasks, by their index.
        present: the group's PodGroup, if an earlier placement made it.
        passes: its attempts' credentials for NATS, by their names, if they get any.

    Raises:
        PlacementError: the cluster can never run it.
    """
    pool = site.pools.pools.get(group.pool)
    if pool is None:
        raise PlacementError(f"cluster {site.cluster} does not serve pool {group.pool}")
    digest = digest_of(group)
    owned: list[Document] = []
    files: dict[int, list[tuple[str, str, str]]] = {}
    for task in group.tasks:
        secrets, files[task.index] = _files(site, group, task)
        owned += secrets
    secrets, shelf_of = _passes(site, group, digest, passes or {})
    owned += secrets
    if any(names_hosts(task) for task in group.tasks):
        owned.append(_service(site, group))

    keys = pool.topology_keys
    if present is None:
        topology = names.topology_name(site.namespace, group.pool)
        # Build no pod group around topology keys that a pod's own check is about to refuse.
        known = {each.key for each in keys}
        fit = all(each.key in known for task in group.tasks for each in task.topology)
        layout = lay_out(group.tasks, keys, topology) if fit else Layout()
        pod_group = _pod_group(site, group, layout)
        leaf_of = layout.leaf_of
    else:
        pod_group = present
        recorded = json.loads(_annotations(present).get(names.SUBGROUPS, "[]"))
        leaves = [each["name"] for each in recorded]
        leaf_of = {
            task.index: leaf
            for task in group.tasks
            if leaves and (leaf := leaf_for(task, keys, leaves)) is not None
        }
    pods = {
        AttemptKey(group.workflow, task.index, task.attempt, task.name): build_pod(
            site,
            pool,
            group,
            task,
            digest=digest,
            leaf=leaf_of.get(task.index),
            files=files[task.index],
            nats_pass=shelf_of.get(names.pass_name(task.uuid, task.attempt)),
            traceparent=(traces or {}).get(task.index),
        )
        for task in group.tasks
    }
    return Manifests(digest, pod_group, owned, pods)


def owned_by(document: Document, owner: Document) -> Document:
    """A copy of an object that vanishes with its owner."""
    reference = {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
    }
    return {**document, "metadata": {**document["metadata"], "ownerReferences": [reference]}}


def belongs_to(document: Document, owner: Document) -> bool:
    """Whether an object that is there will vanish with this owner, and not with an earlier one."""
    references = document["metadata"].get("ownerReferences", ())
    return any(each["uid"] == owner["metadata"]["uid"] for each in references)


def _annotations(document: Document) -> dict[str, str]:
    return document["metadata"].get("annotations") or {}


def _labels(site: Site, group: GroupPlacement) -> dict[str, str]:
    return {
        names.CLUSTER: site.cluster,
        names.WORKFLOW: group.workflow_uuid,
        names.GROUP: group.group_uuid,
    }


def _pod_group(site: Site, group: GroupPlacement, layout: Layout) -> Document:
    queue = names.queue_name(site.namespace, group.pool)
    annotations = {names.WORKFLOW: group.workflow, "cairn/group-name": group.group}
    spec: dict[str, Any] = {
        "queue": queue,
        "priorityClassName": names.priority_class(group.priority),
        "preemptibility": "preemptible" if group.priority == "LOW" else "non-preemptible",
    }
    if layout.constraint is not None:
        spec["topologyConstraint"] = layout.constraint
    if layout.subgroups:
        spec["subGroups"] = layout.subgroups
        annotations[names.SUBGROUPS] = json.dumps(layout.subgroups, separators=(",", ":"))
    else:
        spec["minMember"] = len(group.tasks)
    return {
        "apiVersion": POD_GROUPS,
        "kind": "PodGroup",
        "metadata": {
            "name": names.group_name(group.group_uuid),
            "namespace": site.namespace,
            "labels": {**_labels(site, group), names.KAI_QUEUE: queue},
            "annotations": annotations,
        },
        "spec": spec,
    }


def _service(site: Site, group: GroupPlacement) -> Document:
    """Gives each pod of the group a name; also before it is ready, as peers look early.

    Only for groups that speak of hosts: Kubernetes lists all addresses of a Service again for
    every pod that changes, which a gang of 1,000 pays for with a quarter of a small control plane.
    """
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": names.group_name(group.group_uuid),
            "namespace": site.namespace,
            "labels": _labels(site, group),
        },
        "spec": {
            "clusterIP": "None",
            "selector": {names.GROUP: group.group_uuid},
            "publishNotReadyAddresses": True,
        },
    }


def _files(
    site: Site, group: GroupPlacement, task: TaskPlacement
) -> tuple[list[Document], list[tuple[str, str, str]]]:
    """Secrets with a task's files, and for each file its Secret, the key in it, and its path."""
    if not task.files:
        return [], []
    say = speaker(site, group, task)
    shelves: list[dict[str, str]] = []
    placed: list[tuple[str, str, str]] = []
    room = 0
    for number, file in enumerate(task.files):
        content = _content(task, file, say)
        if len(content) > _SECRET_BYTES:
            raise PlacementError(
                f"task {task.name}: the file {file.path} has {len(content)} bytes as base64; a "
                f"cluster takes {_SECRET_BYTES}: bring it as an input"
            )
        if not shelves or len(content) > room:
            shelves.append({})
            room = _SECRET_BYTES
        room -= len(content)
        key = f"file-{number}"
        shelves[-1][key] = content
        placed.append((names.secret_name(task.uuid, len(shelves) - 1), key, file.path))
    return [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": names.secret_name(task.uuid, number),
                "namespace": site.namespace,
                "labels": _labels(site, group),
            },
            "immutable": True,
            "type": "Opaque",
            "data": data,
        }
        for number, data in enumerate(shelves)
    ], placed


def _passes(
    site: Site, group: GroupPlacement, digest: str, passes: Mapping[str, str]
) -> tuple[list[Document], dict[str, tuple[str, str]]]:
    """Secrets with the attempts' passes, and for each its Secret and the key in it.

    Many share a Secret, since making one each would cost as much as making the pods; each pod
    mounts its own key only.
    """
    entries = list(passes.items())
    secrets: list[Document] = []
    shelf_of: dict[str, tuple[str, str]] = {}
    for start in range(0, len(entries), _PASSES_TOGETHER):
        some = dict(entries[start : start + _PASSES_TOGETHER])
        name = names.passes_name(group.group_uuid, digest, len(secrets))
        secrets.append(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {
                    "name": name,
                    "namespace": site.namespace,
                    "labels": {**_labels(site, group), names.PASSES: "nats"},
                },
                "type": "Opaque",
                "data": encoded(some),
            }
        )
        shelf_of |= {each: (name, each) for each in some}
    return secrets, shelf_of


def encoded(texts: Mapping[str, str]) -> dict[str, str]:
    """The `data` of a Secret."""
    return {key: base64.b64encode(text.encode()).decode("ascii") for key, text in texts.items()}


def _content(task: TaskPlacement, file: InjectedFile, say: Any) -> str:
    """A file's bytes as base64."""
    if not file.base64:
        return base64.b64encode(say(file.contents).encode()).decode("ascii")
    try:
        return base64.b64encode(base64.b64decode(file.contents)).decode("ascii")
    except binascii.Error as error:
        raise PlacementError(f"task {task.name}: the file {file.path}: {error}") from error
