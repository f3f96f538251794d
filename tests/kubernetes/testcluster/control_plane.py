"""A Kubernetes control plane on the loopback address: etcd, API server, controller manager.

Real programs with the real admission, authorization (RBAC) and controllers; what is set otherwise
than a distribution would is time: a node counts as lost after seconds, not after a minute.
"""

from __future__ import annotations

import asyncio
import secrets
import ssl
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import yaml

from testcluster.build import Parts
from testcluster.processes import Process, free_port, run_tool

_CONTROLLERS = (
    "garbage-collector-controller",
    "namespace-controller",
    "serviceaccount-controller",
    "root-ca-certificate-publisher-controller",
    "node-lifecycle-controller",
    "taint-eviction-controller",
    "pod-garbage-collector-controller",
    "endpointslice-controller",
    "endpoints-controller",
    "job-controller",
    "disruption-controller",
    "resourcequota-controller",
    "validatingadmissionpolicy-status-controller",
)


@dataclass(frozen=True, slots=True)
class Timing:
    """How fast a cluster notices; seconds."""

    lease: int = 8
    """A node's lease; its kubelet renews it four times in that time."""
    node_grace: int = 6
    """A node without a renewed lease is NotReady after this long."""
    toleration: int = 2
    """Pods are evicted from a NotReady node after this long, unless they say otherwise."""
    schedule_period: str = "500ms"
    """Between two rounds of KAI; its default is one second."""
    staleness: str = "60s"
    """KAI evicts what is left of a gang that fell below its minimum after this long."""


class ControlPlane:
    """The three programs of one cluster, and how to reach it."""

    def __init__(self, name: str, parts: Parts, folder: Path, timing: Timing) -> None:
        self.name = name
        self.folder = folder
        self.timing = timing
        self.processes: list[Process] = []
        self.url = ""
        self.kubeconfig = folder / "kubeconfig"
        self._parts = parts
        self._token = secrets.token_hex(16)

    async def start(self) -> None:
        """Start etcd and the API server, and wait until it answers.

        Raises:
            StartError: a program ended or did not become ready in time.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        await self._make_keys()
        etcd = await self._start_etcd()
        port = free_port()
        self.url = f"https://127.0.0.1:{port}"
        server = self._start_apiserver(port, etcd)
        await self._until_ready(server, f"{self.url}/readyz", self.folder / "pki/apiserver.crt")
        self._write_kubeconfig()

    def run(self, name: str, *command: str) -> Process:
        """Start a further program of this cluster; it finds it by KUBECONFIG."""
        process = Process(name, command, self.folder, {"KUBECONFIG": str(self.kubeconfig)})
        self.processes.append(process)
        return process

    def process(self, name: str) -> Process:
        """A program of this cluster by its name."""
        return next(one for one in self.processes if one.name == name)

    def check(self) -> None:
        """Complain when a program is gone.

        Raises:
            StartError: with the end of its log.
        """
        for process in self.processes:
            process.check()

    def stop(self) -> None:
        """End all programs, the last started first."""
        for process in reversed(self.processes):
            process.stop()

    async def _make_keys(self) -> None:
        pki = self.folder / "pki"
        pki.mkdir(exist_ok=True)
        await run_tool("openssl", "genrsa", "-out", str(pki / "accounts.key"), "2048")
        tokens = self.folder / "tokens.csv"
        tokens.touch(mode=0o600)
        tokens.write_text(f'{self._token},admin,admin,"system:masters"\n')

    async def certificate(self, name: str) -> tuple[Path, Path]:
        """A self-signed certificate of the loopback address for a server, and its key."""
        certificate, key = (self.folder / "pki" / f"{name}.{end}" for end in ("crt", "key"))
        await run_tool(
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30"),
            *("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(certificate)),
        )
        return certificate, key

    async def _start_etcd(self) -> str:
        client, peer = free_port(), free_port()
        url = f"http://127.0.0.1:{client}"
        process = self.run(
            "etcd",
            self._parts["etcd"],
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={url}",
            f"--advertise-client-urls={url}",
            f"--listen-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-cluster=default=http://127.0.0.1:{peer}",
            "--unsafe-no-fsync",
            f"--quota-backend-bytes={4 << 30}",
            "--log-level=warn",
        )
        await self._until_ready(process, f"{url}/readyz")
        return url

    def _start_apiserver(self, port: int, etcd: str) -> Process:
        pki = self.folder / "pki"
        return self.run(
            "kube-apiserver",
            self._parts["kube-apiserver"],
            f"--etcd-servers={etcd}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            # Where the API is for pods: there are none inside, and it may not be loopback.
            "--endpoint-reconciler-type=none",
            f"--secure-port={port}",
            f"--cert-dir={pki}",
            f"--token-auth-file={self.folder / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={pki / 'accounts.key'}",
            f"--service-account-signing-key-file={pki / 'accounts.key'}",
            f"--default-not-ready-toleration-seconds={self.timing.toleration}",
            f"--default-unreachable-toleration-seconds={self.timing.toleration}",
            "--kubelet-preferred-address-types=InternalIP",
            "--allow-privileged=true",
            "--profiling=false",
        )

    def start_controllers(self) -> Process:
        """Start the controller manager, once all kinds of objects are there: its garbage collector
        looks for new kinds every 30 seconds only, and until then lets live what they owned."""
        pki = self.folder / "pki"
        return self.run(
            "kube-controller-manager",
            self._parts["kube-controller-manager"],
            f"--kubeconfig={self.kubeconfig}",
            "--bind-address=127.0.0.1",
            f"--secure-port={free_port()}",
            f"--cert-dir={self.folder / 'controller-manager'}",
            f"--controllers={','.join(_CONTROLLERS)}",
            "--leader-elect=false",
            f"--service-account-private-key-file={pki / 'accounts.key'}",
            f"--root-ca-file={pki / 'apiserver.crt'}",
            "--node-monitor-period=1s",
            f"--node-monitor-grace-period={self.timing.node_grace}s",
            # Else only one node in ten seconds counts as lost, and none when most are.
            "--node-eviction-rate=100",
            "--secondary-node-eviction-rate=100",
            "--unhealthy-zone-threshold=1",
            "--kube-api-qps=400",
            "--kube-api-burst=800",
            "--concurrent-gc-syncs=20",
            "--profiling=false",
        )

    def _write_kubeconfig(self) -> None:
        authority = self.folder / "pki/apiserver.crt"
        self.kubeconfig.touch(mode=0o600)
        self.kubeconfig.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [
                        {
                            "name": self.name,
                            "cluster": {
                                "server": self.url,
                                "certificate-authority": str(authority),
                            },
                        }
                    ],
                    "users": [{"name": "admin", "user": {"token": self._token}}],
                    "contexts": [
                        {"name": self.name, "context": {"cluster": self.name, "user": "admin"}}
                    ],
                    "current-context": self.name,
                }
            )
        )

    async def _until_ready(
        self, process: Process, url: str, authority: Path | None = None, seconds: float = 90.0
    ) -> None:
        deadline = time.monotonic() + seconds
        while True:
            process.check()
            if await asyncio.to_thread(self._answers, url, authority):
                return
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"{process.name} is not ready after {seconds:.0f} s: {process.log}"
                )
            await asyncio.sleep(0.05)

    def _answers(self, url: str, authority: Path | None) -> bool:
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {self._token}"})
        try:
            # The server writes its certificate while it starts: there may be none yet, or a half.
            context = ssl.create_default_context(cafile=str(authority)) if authority else None
            with urllib.request.urlopen(request, timeout=5, context=context) as response:
                return bool(response.status == 200)
        except OSError:
            return False
