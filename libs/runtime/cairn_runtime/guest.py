"""A program beside a running task, seeing what the task sees: what `exec` starts.

The asker connects to the shim's socket, sends one line `exec <json>` together with three
descriptors (the program's input, output and errors), and is answered by one line of JSON:
`{"exit": code}` once the program has ended, or `{"error": words}`.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import termios
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import NoReturn

from cairn_runtime import libc
from cairn_runtime.process import become, enter, exit_code
from cairn_runtime.room import NAMESPACES, Room, Task


@dataclass(frozen=True, slots=True)
class Request:
    """What to start. `terminal`: the descriptors are a terminal, to be its controlling one."""

    argv: list[str]
    terminal: bool = False

    def encode(self) -> bytes:
        """The whole line of an order."""
        return b"exec " + json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def decode(cls, text: str) -> Request:
        """From what follows the word `exec`."""
        return cls(**json.loads(text))


def ended(status: int) -> bytes:
    """The answer when the program has ended."""
    return json.dumps({"exit": exit_code(status)}).encode() + b"\n"


def failed(words: str) -> bytes:
    """The answer when it could not be started."""
    return json.dumps({"error": words}).encode() + b"\n"


def start(
    init: int,
    task: Task,
    room: Room,
    request: Request,
    descriptors: list[int],
    close: Callable[[], None],
) -> int:
    """Starts the program; returns a child of ours that ends with the program's exit code.

    Raises:
        OSError: no process could be had, or fewer than three descriptors came along.
    """
    if len(descriptors) < 3:
        raise OSError(f"three descriptors are needed, {len(descriptors)} came")
    pid = os.fork()
    if pid:
        return pid
    try:
        signal.set_wakeup_fd(-1)
        libc.die_with_parent(signal.SIGKILL)
        close()
        _run(init, task, room, request, descriptors)
    except OSError as error:
        _complain(descriptors[2], f"cairn: {error}\n")
    finally:
        os._exit(70)


def _run(init: int, task: Task, room: Room, request: Request, descriptors: list[int]) -> NoReturn:
    os.setsid()
    for number, descriptor in enumerate(descriptors[:3]):
        os.dup2(descriptor, number)
    if request.terminal:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    if task.isolation != NAMESPACES:
        os.chdir(room.osmo / "work")
        _become(task, request)
    privileged = os.geteuid() == 0
    enter(init, privileged=privileged)
    os.chdir("/osmo/work")
    # A PID namespace is entered by children only.
    pid = os.fork()
    if pid == 0:
        if privileged:
            libc.drop_capabilities()
        _become(task, request)
    _, status = os.waitpid(pid, 0)
    os._exit(exit_code(status))


def _become(task: Task, request: Request) -> NoReturn:
    environment = task.environment
    if request.terminal:
        environment = {"TERM": "xterm-256color", **environment}
    program = request.argv[0]
    become(
        request.argv,
        environment,
        lambda number: _complain(2, f"{program}: {os.strerror(number)}\n"),
    )


def _complain(descriptor: int, words: str) -> None:
    os.write(descriptor, words.encode(errors="replace"))
