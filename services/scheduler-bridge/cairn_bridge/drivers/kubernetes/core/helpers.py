"""Cairn's own containers in a pod, and what a pod needs for their sake.

They are of `cairn_runtime`: an init container that fetches inputs, a native sidecar (Kubernetes
1.29) that makes checkpoints, keeps outputs and ends a task that does not end, and, where the tasks
of a group start together, an init container that waits for the others. They have as few rights as
they need.
"""

from __future__ import annotations

from typing import Any

from cairn_bridge.drivers.kubernetes.core import names
from cairn_bridge.drivers.kubernetes.core.briefing import DATA
from cairn_bridge.drivers.kubernetes.core.site import Site
from cairn_common.pools import merge_all

GRACE_SECONDS = 30
"""How long a command may take to end that is told to, unless the order says otherwise."""
KEEP_SECONDS = 3600
"""How long the sidecar may take to keep the outputs."""
_RUNTIME = ["python3", "-m", "cairn_runtime.pod"]
_BARRIER_FOLDER = "/var/run/cairn-barrier"
_CAPABILITIES = {
    names.FETCH_CONTAINER: ["DAC_OVERRIDE"],
    names.KEEP_CONTAINER: ["DAC_OVERRIDE", "KILL"],
}
Document = dict[str, Any]


def time_to_end(site: Site) -> Document:
    """How much time a pod has to end.

    It has one grace for two things: for the sidecar to keep large outputs after an end of the
    command's own, and for the command to end when somebody deletes the pod. Kubernetes knows no
    other, and nothing shortens it later: a kubelet that waits with a sidecar for the command does
    not hear of a second deletion (1.37, `terminationOrdering.waitForTurn`). So the pod's is the
    long one, and the sidecar's hook kills a command that does not end, see
    `cairn_runtime.companions`; for that, all containers see each other's processes. A command so
    is not process 1, either, which would ignore a SIGTERM that it does not handle.
    """
    if site.runtime_image is None:
        return {"terminationGracePeriodSeconds": GRACE_SECONDS}
    return {"terminationGracePeriodSeconds": KEEP_SECONDS, "shareProcessNamespace": True}


def helpers(site: Site) -> list[Document]:
    """Those of every pod; none where the site has no image of the runtime."""
    if site.runtime_image is None:
        return []
    common = _helper(site)
    data = [{"name": names.DATA_VOLUME, "mountPath": DATA}]
    return [
        {
            **common,
            "name": names.FETCH_CONTAINER,
            "command": [*_RUNTIME, "fetch"],
            "volumeMounts": data,
        },
        {
            **common,
            "name": names.KEEP_CONTAINER,
            "command": [*_RUNTIME, "keep"],
            "volumeMounts": data,
            "restartPolicy": "Always",
            "lifecycle": {"preStop": {"exec": {"command": [*_RUNTIME, "ending"]}}},
            # The task starts once the sidecar listens for the signal of its end.
            "startupProbe": {
                "exec": {"command": [*_RUNTIME, "ready"]},
                "periodSeconds": 1,
                "timeoutSeconds": 10,
                "failureThreshold": 60,
            },
        },
    ]


def _helper(site: Site) -> Document:
    return {
        "image": site.runtime_image,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        # What a task asks for is what its pod asks for. KAI (0.12) does not count what a native
        # sidecar asks for, the kubelet does: on a node that is full by KAI's count, it would
        # refuse the pod (OutOfcpu). The pod's share of its node is the task's, for all of it.
        "resources": {
            "requests": {"cpu": "0", "memory": "0"},
            "limits": {"memory": "512Mi"},
        },
    }


def barrier(site: Site) -> Document:
    """The barrier: after the sidecar, so that nothing but the task is still to be started.

    Its running says that this task is ready. The word that all are comes by the pod's own
    annotation, which the kubelet shows to it as a file: so the barrier outlives every bridge, and
    needs no network but the API server's own.
    """
    return {
        "initContainers": [
            {
                **_helper(site),
                "name": names.BARRIER_CONTAINER,
                "command": [*_RUNTIME, "barrier"],
                "volumeMounts": [
                    {
                        "name": names.BARRIER_VOLUME,
                        "mountPath": _BARRIER_FOLDER,
                        "readOnly": True,
                    }
                ],
            }
        ],
        "volumes": [
            {
                "name": names.BARRIER_VOLUME,
                "downwardAPI": {
                    "items": [
                        {
                            "path": "word",
                            "fieldRef": {"fieldPath": f"metadata.annotations['{names.BARRIER}']"},
                        }
                    ]
                },
            }
        ],
    }


def let_read(spec: Document) -> None:
    """Lets Cairn's own containers read what the task wrote, whatever user its image has.

    Files are often open to their owner only: those of `mkstemp`, or of a umask. Where a template
    names the pod's user, or bars root, all containers have the same user and need no right.
    """
    if {"runAsUser", "runAsNonRoot"} & spec.get("securityContext", {}).keys():
        return
    for each in spec.get("initContainers", ()):
        if each["name"] in _CAPABILITIES:
            rights = {"runAsUser": 0, "capabilities": {"add": _CAPABILITIES[each["name"]]}}
            each["securityContext"] = merge_all([rights, each.get("securityContext", {})])


def count_sidecars(spec: Document) -> None:
    """Tells Cairn's own sidecar how many others there are, so that it knows the task from them."""
    sidecars = [
        each for each in spec.get("initContainers", ()) if each.get("restartPolicy") == "Always"
    ]
    for each in sidecars:
        if each["name"] == names.KEEP_CONTAINER:
            count = {"name": "CAIRN_SIDECARS", "value": str(len(sidecars) - 1)}
            each["env"] = [*each.get("env", ()), count]
