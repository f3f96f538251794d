"""Everything of a standalone system lies under one directory, its home; this is the map of it.

    standalone.json   what must survive a restart: ports, the password of NATS (0600)
    nats/ postgres/   the data of the two servers
    store/            files, content-addressed
    clusters/local/   the local cluster's tasks
    logs/             archived logs of tasks
    log/              logs of the processes themselves, `<process>.log`
    lib/              a copy of PostgreSQL's programs, only where the installed ones cannot be read
    run/              what means nothing after a stop: lock, state.json, nats.conf, sockets

Home and all folders in it are created 0700; no existing folder's rights are changed.

The path of a Unix socket is limited to 107 bytes by the kernel. When the home's own path is too
long for that, the sockets lie in a private folder of the system's temporary directory instead,
which the state file names and a stop removes.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

_LONGEST_SOCKET_PATH = 107
_LONGEST_SOCKET_NAME = 24
_SOCKETS_PREFIX = "cairn-"
# Below the range from which kernels take the ports of outgoing connections, so that a remembered
# port is rarely taken when the system comes back.
_FIRST_PORT, _LAST_PORT = 20_000, 32_000


class HomeError(Exception):
    """The home cannot be used; the text says why and what to do."""


class Busy(HomeError):  # noqa: N818 - a state of affairs, not a mistake
    """Another supervisor holds the home."""


def default_home() -> Path:
    """`$CAIRN_HOME`, or `~/.cairn`."""
    named = os.environ.get("CAIRN_HOME", "")
    return Path(named).expanduser().absolute() if named else Path.home() / ".cairn"


@dataclass(frozen=True, slots=True)
class Memory:
    """What a home remembers between runs, so that URLs stay what they were."""

    nats_password: str
    nats_port: int = 0
    api_port: int = 0


class Home:
    """The paths below one home. Making one touches nothing."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()
        self.nats = self.root / "nats"
        self.postgres = self.root / "postgres"
        self.store = self.root / "store"
        self.log = self.root / "log"
        self.lib = self.root / "lib"
        self.run = self.root / "run"
        self.state_file = self.run / "state.json"
        self._lock_file = self.run / "lock"
        self._memory_file = self.root / "standalone.json"

    def create(self) -> None:
        """Make the folders that do not exist.

        Raises:
            HomeError: the home belongs to somebody else, or cannot be written.
        """
        folders = (
            self.root,
            self.nats,
            self.postgres,
            self.store,
            self.root / "clusters",
            self.root / "clusters" / "local",
            self.root / "logs",
            self.log,
            self.run,
        )
        try:
            self.root.parent.mkdir(parents=True, exist_ok=True)
            for folder in folders:
                folder.mkdir(mode=0o700, exist_ok=True)
            owner = self.root.stat().st_uid
        except OSError as error:
            raise HomeError(f"cannot use {self.root} as home: {error}") from error
        if owner != os.geteuid():
            raise HomeError(
                f"{self.root} belongs to uid {owner}, not to you (uid {os.geteuid()}); "
                "choose another with --home or CAIRN_HOME"
            )

    def log_file(self, name: str) -> Path:
        """Where the process `name` writes its log."""
        return self.log / f"{name}.log"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the home, as the one supervisor of it. The kernel lets go of it when we die.

        Raises:
            Busy: another process holds it.
        """
        fd = os.open(self._lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Busy(f"another supervisor holds {self.root}") from None
            yield
        finally:
            os.close(fd)

    def is_locked(self) -> bool:
        """Whether a supervisor holds the home at this moment."""
        try:
            with self.locked():
                return False
        except Busy:
            return True
        except OSError:
            # Not there yet, or not ours: whoever wants to use it will learn why not.
            return False

    def recall(self) -> Memory:
        """What the home remembers; a new password where it remembers nothing.

        Raises:
            HomeError: the file cannot be understood.
        """
        try:
            found = json.loads(self._memory_file.read_text())
            return Memory(
                nats_password=str(found["nats_password"]),
                nats_port=int(found["nats_port"]),
                api_port=int(found["api_port"]),
            )
        except FileNotFoundError:
            return Memory(nats_password=secrets.token_hex(16))
        except (ValueError, KeyError, TypeError) as error:
            raise HomeError(
                f"{self._memory_file} cannot be understood ({error!r}); "
                "remove it: only ports and a password will be chosen anew"
            ) from error

    def remember(self, memory: Memory) -> None:
        """Store what the next run needs."""
        write_atomically(self._memory_file, json.dumps(asdict(memory), indent=1) + "\n")

    def open_sockets(self, previous: str | None) -> Path:
        """The private folder for Unix sockets; `previous` is the one of a run that crashed."""
        folder = self.run / "sockets"
        room = _LONGEST_SOCKET_PATH - _LONGEST_SOCKET_NAME
        if len(os.fsencode(folder)) <= room:
            folder.mkdir(mode=0o700, exist_ok=True)
            return folder
        self.remove_stale_sockets(previous)
        for parent in (tempfile.gettempdir(), "/tmp"):  # noqa: S108 - mkdtemp makes it safe
            if len(os.fsencode(parent)) + len("/cairn-12345678") <= room:
                return Path(tempfile.mkdtemp(prefix=_SOCKETS_PREFIX, dir=parent))
        raise HomeError("no temporary directory has a path short enough for a socket")

    def remove_stale_sockets(self, previous: str | None) -> None:
        """Remove the folder in a temporary directory that a run which was killed left there."""
        if previous and _is_ours(Path(previous)):
            shutil.rmtree(previous, ignore_errors=True)

    def close_sockets(self, folder: Path) -> None:
        """Remove what `open_sockets` made."""
        shutil.rmtree(folder, ignore_errors=True)


def _is_ours(folder: Path) -> bool:
    """Whether `folder` is one that `open_sockets` made in a temporary directory."""
    try:
        status = folder.lstat()
    except OSError:
        return False
    return (
        folder.name.startswith(_SOCKETS_PREFIX)
        and stat.S_ISDIR(status.st_mode)
        and status.st_uid == os.geteuid()
        and stat.S_IMODE(status.st_mode) == 0o700
    )


def write_atomically(path: Path, text: str) -> None:
    """Replace `path` (0600) so that a reader sees the old text or the new, never a part."""
    fresh = path.with_name(f".{path.name}.new")
    with open(fresh, "w", opener=_private) as file:
        file.write(text)
    fresh.replace(path)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def port_is_free(port: int) -> bool:
    """Whether a server could listen on this port of the loopback interface now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def choose_port(remembered: int) -> int:
    """The remembered port if it is still free, else a free one.

    Raises:
        HomeError: none was found.
    """
    if remembered and port_is_free(remembered):
        return remembered
    for _ in range(100):
        port = _FIRST_PORT + secrets.randbelow(_LAST_PORT - _FIRST_PORT)
        if port_is_free(port):
            return port
    raise HomeError(f"no free port between {_FIRST_PORT} and {_LAST_PORT} on 127.0.0.1")


def choose_ports(home: Home, api_port: int | None) -> Memory:
    """The ports of this run, remembered for the next.

    Raises:
        HomeError: `api_port` was asked for and is taken, or nothing is free.
    """
    memory = home.recall()
    if api_port and not port_is_free(api_port):
        raise HomeError(f"port {api_port} on 127.0.0.1 is in use; choose another with --port")
    chosen = api_port or choose_port(memory.api_port)
    nats_port = choose_port(memory.nats_port)
    while nats_port == chosen:
        nats_port = choose_port(0)
    memory = replace(memory, api_port=chosen, nats_port=nats_port)
    home.remember(memory)
    return memory
