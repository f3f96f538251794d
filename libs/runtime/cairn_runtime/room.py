"""An attempt's directory: the names in it, and the two records that cross it.

The directory is the whole memory of an attempt. `task.json` goes in, `exit.json` comes out; what
is between is written so that a reader who arrives at any moment, after any crash, can tell how
far the attempt is:

| file | written by | says |
| --- | --- | --- |
| `task.json` | the driver, before the shim | what to run, with every token replaced |
| `lock` | the shim | locked (fcntl) exactly as long as the shim lives |
| `pid` | the shim | it has begun: process id and start time in clock ticks |
| `socket` | the shim | where a later bridge, or an exec, connects |
| `started` | the shim | when the user's command began, seconds since the epoch |
| `log` | the shim | every line, see `logfile` |
| `exit.json` | the shim, atomically and synced | how it ended |
| `reported` | the driver | how much of the log was reported |

The other entries are what the task sees: `osmo` (as /osmo), `tmp`, `vartmp`, `files` (folders
that are checkpointed and, where there are no namespaces, injected files, each below it at the path
that the specification says), and the layers of its file system.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

NAMESPACES = "namespaces"
NO_ISOLATION = "none"


@dataclass(frozen=True, slots=True)
class File:
    """A file to be put at an absolute path before the start; `contents` is text or base64."""

    path: str
    contents: str
    base64: bool = False


@dataclass(frozen=True, slots=True)
class Input:
    """One input: what to copy into input folder `number`. `required`: its absence is an error."""

    number: int
    url: str
    label: str
    regex: str | None = None
    required: bool = True


@dataclass(frozen=True, slots=True)
class Output:
    """A place that the output folder is copied to."""

    url: str
    regex: str | None = None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder that is copied to `url` while the command runs, `frequency` seconds after the last
    time, and once more at the end.

    `path` is how the task names it; it is the folder `inner` below `base`, which is trusted.
    """

    path: str
    base: str
    inner: str
    url: str
    frequency: float
    regex: str | None = None


@dataclass(frozen=True, slots=True)
class Restart:
    """When the command runs again in its place: `codes` are ranges, both ends included; the waits
    in seconds double from `wait` to `longest`."""

    codes: list[tuple[int, int]]
    limit: int
    wait: float
    longest: float

    def wait_before(self, number: int, code: int | None) -> float | None:
        """Seconds until restart `number`, counted from 1; None if the command is not to run
        again after this exit code."""
        wanted = code is not None and any(low <= code <= high for low, high in self.codes)
        if not wanted or number > self.limit:
            return None
        return min(self.wait * 2.0 ** min(number - 1, 32), self.longest)


@dataclass(frozen=True, slots=True)
class Task:
    """`task.json`. Sizes in bytes, 0 for no limit; strings are final."""

    workflow: str
    name: str
    attempt: int
    image: str
    argv: list[str]
    environment: dict[str, str]
    isolation: str
    files: list[File] = field(default_factory=list)
    inputs: list[Input] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    memory: int = 0
    log_limit: int = 0
    wait: bool = False  # for the driver's word (the barrier) before the command starts
    hidden: list[str] = field(default_factory=list)  # folders of the host that it must not see
    tools: str = ""  # folder of stand-ins, shown to it as `Sight.tools`
    restart: Restart | None = None
    checkpoints: list[Checkpoint] = field(default_factory=list)

    def encode(self) -> bytes:
        """As stored in `task.json`."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decode(cls, data: bytes) -> Task:
        """The reverse of `encode`."""
        raw: dict[str, Any] = json.loads(data)
        raw["files"] = [File(**each) for each in raw["files"]]
        raw["inputs"] = [Input(**each) for each in raw["inputs"]]
        raw["outputs"] = [Output(**each) for each in raw["outputs"]]
        raw["checkpoints"] = [Checkpoint(**each) for each in raw.get("checkpoints", [])]
        raw["restart"] = Restart(**raw["restart"]) if raw.get("restart") else None
        return cls(**raw)


@dataclass(frozen=True, slots=True)
class Ending:
    """`exit.json`. `reason` is a value of the catalogue's FinishReason, times in seconds."""

    reason: str
    exit_code: int | None
    message: str | None
    started_at: float | None
    ended_at: float
    restarts: int = 0

    def encode(self) -> bytes:
        """As stored in `exit.json`."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decode(cls, data: bytes) -> Ending:
        """The reverse of `encode`."""
        return cls(**json.loads(data))


@dataclass(frozen=True, slots=True)
class Stop:
    """An order to end an attempt. `grace` in seconds between SIGTERM and SIGKILL.

    `reason` is what the ending will say; `code` its exit code, the command's own when None.
    """

    grace: float
    cause: str
    reason: str = "stopped"
    code: int | None = None

    def encode(self) -> bytes:
        """The whole line of an order."""
        return b"stop " + json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def decode(cls, text: str) -> Stop:
        """From what follows the word `stop`."""
        return cls(**json.loads(text))


@dataclass(frozen=True, slots=True)
class Sight:
    """Paths as the task sees them."""

    data: str
    home: str
    work: str
    temporary: str
    tools: str

    @property
    def output(self) -> str:
        """What `{{output}}` stands for."""
        return f"{self.data}/output"

    def input(self, number: int) -> str:
        """What `{{input:N}}` stands for."""
        return f"{self.data}/input/{number}"


class Room:
    """The directory of one attempt."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.task = path / "task.json"
        self.lock = path / "lock"
        self.pid = path / "pid"
        self.socket = path / "socket"
        self.started = path / "started"
        self.log = path / "log"
        self.ending = path / "exit.json"
        self.reported = path / "reported"
        self.osmo = path / "osmo"
        self.output = path / "osmo/data/output"
        self.inputs = path / "osmo/data/input"
        self.temporary = path / "tmp"
        self.files = path / "files"

    def own(self, path: str) -> Path:
        """Where a file or folder of the task's own is that is to be at a path of its view."""
        return self.files / path.lstrip("/")

    def furnish(self) -> None:
        """Makes the folders that the task is given."""
        for folder in (self.output, self.inputs, self.osmo / "home", self.osmo / "work"):
            folder.mkdir(parents=True, exist_ok=True)
        (self.osmo / "tools").mkdir(exist_ok=True)
        for folder in (self.temporary, self.path / "vartmp"):
            folder.mkdir(exist_ok=True)
            folder.chmod(0o1777)

    def sight(self, isolation: str, tools: str) -> Sight:
        """Where the task finds its folders at this level of isolation."""
        if isolation == NAMESPACES:
            return Sight("/osmo/data", "/osmo/home", "/osmo/work", "/tmp", "/osmo/tools")  # noqa: S108
        osmo = str(self.osmo)
        return Sight(f"{osmo}/data", f"{osmo}/home", f"{osmo}/work", str(self.temporary), tools)


def write_atomically(path: Path, data: bytes) -> None:
    """Replaces a file so that a crash leaves the old one or the new one, on the disk."""
    partial = path.with_name(f".{path.name}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    partial.replace(path)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Puts a folder's entries on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
