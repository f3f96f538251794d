"""Starts a task's command in a room of its own, and ends all that came of it.

Between the shim and the command stands an *init*: the first process of the task's PID namespace.
It builds the file system, waits for the word to start, starts the command, buries orphans, and
ends with the command; the kernel then kills whatever is left in the namespace. Without namespaces
the same init is a subreaper and kills what it finds below itself in /proc.

A command that was PID 1 itself would ignore SIGTERM unless it handles it, and leave its orphans
unburied; hence the init.

The init tells the shim how far it is, in lines of JSON: `{"ready": true}`, `{"started": true}`,
`{"exit": code}`, `{"error": words, "code": code or null}`.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import select
import shutil
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from cairn_runtime import libc
from cairn_runtime.mounts import build_root, write_file
from cairn_runtime.room import NAMESPACES, Room, Task

_FILES_LIMIT = 1 << 16
NOT_FOUND, NOT_RUNNABLE = 127, 126  # as the shell reports them


@dataclass(frozen=True, slots=True)
class Words:
    """One line of what the init says."""

    ready: bool = False
    started: bool = False
    exit: int | None = None
    error: str | None = None
    code: int | None = None  # with `error`: as the shell reports it, None when it is our failure


def decode_status(line: bytes) -> Words:
    """The reverse of what the init does."""
    return Words(**json.loads(line))


@dataclass(slots=True)
class Sandbox:
    """What the shim holds of an init. File descriptors belong to the shim."""

    pid: int
    status: int  # read: the init's lines
    word: int  # write: b"g" starts the command; closing it ends the init
    stdout: int
    stderr: int


def start(room: Room, task: Task, close: Callable[[], None]) -> Sandbox:
    """Forks an init, which then builds the room on its own time.

    `close` closes, in the child, what belongs to the shim alone.

    Raises:
        OSError: no process or no namespace could be had.
    """
    status_read, status_write = os.pipe()
    word_read, word_write = os.pipe()
    out_read, out_write = os.pipe()
    err_read, err_write = os.pipe()
    mine = (status_read, word_write, out_read, err_read)
    theirs = (status_write, word_read, out_write, err_write)

    def init() -> NoReturn:
        for descriptor in mine:
            os.close(descriptor)
        close()
        _Init(room, task, status_write, word_read, out_write, err_write).run()

    try:
        pid = _fork_in_namespaces(init) if task.isolation == NAMESPACES else _fork(init)
    except OSError:
        for descriptor in mine:
            os.close(descriptor)
        raise
    finally:
        for descriptor in theirs:
            os.close(descriptor)
    os.write(word_write, b"p")  # our child now; it may ask to die with us
    return Sandbox(pid, status_read, word_write, out_read, err_read)


def exit_code(status: int) -> int:
    """A wait status as the shell reports it: 128 + signal."""
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def descendants(pid: int) -> list[int]:
    """All processes below one, from /proc; those that end meanwhile may be missing."""
    found: list[int] = []
    pending = [pid]
    while pending:
        current = pending.pop()
        with contextlib.suppress(OSError):
            for thread in Path(f"/proc/{current}/task").iterdir():
                children = [int(word) for word in (thread / "children").read_text().split()]
                found += children
                pending += children
    return found


def signal_all(pids: list[int], number: int) -> None:
    """Sends a signal to each process that still exists."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def kill_tree(pid: int) -> None:
    """Kills a process and all below it, also those that are born while it does so."""
    while born := descendants(pid):
        signal_all(born, signal.SIGSTOP)
        if set(descendants(pid)) <= set(born):
            break
    signal_all([*descendants(pid), pid], signal.SIGKILL)


def memory_of(pid: int) -> int:
    """Resident bytes of a process and all below it; pages that they share count for each."""
    page = resource.getpagesize()
    total = 0
    for each in (pid, *descendants(pid)):
        with contextlib.suppress(OSError):
            total += int(Path(f"/proc/{each}/statm").read_text().split()[1]) * page
    return total


def shared_memory_of(pid: int) -> int:
    """As `memory_of`, with shared pages divided among who shares them: exact, and slow."""
    total = 0
    for each in (pid, *descendants(pid)):
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{each}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024
    return total


# --- forking ---


def _fork(child: Callable[[], NoReturn]) -> int:
    pid = os.fork()
    if pid == 0:
        _never_return(child)
    return pid


def _never_return(child: Callable[[], NoReturn]) -> NoReturn:
    """A forked child must not run its parent's code, whatever happens to it."""
    try:
        child()
    finally:
        os._exit(70)


def _fork_in_namespaces(init: Callable[[], NoReturn]) -> int:
    """Forks into new namespaces by way of a middle process, which unshares and then goes.

    The shim stays outside: only so can it fork helpers after the PID namespace has ended, and
    read and write the attempt's directory as itself. The init becomes the shim's child because
    the shim is a subreaper.
    """
    read, write = os.pipe()

    def middle() -> NoReturn:
        try:
            privileged = os.geteuid() == 0
            libc.unshare(libc.CLONE_NEWPID | (0 if privileged else libc.CLONE_NEWUSER))
            if not privileged:
                _map_ourselves()
            pid = _fork(init)
            os.write(write, str(pid).encode())
        except OSError as error:
            os.write(write, f"-{error.errno}".encode())
        os._exit(0)

    uid, gid = os.geteuid(), os.getegid()

    def _map_ourselves() -> None:
        # To ourselves, not to root: tar then does not try to restore owners that do not exist
        # here, and exec drops the capabilities that the mounts needed.
        for name, line in (
            ("setgroups", "deny"),
            ("uid_map", f"{uid} {uid} 1"),
            ("gid_map", f"{gid} {gid} 1"),
        ):
            Path(f"/proc/self/{name}").write_text(line)

    middle_pid = _fork(middle)
    os.close(write)
    try:
        answer = int(os.read(read, 32) or b"-5")
    finally:
        os.close(read)
        os.waitpid(middle_pid, 0)
    if answer < 0:
        raise OSError(-answer, os.strerror(-answer), "namespaces")
    return answer


