"""One real node: its kubelet, containerd and runc in namespaces of their own.

Mounts, network links, process numbers and the host name are the node's own and vanish with it.
Only two things are the machine's: one cgroup in each hierarchy, which `stop` removes, and the
folder. The API server reaches the kubelet, and the kubelet the API server, through relays.

Addresses come from nobody's cloud: the node is registered here, with the loopback address at which
its relay listens, and the kubelet is told that such things are not its business.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from testcluster.build import Parts, cache_folder
from testcluster.control_plane import ControlPlane
from testcluster.node import settings
from testcluster.node.able import hierarchies
from testcluster.node.images import make_images
from testcluster.nodes import HOST
from testcluster.processes import Process, free_port

REAL = "cairn.test/real"
"""The taint of real nodes: what a simulated node would do with a pod takes another image there."""
_HERE = Path(__file__).parent
_PATIENCE = 10.0
_CGROUP = "cairn-node"
_PYTHON = (sys.executable, "-I", "-S")


class Machine:
    """A real node; see `Cluster.add_real_node`.

    Args:
        name: the node's.
        plane: of its cluster.
        parts: has the kubelet.
        node_parts: of `ensure_node_parts`.
        labels: of the node, beside what every node has.
        taken: by all pods, as a user's own node; else only by those that tolerate its taint.
    """

    def __init__(
        self,
        name: str,
        plane: ControlPlane,
        parts: Parts,
        node_parts: Mapping[str, Path],
        labels: Mapping[str, str],
        *,
        taken: bool = False,
    ) -> None:
        self.name = name
        self.folder = plane.folder / name
        self._plane = plane
        self._kubelet = parts["kubelet"]
        self._programs = node_parts["containerd"].parent
        self._pause = node_parts["pause"]
        self._labels = labels
        self._taints = [] if taken else [{"key": REAL, "effect": "NoSchedule"}]
        self._port = free_port()
        self._cgroup = f"{_CGROUP}-{os.getpid()}-{secrets.token_hex(3)}"
        self._processes: list[Process] = []

    @property
    def definition(self) -> dict[str, Any]:
        """The node, to be created before its kubelet starts."""
        return {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self.name, "labels": {HOST: self.name, **self._labels}},
            "spec": {"taints": self._taints},
            "status": {
                "addresses": [
                    {"type": "InternalIP", "address": "127.0.0.1"},
                    {"type": "Hostname", "address": self.name},
                ]
            },
        }

    def start(self) -> None:
        """Start its programs; from the main thread only."""
        _sweep()
        self.folder.mkdir()
        for cgroup in self._cgroups():
            cgroup.mkdir()
        images = self.folder / "images.tar"
        make_images(self._pause, cache_folder() / "layers", images)
        api = self._plane.url.rpartition(":")[2]
        way_out, way_in = f"unix:{self.folder / 'out'}", f"unix:{self.folder / 'in'}"
        self._relay("relay-out", way_out, f"tcp:{api}")
        self._relay("relay-in", f"tcp:{self._port}", way_in)
        self._write_settings()
        told = self.folder / "inside.json"
        told.write_text(
            json.dumps(
                {
                    "folder": str(self.folder),
                    "programs": str(self._programs),
                    "socket": settings.SOCKET,
                    "images": str(images),
                    "relays": {
                        "relay-api": [f"tcp:{api}", way_out],
                        "relay-kubelet": [way_in, f"tcp:{self._port}"],
                    },
                    "kubelet": [
                        self._kubelet,
                        f"--config={self.folder / 'kubelet.yaml'}",
                        f"--kubeconfig={self._plane.kubeconfig}",
                        f"--root-dir={self.folder / 'kubelet'}",
                        f"--hostname-override={self.name}",
                        "--cloud-provider=external",
                    ],
                }
            )
        )
        unshare = shutil.which("unshare")
        assert unshare is not None
        own = ("--mount", "--net", "--pid", "--ipc", "--uts", "--mount-proc")
        self._run(
            "inside",
            *(unshare, *own, "--fork", "--kill-child=KILL", "--"),
            *(*_PYTHON, str(_HERE / "inside.py"), str(told)),
        )

    def check(self) -> None:
        """Complain when one of its programs is gone.

        Raises:
            StartError: with the end of the log.
        """
        for process in self._processes:
            process.check()

    def stop(self) -> None:
        """End it and all its containers; nothing of it stays but the folder."""
        for process in reversed(self._processes):
            process.stop()
        deadline = time.monotonic() + _PATIENCE
        for cgroup in self._cgroups():
            for folder in _with_all_below(cgroup):
                _remove(folder, deadline)

    def _cgroups(self) -> Iterator[Path]:
        return (hierarchy / self._cgroup for hierarchy in hierarchies())

    def _write_settings(self) -> None:
        folder = self.folder
        (folder / "cni").mkdir()
        (folder / "cni/node.conflist").write_text(settings.network_settings())
        (folder / "containerd.toml").write_text(
            settings.containerd_settings(folder, self._programs)
        )
        lease = self._plane.timing.lease
        (folder / "kubelet.yaml").write_text(
            settings.kubelet_settings(folder, self._port, self._cgroup, lease)
        )
        # A name server that is not there: names are unknown at once.
        (folder / "resolv.conf").write_text("nameserver 127.0.0.1\n")

    def _relay(self, name: str, listen: str, target: str) -> None:
        self._run(name, *_PYTHON, str(_HERE / "relay.py"), listen, target)

    def _run(self, name: str, *command: str) -> None:
        self._processes.append(Process(name, command, self.folder))


def _with_all_below(cgroup: Path) -> Sequence[Path]:
    """A cgroup and those in it, the innermost first."""
    return [*sorted(cgroup.rglob("*/"), reverse=True), cgroup]


def _sweep() -> None:
    """Remove the empty cgroups of tests that were killed: nothing else outlives those."""
    for hierarchy in hierarchies():
        for cgroup in hierarchy.glob(f"{_CGROUP}-*"):
            if not Path("/proc", cgroup.name.split("-")[2]).exists():
                for folder in _with_all_below(cgroup):
                    with contextlib.suppress(OSError):
                        folder.rmdir()


def _remove(cgroup: Path, deadline: float) -> None:
    """Remove a cgroup once its last process is buried."""
    while cgroup.exists():
        try:
            cgroup.rmdir()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
