"""`python -m cairn_runtime.pod fetch|keep|ready|ending|barrier`: what runs beside a task in a pod.

`fetch` is an init container: it brings the inputs, and the task does not start if it fails.
`keep` is a native sidecar: it makes checkpoints until SIGTERM, which the kubelet sends when the
task's own container has ended (Kubernetes, "Sidecar Containers"), makes the last ones and then
takes the outputs away. `ready` is its probe: a signal that came before it listened would be lost.
`ending` is its hook, which the kubelet runs before that signal, when the pod begins to end: a task
that still runs is being stopped, so its outputs are not kept, and it is killed after a grace.
`barrier` is an init container that ends when the kubelet shows it that its pod is annotated as
open: all tasks are ready.

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

from cairn_runtime.checkpoints import Checkpointer
from cairn_runtime.companions import end_task, task_runs
from cairn_runtime.copying import StorageError
from cairn_runtime.libc import hide_from_others
from cairn_runtime.room import Checkpoint, Input, Output
from cairn_runtime.transfer import fetch_inputs, persist_outputs

DATA = Path("/osmo/data")
BARRIER = Path("/var/run/cairn-barrier/word")
_LOOK_SECONDS = 0.1
_LISTENS = ".keep-listens"
_STOPPED = ".task-was-stopped"


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
    if verb == "ending":
        sidecars = int(environment.get("CAIRN_SIDECARS", "0"))
        if task_runs(sidecars):
            (data / _STOPPED).touch()
            end_task(sidecars, order["grace"])
        return 0
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
            checkpoints = [Checkpoint(**each) for each in order.get("checkpoints", ())]
            targets = [Output(**each) for each in order["outputs"]]
            _keep(checkpoints, outputs, targets, data)
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


def _keep(checkpoints: list[Checkpoint], outputs: Path, targets: list[Output], data: Path) -> None:
    hide_from_others()  # the task sees this process
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # for the threads, too
    checkpointer = Checkpointer(checkpoints, _say)
    checkpointer.start()
    (data / _LISTENS).touch()
    signal.sigwait([signal.SIGTERM])
    checkpointer.finish()
    if (data / _STOPPED).exists():
        targets = []
    failures: list[str] = []
    for work in (
        checkpointer.join,
        lambda: persist_outputs(outputs, str(outputs), targets, _say),
    ):
        try:
            work()
        except StorageError as error:
            failures.append(str(error))
    if failures:
        raise StorageError("; ".join(failures))


def _say(words: str) -> None:
    sys.stdout.write(f"{words}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], os.environ, DATA))