# --- in the child ---


class _Init:
    """The first process of the task."""

    def __init__(
        self, room: Room, task: Task, status: int, word: int, stdout: int, stderr: int
    ) -> None:
        self._room = room
        self._task = task
        self._status = status
        self._word = word
        self._stdout = stdout
        self._stderr = stderr
        self._isolated = task.isolation == NAMESPACES

    def run(self) -> NoReturn:
        signal.set_wakeup_fd(-1)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, signal.SIGTERM})
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._await_parent()
        try:
            self._build()
        except OSError as error:
            place = f" ({error.filename})" if error.filename else ""
            self._tell(error=f"the task's room: {error.strerror}{place}", code=None)
            os._exit(1)
        self._tell(ready=True)
        if os.read(self._word, 1) != b"g":
            os._exit(0)  # the shim has gone or changed its mind
        os._exit(self._serve(self._start()))

    def _await_parent(self) -> None:
        """Ties our life to the shim's, once it is our parent."""
        if os.read(self._word, 1) != b"p":
            os._exit(0)
        libc.die_with_parent(signal.SIGKILL)
        watch = select.poll()
        watch.register(self._word, select.POLLIN)
        if any(event & select.POLLHUP for _, event in watch.poll(0)):
            os._exit(0)

    def _build(self) -> None:
        if not self._isolated:
            libc.become_subreaper()
            for file in self._task.files:
                write_file(Path(file.path), file)
            os.chdir(self._room.osmo / "work")
            return
        libc.unshare(libc.CLONE_NEWNS | libc.CLONE_NEWUTS)
        socket.sethostname(self._task.name[:64])
        build_root(self._room, self._task, privileged=os.geteuid() == 0)

    def _tell(self, **words: object) -> None:
        with contextlib.suppress(OSError):
            os.write(self._status, json.dumps(words).encode() + b"\n")

    def _start(self) -> int:
        read, write = os.pipe()
        argv, environment = self._task.argv, self._task.environment

        def command() -> NoReturn:
            os.setsid()
            null = os.open(os.devnull, os.O_RDONLY)
            for descriptor, number in ((null, 0), (self._stdout, 1), (self._stderr, 2)):
                os.dup2(descriptor, number)
            if self._isolated and os.geteuid() == 0:
                libc.drop_capabilities()
            become(argv, environment, lambda number: os.write(write, str(number).encode()))

        pid = _fork(command)
        os.close(write)
        failure = os.read(read, 4096)
        os.close(read)
        if failure:
            number = int(failure)
            _, status = os.waitpid(pid, 0)
            self._tell(error=_why_not(self._task, number), code=exit_code(status))
            os._exit(1)
        self._tell(started=True)
        for descriptor in (self._stdout, self._stderr):
            os.close(descriptor)
        return pid

    def _serve(self, command: int) -> int:
        """Reaps until the command has ended; when it was asked to, until all have."""
        code: int | None = None
        stopping = False
        while True:
            if signal.sigwait({signal.SIGCHLD, signal.SIGTERM}) == signal.SIGTERM:
                stopping = True
                self._signal_others(signal.SIGTERM)
                continue
            try:
                while (waited := os.waitpid(-1, os.WNOHANG))[0]:
                    if waited[0] == command:
                        code = exit_code(waited[1])
                        self._tell(exit=code)
            except ChildProcessError:
                stopping = False
            if code is not None and not stopping:
                if not self._isolated:
                    self._signal_others(signal.SIGKILL)
                return code

    def _signal_others(self, number: int) -> None:
        if self._isolated:
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1, number)
        else:
            signal_all(descendants(os.getpid()), number)


def become(argv: list[str], environment: dict[str, str], fail: Callable[[int], object]) -> NoReturn:
    """Turns a forked child into a program; on failure tells the errno and ends as a shell would."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for default in (signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(default, signal.SIG_DFL)  # Python ignores the latter two
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = _FILES_LIMIT if most == resource.RLIM_INFINITY else min(most, _FILES_LIMIT)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, most))
    try:
        os.execvpe(argv[0], argv, environment)  # noqa: S606
    except OSError as error:
        number = error.errno or errno.EINVAL
    except ValueError:  # a NUL within an argument
        number = errno.EINVAL
    fail(number)
    os._exit(NOT_FOUND if number == errno.ENOENT else NOT_RUNNABLE)


def _why_not(task: Task, number: int) -> str:
    program = task.argv[0]
    if number != errno.ENOENT:
        return f"`{program}` cannot be run: {os.strerror(number)}"
    if shutil.which(program, path=task.environment.get("PATH")):
        return f"`{program}` names an interpreter that is not on this machine"
    return (
        f"`{program}` is not on this machine: the local cluster runs this machine's programs "
        f"and does not use image {task.image}"
    )


def enter(pid: int, *, privileged: bool) -> None:
    """Puts this process's future children, and its view of files, into a running task's room."""
    kinds = [("mnt", libc.CLONE_NEWNS), ("uts", libc.CLONE_NEWUTS), ("pid", libc.CLONE_NEWPID)]
    if not privileged:
        kinds.insert(0, ("user", libc.CLONE_NEWUSER))
    held = [(os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY), kind) for name, kind in kinds]
    for descriptor, kind in held:
        libc.setns(descriptor, kind)
        os.close(descriptor)


if sys.platform != "linux":  # pragma: no cover
    raise ImportError("the runtime needs Linux")
