"""From a task to its pod.

The user's container runs the user's image and command untouched. Beside it, where the site has an
image of `cairn_runtime`, are Cairn's own, see `helpers`.

What is merged, from the general to the particular: Cairn's own base, the cluster's template, the
pool's, the platform's, and last what the task itself asks for, so that no template can take from
a task what the platform grants it, nor give it what the platform does not.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from cairn_bridge.cluster import PlacementError
from cairn_bridge.drivers.kubernetes.core import names
from cairn_bridge.drivers.kubernetes.core.briefing import INPUT, OUTPUT, speaker
from cairn_bridge.drivers.kubernetes.core.checkpoints import (
    checkpoint_orders,
    checkpoint_volumes,
)
from cairn_bridge.drivers.kubernetes.core.helpers import (
    barrier,
    count_sidecars,
    helpers,
    let_read,
    time_to_end,
)
from cairn_bridge.drivers.kubernetes.core.site import Site
from cairn_common.events import GroupPlacement, TaskPlacement
from cairn_common.pools import (
    Platform,
    Pool,
    keys_wanted,
    merge_all,
    mount_of,
    refusals,
    unknown_credentials,
    with_defaults,
)
from cairn_common.spec.capacity import requested
from cairn_common.spec.models import ResourceSpec

GPU = "nvidia.com/gpu"
_STORAGE = "ephemeral-storage"
_NATS_VOLUME = "cairn-nats"
_NATS_FOLDER = "/var/run/secrets/cairn"
Document = dict[str, Any]


def build_pod(
    site: Site,
    pool: Pool,
    group: GroupPlacement,
    task: TaskPlacement,
    *,
    digest: str,
    leaf: str | None,
    files: list[tuple[str, str, str]],
    nats_pass: tuple[str, str] | None,
    traceparent: str | None,
) -> Document:
    """The pod of one attempt.

    Args:
        site: the cluster.
        pool: the group's pool.
        group: the placement.
        task: one of its tasks.
        digest: the placement's, see `names.placement_digest`.
        leaf: the task's sub-group, if the group has any.
        files: for each injected file its Secret, the key in it, and its path.
        nats_pass: the Secret with its credentials for NATS and the key in it, if it gets any.
        traceparent: the attempt's own W3C trace context.

    Raises:
        PlacementError: the pool does not allow what the task asks for, or the cluster cannot do
            it.
    """
    platform = _platform(pool, group.pool, task)
    say = speaker(site, group, task)
    together = site.runtime_image is not None and group.barrier and len(group.tasks) > 1
    spec = merge_all(
        [
            _base(site),
            _template(site.pools.template),
            _template(pool.template),
            _template(platform.template),
            _placed_on(platform),
            _asked(site, group, task, platform, say, files, traceparent),
            checkpoint_volumes(site, task, say, _host_mounts(task, platform)),
            _credentials(task, pool),
            barrier(site) if together else {},
            {} if nats_pass is None else _speaks(site, *nats_pass),
        ]
    )
    let_read(spec)
    count_sidecars(spec)
    _exclude(spec, task.nodes_excluded)
    marks = {} if group.start_timeout is None else {names.START: f"{group.start_timeout:g}"}
    if together:
        marks[names.BARRIER] = names.CLOSED
    if task.credentials:
        secrets = {pool.credentials[name].secret for name in task.credentials}
        marks[names.SECRETS] = ",".join(sorted(secrets))
    labels = {
        names.CLUSTER: site.cluster,
        names.WORKFLOW: group.workflow_uuid,
        names.GROUP: group.group_uuid,
        names.INDEX: str(task.index),
        names.KAI_QUEUE: names.queue_name(site.namespace, group.pool),
    }
    if leaf is not None:
        labels[names.KAI_SUBGROUP] = leaf
    metadata = merge_all(
        [
            _metadata(site.pools.template),
            _metadata(pool.template),
            _metadata(platform.template),
            {
                "name": names.pod_name(task.uuid, task.attempt),
                "labels": labels,
                "annotations": {
                    names.KAI_POD_GROUP: names.group_name(group.group_uuid),
                    names.WORKFLOW: group.workflow,
                    names.TASK: task.name,
                    names.ATTEMPT: str(task.attempt),
                    names.PLACEMENT: f"{digest}.{len(group.tasks)}",
                    **marks,
                },
                "finalizers": [names.FINALIZER],
            },
        ]
    )
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def _platform(pool: Pool, pool_name: str, task: TaskPlacement) -> Platform:
    found = refusals(
        pool,
        pool_name,
        task.name,
        platform=task.resources.platform,
        privileged=task.privileged,
        host_network=task.host_network,
        mounts=task.volume_mounts,
        topology_keys=[each.key for each in task.topology],
    )
    wanted = keys_wanted(task.credentials)
    found += [words for words, _ in unknown_credentials(pool, pool_name, wanted).values()]
    if found:
        raise PlacementError("\n".join(found))
    platform = pool.platform(task.resources.platform)
    assert platform is not None
    return platform


def _template(template: Document) -> Document:
    """A template's spec: a template is a whole pod, or only its spec."""
    spec = template.get("spec", {} if "metadata" in template else template)
    return dict(spec)


