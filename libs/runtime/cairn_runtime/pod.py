"""`python -m cairn_runtime.pod fetch|keep|ready|barrier`: the containers beside a task in a pod.

`fetch` is an init container: it brings the inputs, and the task does not start if it fails.
`keep` is a native sidecar: it waits for SIGTERM, which the kubelet sends when the task's own
container has ended (Kubernetes, "Sidecar Containers"), and then takes the outputs away. `ready`
is its probe: a signal that came before it listened would be lost. `barrier` is an init container
that ends when the kubelet shows it that its pod is annotated as open: all tasks are ready.

What they are to do stands in `CAIRN_POD` as JSON; the folders are those that the task sees. The
last words of one that fails are its pod's termination message.
"""

from __future__ import annotations

import json
import os
import signal
import stat
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from cairn_runtime.room import Input, Output
from cairn_runtime.storage import StorageError
from cairn_runtime.transfer import fetch_inputs, persist_outputs

DATA = Path("/osmo/data")
BARRIER = Path("/var/run/cairn-barrier/word")
_LOOK_SECONDS = 0.1
_LISTENS = ".keep-listens"


def main(verb: str, environment: Mapping[str, str], data: Path, word: Path = BARRIER) -> int:
    """Does one container's work; returns its exit code."""
    if verb == "ready":
        return 0 if (data / _LISTENS).exists() else 1
    if verb != "keep":  # the first process of a container ignores what it does not handle
        signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    if verb == "barrier":
        while word.read_text(encoding="utf-8").strip() != "open":
            time.sleep(_LOOK_SECONDS)
        return 0
    order = json.loads(environment["CAIRN_POD"])
    outputs, inputs = data / "output", data / "input"
    try:
        if verb == "fetch":
            # Here, as the task's own user may be any: they must be there, and be open to it.
            for folder in (outputs, inputs):
                folder.mkdir(parents=True, exist_ok=True)
            outputs.chmod(0o777)
            fetch_inputs(inputs, [Input(**each) for each in order["inputs"]], _say)
            _open_to_all(inputs)
        else:
            _wait_for_the_end(data / _LISTENS)
            targets = [Output(**each) for each in order["outputs"]]
            persist_outputs(outputs, str(outputs), targets, _say)
    except StorageError as error:
        _say(str(error))
        return 1
    return 0


def _open_to_all(folder: Path) -> None:
    """Whoever wrote a file may have kept it to itself; this task's user may be another."""
    for path in folder.rglob("*"):
        mode = path.lstat().st_mode
        if not stat.S_ISLNK(mode):
            path.chmod(mode | (0o555 if mode & stat.S_IXUSR else 0o444))


def _wait_for_the_end(listens: Path) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    listens.touch()
    signal.sigwait([signal.SIGTERM])


def _say(words: str) -> None:
    sys.stdout.write(f"{words}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], os.environ, DATA))
