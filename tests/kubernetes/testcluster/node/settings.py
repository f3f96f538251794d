"""What the programs of a real node are told: containerd, its network plugin, the kubelet."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from testcluster.node.images import PAUSE

SOCKET = "/run/containerd/containerd.sock"
_UNUSED = (
    *("nri.v1.nri", "snapshotter.v1.blockfile", "snapshotter.v1.btrfs", "snapshotter.v1.native"),
    *("snapshotter.v1.devmapper", "snapshotter.v1.erofs", "snapshotter.v1.zfs"),
)


def containerd_settings(folder: Path, programs: Path) -> str:
    """The configuration of containerd (TOML, which takes JSON's strings and lists).

    What it keeps lies in `folder`, what lives only as long as it in the node's own /run.
    """
    unused = json.dumps([f"io.containerd.{name}" for name in _UNUSED])
    return f"""\
version = 4
root = {_text(folder / "containerd")}
state = "/run/containerd"
disabled_plugins = {unused}
[plugins."io.containerd.internal.v1.opt"]
path = {_text(folder / "opt")}
[plugins."io.containerd.server.v1.grpc"]
address = "{SOCKET}"
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{PAUSE}"
[plugins."io.containerd.cri.v1.runtime"]
netns_mounts_under_state_dir = true
disable_apparmor = true
# The machine may not let even root lower it.
restrict_oom_score_adj = true
enable_criu = false
[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = [{_text(programs)}]
conf_dir = {_text(folder / "cni")}
use_internal_loopback = true
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
BinaryName = {_text(programs / "runc")}
Root = "/run/runc"
"""


def network_settings() -> str:
    """The network of pods: each has a link to the node and an address of its own."""
    ptp = {
        "type": "ptp",
        "ipam": {
            "type": "host-local",
            "dataDir": "/run/cni",
            "ranges": [[{"subnet": "10.244.0.0/24"}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    return json.dumps({"cniVersion": "1.0.0", "name": "node", "plugins": [ptp]})


def kubelet_settings(folder: Path, port: int, cgroup: str, lease: int) -> str:
    """The kubelet's configuration.

    Args:
        folder: for all that it keeps.
        port: where it listens, on its own loopback address.
        cgroup: below which all pods are.
        lease: seconds, see `Timing`.
    """
    return yaml.safe_dump(
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": "127.0.0.1",
            "port": port,
            "healthzPort": 0,
            # Only what is inside the node, and the API server by its relay, reach the port.
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{cgroup}",
            "enforceNodeAllocatable": [],
            "failCgroupV1": False,
            "failSwapOn": False,
            "containerRuntimeEndpoint": f"unix://{SOCKET}",
            "resolvConf": str(folder / "resolv.conf"),
            "podLogsDir": str(folder / "pods"),
            "volumePluginDir": str(folder / "plugins"),
            "nodeLeaseDurationSeconds": lease,
            "nodeStatusUpdateFrequency": "1s",
            # The machine is not the node's alone: how full its disk is says nothing.
            "evictionHard": {"memory.available": "50Mi"},
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "makeIPTablesUtilChains": False,
            "serializeImagePulls": False,
            "eventRecordQPS": 0,
        }
    )


def _text(path: Path) -> str:
    return json.dumps(str(path))
