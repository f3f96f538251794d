"""Process 1 of the node, in namespaces of its own: mounts, network, containerd, images, kubelet.

`inside.py SETTINGS`, a JSON file that `machine.py` writes. When it ends, however that happens, the
kernel ends everything in its PID namespace, and the mounts and links of the node vanish with the
last process. It ends when one of its programs does. Only the standard library is imported.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

_TUNED = (
    *("vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops"),
    *("kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes"),
)
"""What a kubelet sets for its whole machine."""


def main(settings: dict[str, Any]) -> None:
    """Start everything, then wait for the end of any of it."""
    started = time.monotonic()
    folder, programs = Path(settings["folder"]), Path(settings["programs"])
    _furnish(folder)
    os.environ["PATH"] = f"{programs}:{os.environ['PATH']}"  # containerd finds its shim by it
    children = {}
    relay = (sys.executable, "-I", "-S", str(Path(__file__).with_name("relay.py")))
    for name, (listen, target) in settings["relays"].items():
        children[name] = _start(folder, name, *relay, listen, target)
    containerd = _start(
        folder, "containerd", str(programs / "containerd"), f"--config={folder}/containerd.toml"
    )
    children["containerd"] = containerd
    while not Path(settings["socket"]).exists() and containerd.poll() is None:
        time.sleep(0.02)
    _say(started, "containerd listens")
    _run(str(programs / "ctr"), "-n", "k8s.io", "images", "import", "--local", settings["images"])
    _say(started, "the images are imported")
    children["kubelet"] = _start(folder, "kubelet", *settings["kubelet"])
    names = {child.pid: name for name, child in children.items()}
    while True:
        pid, status = os.wait()  # also of orphans, which are process 1's to bury
        if pid in names:
            _say(started, f"{names[pid]} ended with {os.waitstatus_to_exitcode(status)}")
            sys.exit(1)


def _furnish(folder: Path) -> None:
    """What the node's programs see: a /run of their own, and kernel settings that only seem so."""
    # Pods get mounts from the node by propagation; to the machine itself nothing propagates.
    _run("mount", "--make-rshared", "/")
    _run("mount", "-t", "tmpfs", "-o", "mode=755", "node", "/run")
    for name in _TUNED:
        setting = Path("/proc/sys", name)
        stand_in = folder / "sysctl" / name
        stand_in.parent.mkdir(parents=True, exist_ok=True)
        stand_in.write_text(setting.read_text())
        _run("mount", "--bind", str(stand_in), str(setting))
    _run("ip", "link", "set", "lo", "up")


def _start(folder: Path, name: str, *command: str) -> subprocess.Popen[bytes]:
    with (folder / f"{name}.log").open("ab") as log:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder
        )


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


def _say(started: float, words: str) -> None:
    sys.stdout.write(f"{time.monotonic() - started:6.2f} s {words}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
