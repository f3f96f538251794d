"""kwok in a test cluster: it stands in for the kubelet and the container runtime of every node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from kubernetes_asyncio.client import ApiClient

from testcluster.build import Parts
from testcluster.control_plane import ControlPlane
from testcluster.kubeapi import create_all, documents
from testcluster.lifecycles import NODE_LABEL, node_stages, pod_stages
from testcluster.processes import free_port

_API = "kwok.x-k8s.io/v1alpha1"


async def install(api: ApiClient, parts: Parts) -> None:
    """The definitions of kwok's Logs, Exec and PortForward, which tests make for single pods."""
    await create_all(api, [one for file in parts.kwok_crds for one in documents(file)])


async def start(plane: ControlPlane, parts: Parts) -> None:
    """Start it; nodes with our label become ready, and what is bound to them lives."""
    certificate, key = await plane.certificate("kubelet")
    port = free_port()
    logs = plane.folder / "default.log"
    logs.write_text("2026-01-01T00:00:00.000000000Z stdout F a simulated container\n")
    settings = plane.folder / "kwok.yaml"
    settings.write_text(yaml.safe_dump_all(_settings(logs)))
    plane.run(
        "kwok",
        parts["kwok"],
        f"--config={settings}",
        f"--kubeconfig={plane.kubeconfig}",
        f"--manage-nodes-with-label-selector={NODE_LABEL}=true",
        f"--server-address=127.0.0.1:{port}",
        "--node-ip=127.0.0.1",
        f"--node-port={port}",
        f"--tls-cert-file={certificate}",
        f"--tls-private-key-file={key}",
        f"--node-lease-duration-seconds={plane.timing.lease}",
        "--cidr=10.128.0.0/9",
        "--enable-crds=Logs,Exec,PortForward",
        "--v=ERROR",
    )


def _settings(logs: Path) -> list[dict[str, Any]]:
    everywhere: dict[str, Any] = {"apiVersion": _API, "metadata": {"name": "everywhere"}}
    return [
        {
            "apiVersion": "config.kwok.x-k8s.io/v1alpha1",
            "kind": "KwokConfiguration",
            "options": {
                "enableDebuggingHandlers": True,
                "podPlayStageParallelism": 32,
                "nodePlayStageParallelism": 16,
                "nodeLeaseParallelism": 8,
            },
        },
        *node_stages(),
        *pod_stages(),
        {**everywhere, "kind": "ClusterLogs", "spec": {"logs": [{"logsFile": str(logs)}]}},
        {**everywhere, "kind": "ClusterExec", "spec": {"execs": [{"local": {"workDir": "/tmp"}}]}},
    ]


def pod_log(namespace: str, pod: str, file: Path, *containers: str) -> dict[str, Any]:
    """The pod's containers, or these of them, log what is in `file`, in the format of container
    runtimes."""
    of = {"containers": list(containers)} if containers else {}
    return {
        "apiVersion": _API,
        "kind": "Logs",
        "metadata": {"name": pod, "namespace": namespace},
        "spec": {"logs": [{**of, "logsFile": str(file), "follow": True}]},
    }


def pod_exec(namespace: str, pod: str, folder: Path, **environment: str) -> dict[str, Any]:
    """Commands in the pod's containers run on this machine, in `folder`."""
    variables = [{"name": name, "value": value} for name, value in environment.items()]
    local = {"workDir": str(folder), "envs": variables}
    return {
        "apiVersion": _API,
        "kind": "Exec",
        "metadata": {"name": pod, "namespace": namespace},
        "spec": {"execs": [{"local": local}]},
    }


def pod_port(namespace: str, pod: str, port: int, target: int) -> dict[str, Any]:
    """Connections to the pod's `port` reach the loopback address's `target`."""
    return {
        "apiVersion": _API,
        "kind": "PortForward",
        "metadata": {"name": pod, "namespace": namespace},
        "spec": {
            "forwards": [{"ports": [port], "target": {"port": target, "address": "127.0.0.1"}}]
        },
    }
