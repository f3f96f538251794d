"""Which folders of a task can be checkpointed, and where they are then.

A folder below `{{output}}` lies in a volume that Cairn reads anyway. Any other gets a volume of
its own at its path, which hides what the image has there: for that, what runs beside the task can
read it, also when the task's own container has gone. Hence the paths that are refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import PurePosixPath
from posixpath import normpath

from cairn_common.spec.checks import Findings
from cairn_common.spec.models import TaskSpec, WorkflowSpec
from cairn_common.spec.problems import Location
from cairn_common.spec.tokens import substitute

OUTPUT = "/osmo/data/output"
SHORTEST = timedelta(seconds=1)
_OSMO = "/osmo"
_KERNELS = ("/dev", "/proc", "/sys")
_SYSTEMS = frozenset(
    {"/", "/bin", "/boot", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/run", "/sbin", "/usr",
     "/usr/bin", "/usr/lib", "/usr/lib64", "/usr/local", "/usr/local/bin", "/usr/local/lib",
     "/usr/sbin", "/var", "/var/lib"}
)  # fmt: skip
_TOKENS = {"output": OUTPUT, "input": "/osmo/data/input/0"}


def normal(path: str) -> str:
    """A path without `.`, `..` and superfluous slashes; a relative one stays relative."""
    found = normpath(path)
    return f"/{found.lstrip('/')}" if found.startswith("/") else found


def below(path: str, folder: str) -> bool:
    """Whether a path is a folder or lies in it."""
    return PurePosixPath(path).is_relative_to(folder)


def homes(paths: Iterable[str], output: str = OUTPUT) -> dict[str, tuple[str, str]]:
    """For each of some normal paths the folder that it lies in, and its place in that.

    The folder is `output`, or the outermost of the paths themselves: a path within another one is
    in the same volume.
    """
    found: dict[str, tuple[str, str]] = {}
    roots = [output]
    for path in sorted(set(paths), key=lambda each: each.count("/")):
        root = next((each for each in roots if below(path, each)), None)
        if root is None:
            roots.append(root := path)
        inner = str(PurePosixPath(path).relative_to(root))
        found[path] = root, "" if inner == "." else inner
    return found


def refusal(path: str) -> str | None:
    """Why no checkpoint can be made of a normal path, if so."""
    if not path.startswith("/"):
        return f"{path} is no absolute path"
    if any(each in path for each in ":\0\n"):
        return f"{path!r} has a colon, a line break or a zero byte in it"
    if below(path, _OSMO) and not below(path, OUTPUT):
        return f"{path} is Cairn's own, of which only {{{{output}}}} can be checkpointed"
    if path in _SYSTEMS or any(below(path, each) for each in _KERNELS):
        return f"{path} belongs to the system, and the task gets an empty folder at this path"
    return None


def check_checkpoints(spec: WorkflowSpec, findings: Findings) -> None:
    """Add a problem for every folder that cannot be checkpointed."""
    for g, group in enumerate(spec.all_groups):
        for t, task in enumerate(group.tasks):
            if task.checkpoint:
                _check_task(task, spec.task_location(g, t), findings)


def _check_task(task: TaskSpec, location: Location, findings: Findings) -> None:
    files = {normal(file.path): file.path for file in task.files}
    mounts = {normal(mount.rpartition(":")[2]): mount for mount in task.volume_mounts}
    for i, entry in enumerate(task.checkpoint):
        here = (*location, "checkpoint", i)
        path = normal(substitute(entry.path, lambda token: _TOKENS.get(token.kind)))
        if words := refusal(path):
            findings.add(
                f"Checkpoint path: {words}.",
                (*here, "path"),
                hint="Write to a folder below {{output}}, or to one of the task's own: /workspace.",
            )
        elif mount := overlap(path, mounts):
            findings.add(
                f"Checkpoint path {entry.path} and the volume mount {mount} lie in one another.",
                (*here, "path"),
                hint="Checkpoint another folder: what is in a volume of the host stays there.",
            )
        elif file := next((each for each in files if below(path, each)), None):
            findings.add(
                f"Checkpoint path {entry.path} is not a folder: files has a file at {file}.",
                (*here, "path"),
            )
        if entry.frequency < SHORTEST:
            findings.warnings.append(
                f"task {task.name}: a checkpoint every {entry.frequency.total_seconds():g} s"
                f" is made every {SHORTEST.total_seconds():g} s"
            )


def overlap(path: str, mounts: Mapping[str, str]) -> str | None:
    """One of the mounts, by their normal destinations, that lies in a path or around it."""
    return next(
        (
            mount
            for destination, mount in mounts.items()
            if below(path, destination) or below(destination, path)
        ),
        None,
    )