def _metadata(template: Document) -> Document:
    metadata = template.get("metadata", {})
    return {part: metadata[part] for part in ("labels", "annotations") if part in metadata}


def _base(site: Site) -> Document:
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        **time_to_end(site),
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        "volumes": [{"name": names.DATA_VOLUME, "emptyDir": {}}],
        "initContainers": helpers(site),
        "containers": [
            {
                "name": names.TASK_CONTAINER,
                "securityContext": {"allowPrivilegeEscalation": False},
                "terminationMessagePolicy": "FallbackToLogsOnError",
            }
        ],
    }


def _placed_on(platform: Platform) -> Document:
    spec: Document = {}
    if platform.node_selector:
        spec["nodeSelector"] = dict(platform.node_selector)
    if platform.tolerations:
        spec["tolerations"] = [
            {
                ("tolerationSeconds" if name == "toleration_seconds" else name): value
                for name, value in each.model_dump(exclude_none=True).items()
            }
            for each in platform.tolerations
        ]
    return spec


def _asked(
    site: Site,
    group: GroupPlacement,
    task: TaskPlacement,
    platform: Platform,
    say: Callable[[str], str],
    files: list[tuple[str, str, str]],
    traceparent: str | None,
) -> Document:
    mounts, volumes = _mounts(task, platform, files)
    container: Document = {
        "name": names.TASK_CONTAINER,
        "image": task.image,
        "command": [say(word) for word in task.command],
        "env": _environment(group, task, say, traceparent),
        "resources": _resources(task, platform),
        "volumeMounts": mounts,
    }
    if task.args:
        container["args"] = [say(word) for word in task.args]
    if task.privileged:
        container["securityContext"] = {"privileged": True, "allowPrivilegeEscalation": True}
    spec: Document = {
        "schedulerName": site.scheduler,
        "restartPolicy": "Never",
        "priorityClassName": names.priority_class(group.priority),
        "hostname": names.label(task.name),
        "subdomain": names.group_name(group.group_uuid),
        "containers": [container],
        "volumes": volumes,
    }
    if site.runtime_image is not None:
        order = {"name": "CAIRN_POD", "value": _order(site, task, say)}
        spec["initContainers"] = [
            {"name": names.FETCH_CONTAINER, "env": [order]},
            {"name": names.KEEP_CONTAINER, "env": [order]},
        ]
    # Said in both cases: no template grants what the platform does not.
    spec["hostNetwork"] = task.host_network
    if task.host_network:
        spec["dnsPolicy"] = "ClusterFirstWithHostNet"
    return spec


def _speaks(site: Site, secret: str, key: str) -> Document:
    """NATS for the task: its own credentials, in the places where NATS's tools look for them.

    The whole folder is mounted, not the file: so renewed credentials come to the pod.
    """
    return {
        "containers": [
            {
                "name": names.TASK_CONTAINER,
                "env": [
                    {"name": "NATS_URL", "value": site.nats_url},
                    {"name": "NATS_CREDS", "value": f"{_NATS_FOLDER}/nats.creds"},
                ],
                "volumeMounts": [
                    {"name": _NATS_VOLUME, "mountPath": _NATS_FOLDER, "readOnly": True}
                ],
            }
        ],
        "volumes": [
            {
                "name": _NATS_VOLUME,
                "secret": {
                    "secretName": secret,
                    "items": [{"key": key, "path": "nats.creds"}],
                    "defaultMode": 0o444,  # the image's user may be any
                },
            }
        ],
    }


def _credentials(task: TaskPlacement, pool: Pool) -> Document:
    """Secrets of the cluster as variables or files; their values pass through nobody's hands."""
    variables: list[Document] = []
    mounts: list[Document] = []
    volumes: list[Document] = []
    for number, (name, use) in enumerate(task.credentials.items()):
        credential = pool.credentials[name]
        if not isinstance(use, str):
            variables += [
                {
                    "name": variable,
                    "valueFrom": {"secretKeyRef": {"name": credential.secret, "key": key}},
                }
                for variable, key in use.items()
            ]
            continue
        volume = f"cairn-credential-{number}"
        mounts.append({"name": volume, "mountPath": use, "readOnly": True})
        volumes.append(
            {
                "name": volume,
                "secret": {
                    "secretName": credential.secret,
                    "items": [{"key": key, "path": key} for key in credential.keys],
                    "defaultMode": 0o444,  # the image's user may be any
                },
            }
        )
    container = {"name": names.TASK_CONTAINER, "env": variables, "volumeMounts": mounts}
    return {"containers": [container], "volumes": volumes} if task.credentials else {}


