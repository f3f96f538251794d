"""kubernetes-asyncio, as the driver imports it."""

from __future__ import annotations

import subprocess
import sys

_LOOK = """
import sys
import cairn_bridge.drivers.kubernetes
assert not [name for name in sys.modules if name.startswith("kubernetes_asyncio")]
from cairn_bridge.drivers.kubernetes.client import ApiClient, Configuration, kubeconfig
assert kubeconfig.load_kube_config
assert isinstance(ApiClient(Configuration()).configuration, Configuration)
from kubernetes_asyncio import client
assert client.CoreV1Api and client.V1Pod(kind="Pod").to_dict()["kind"] == "Pod"
"""


def test_the_driver_imports_no_generated_class_and_leaves_the_package_whole_to_others() -> None:
    async_look = f"import asyncio\nasync def look():\n{_indented(_LOOK)}\nasyncio.run(look())"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", async_look],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def _indented(code: str) -> str:
    return "\n".join(f"    {line}" for line in code.splitlines())
