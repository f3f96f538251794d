"""Whether a real node can be had on this machine, and if not, why.

It takes what a container runtime takes: root, namespaces, cgroups of every needed kind, overlay
mounts, and virtual network links; to build runc, a C compiler and the library libseccomp.
"""

from __future__ import annotations

import ctypes.util
import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
_MODULE = Path(__file__).parents[2] / "parts/node/go.mod"
_NEEDED = frozenset({"cpu", "cpuset", "memory", "pids"})
_TRIAL = """
set -e
mount --make-rprivate /
ip link add trial-0 type veth peer name trial-1
cd "$1"
mkdir lower upper work merged
mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work merged
"""
"""Everything that it makes is gone with its namespaces."""


@functools.cache
def why_no_node() -> str:
    """Why there can be no real node; empty if there can."""
    if sys.platform != "linux":
        return "it needs Linux"
    if os.geteuid() != 0:
        return "it needs root"
    if (os.cpu_count() or 1) < 2:
        return "it needs two CPUs"
    missing = [name for name in ("gcc", "go", "ip", "mount", "unshare") if not shutil.which(name)]
    if missing:
        return f"it needs the programs {', '.join(missing)}"
    if ctypes.util.find_library("seccomp") is None:
        return "it needs the library libseccomp (Debian: libseccomp2)"
    return _why_no_go() or _why_no_cgroups() or _why_no_namespaces()


def hierarchies() -> Sequence[Path]:
    """Where cgroups are made: one folder (version 2), or one for each controller (version 1)."""
    if (CGROUPS / "cgroup.controllers").exists():
        return [CGROUPS]
    found = (path.parent for path in CGROUPS.glob("*/cgroup.procs"))
    return sorted(path for path in found if not path.is_symlink())


def _why_no_go() -> str:
    (wanted,) = re.findall(r"^go (\S+)$", _MODULE.read_text(), re.MULTILINE)
    done = subprocess.run(
        ["go", "env", "GOVERSION"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "GOTOOLCHAIN": "local"},
    )
    found = done.stdout.strip().removeprefix("go")
    if _version(found) < _version(wanted):
        return f"it needs Go {wanted} or newer, not {found or 'none'}"
    return ""


def _version(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)[:3]]


def _why_no_cgroups() -> str:
    if (CGROUPS / "cgroup.controllers").exists():
        there = set((CGROUPS / "cgroup.subtree_control").read_text().split())
    else:
        there = {path.name for path in hierarchies()}
    if missing := _NEEDED - {part for name in there for part in name.split(",")}:
        return f"below {CGROUPS} there are no cgroups for {', '.join(sorted(missing))}"
    return "" if os.access(CGROUPS, os.W_OK) else f"{CGROUPS} cannot be written"


def _why_no_namespaces() -> str:
    with tempfile.TemporaryDirectory(prefix="cairn-node-trial-") as folder:
        done = subprocess.run(
            ["unshare", "--mount", "--net", "sh", "-c", _TRIAL, "trial", folder],
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode == 0:
        return ""
    return f"namespaces, virtual links or overlay mounts are refused: {done.stderr.strip()}"