def _environment(
    group: GroupPlacement,
    task: TaskPlacement,
    say: Callable[[str], str],
    traceparent: str | None,
) -> list[Document]:
    environment = {
        "CAIRN_WORKFLOW_ID": group.workflow,
        "CAIRN_TASK": task.name,
        "CAIRN_ATTEMPT": str(task.attempt),
    }
    if traceparent:
        environment["TRACEPARENT"] = traceparent
    environment |= {name: say(value) for name, value in task.environment.items()}
    return [{"name": name, "value": value} for name, value in environment.items()]


def _resources(task: TaskPlacement, platform: Platform) -> Document:
    """Requests that are limits: what a task is charged for is what it gets.

    Storage is asked for only where a task or its platform says so.
    """
    asked = task.resources
    resource = with_defaults(
        ResourceSpec(cpu=asked.cpu, gpu=asked.gpu, memory=asked.memory, storage=asked.storage),
        platform,
    )
    need = requested(resource)
    amounts = {"cpu": f"{need.cpu:g}", "memory": str(need.memory)}
    if resource.storage:
        amounts[_STORAGE] = str(resource.storage)
    if need.gpu:
        amounts[GPU] = f"{need.gpu:g}"
    return {"requests": amounts, "limits": dict(amounts)}


def _mounts(
    task: TaskPlacement, platform: Platform, files: list[tuple[str, str, str]]
) -> tuple[list[Document], list[Document]]:
    mounts: list[Document] = [
        {"name": names.DATA_VOLUME, "mountPath": OUTPUT, "subPath": "output"},
        {"name": names.DATA_VOLUME, "mountPath": INPUT, "subPath": "input", "readOnly": True},
    ]
    volumes: list[Document] = []
    secrets: dict[str, str] = {}
    for secret, key, path in files:
        if secret not in secrets:
            secrets[secret] = f"cairn-files-{len(secrets)}"
            volumes.append(
                {
                    "name": secrets[secret],
                    "secret": {"secretName": secret, "defaultMode": 0o755},
                }
            )
        mounts.append(
            {"name": secrets[secret], "mountPath": path, "subPath": key, "readOnly": True}
        )
    sources: dict[str, str] = {}
    for mount in _host_mounts(task, platform):
        source, destination = mount_of(mount)
        if source not in sources:
            sources[source] = f"cairn-host-{len(sources)}"
            volumes.append({"name": sources[source], "hostPath": {"path": source}})
        mounts.append({"name": sources[source], "mountPath": destination})
    return mounts, volumes


def _host_mounts(task: TaskPlacement, platform: Platform) -> list[str]:
    return list(dict.fromkeys([*platform.default_mounts, *task.volume_mounts]))


def _order(site: Site, task: TaskPlacement, say: Callable[[str], str]) -> str:
    """What the containers of `cairn_runtime` are to do, as JSON."""
    store = site.store.rstrip("/")
    order = {
        "inputs": [
            {
                "number": number,
                "url": say(source.url) if source.url else f"{store}/{source.location or ''}",
                "label": source.task or source.url or "",
                "regex": source.regex,
                "required": source.url is not None,
            }
            for number, source in enumerate(task.inputs)
        ],
        "outputs": [
            *([{"url": f"{store}/{task.location}", "regex": None}] if task.location else []),
            *({"url": say(each.url), "regex": each.regex} for each in task.outputs),
        ],
        "checkpoints": checkpoint_orders(task, say),
        "grace": site.eviction_grace,
    }
    return json.dumps(order, separators=(",", ":"))


def _exclude(spec: Document, nodes: list[str]) -> None:
    """Keeps a pod off nodes, beside whatever affinity a template gives it."""
    if not nodes:
        return
    barred = {"key": "kubernetes.io/hostname", "operator": "NotIn", "values": sorted(nodes)}
    affinity = dict(spec.get("affinity", {}))
    node_affinity = dict(affinity.get("nodeAffinity", {}))
    required = dict(node_affinity.get("requiredDuringSchedulingIgnoredDuringExecution", {}))
    # Terms are alternatives, so each of them must bar the nodes.
    required["nodeSelectorTerms"] = [
        {**term, "matchExpressions": [*term.get("matchExpressions", []), barred]}
        for term in required.get("nodeSelectorTerms") or [{}]
    ]
    node_affinity["requiredDuringSchedulingIgnoredDuringExecution"] = required
    affinity["nodeAffinity"] = node_affinity
    spec["affinity"] = affinity
