"""A standalone system with real servers and stand-ins for the services, driven by its commands.

The stand-ins are modules with the services' names in a folder that PYTHONPATH puts first. They
say what they were given, use both servers as a service would before they are ready, and the
bridge's starts a "task": a process that outlives the bridge and watches the lifeline.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest

from cairn_standalone.home import Home
from cairn_standalone.state import Identity, State, end, load, running

SERVICE = """
import asyncio, json, os, signal, subprocess, sys
from pathlib import Path
import asyncpg, nats
from cairn_common.readiness import notify_ready

NAME = sys.argv[0].split(os.sep)[-2]
HOME = Path(os.environ["CAIRN_HOME"])

async def main():
    print("starting", NAME, flush=True)
    if (HOME / f"break-{NAME}").exists():
        raise SystemExit(f"{NAME} is broken on purpose")
    told = {k: v for k, v in os.environ.items() if k.startswith("CAIRN_")}
    (HOME / f"told-{NAME}.json").write_text(json.dumps(told))
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    bus = await nats.connect(os.environ["CAIRN_NATS_URL"])
    await bus.jetstream().account_info()
    database = await asyncpg.connect(os.environ["CAIRN_DATABASE_URL"])
    assert await database.fetchval("SELECT current_database()") == "cairn"
    if NAME == "cairn_api":
        host, port = os.environ["CAIRN_API_HOST"], int(os.environ["CAIRN_API_PORT"])
        await asyncio.start_server(lambda reader, writer: writer.close(), host, port)
    if NAME == "cairn_bridge":
        lifeline = int(os.environ["CAIRN_LIFELINE_FD"])
        task = HOME / "task.pid"
        if not task.exists():
            code = f"import os, signal; signal.signal(15, signal.SIG_IGN); os.read({lifeline}, 1)"
            process = subprocess.Popen(
                [sys.executable, "-c", code], pass_fds=[lifeline], start_new_session=True
            )
            task.write_text(str(process.pid))
    notify_ready()
    await stop.wait()

asyncio.run(main())
"""
T = TypeVar("T")
PARTS = ("nats", "postgres", "api", "engine", "scheduler-bridge", "log-relay")


def eventually(look: Callable[[], T], seconds: float = 20.0) -> T:
    """The first thing that `look` returns that is true; an error after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"{look} was never true in {seconds} s"
        time.sleep(0.01)
    return found


class Standalone:
    """The commands, on one home."""

    def __init__(self, root: Path, fakes: Path) -> None:
        self.home = Home(root)
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("CAIRN_")},
            "PYTHONPATH": str(fakes),
            "CAIRN_HOME": str(root),
        }
        self.seen: set[Identity] = set()

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "cairn_standalone", *arguments]

    def run(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.command(*arguments),
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        return done

    def up(self) -> State:
        """Start it detached; its state."""
        self.run("up", "--detach")
        return self.state()

    @contextlib.contextmanager
    def foreground(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """`cairn up` as on a terminal's foreground; killed at the end if it still runs."""
        process = subprocess.Popen(
            self.command("up", *arguments),
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with process:
            try:
                yield process
            finally:
                process.kill()

    def state(self) -> State:
        """The state while it runs."""
        state = running(self.home)
        assert state is not None
        self.seen |= {part.process for part in state.parts if part.process}
        self.seen.add(state.supervisor)
        return state

    def until_restarted(self, name: str) -> None:
        """Until all is ready with a part that has been restarted once.

        That all is ready says nothing by itself: a death is not noticed at once.
        """

        def restarted() -> bool:
            state = self.state()
            (part,) = (part for part in state.parts if part.name == name)
            return state.phase == "ready" and part.restarts == 1

        eventually(restarted)

    def process(self, name: str) -> Identity:
        """The process of a part."""
        (part,) = (part for part in self.state().parts if part.name == name)
        assert part.process is not None
        return part.process

    def task(self) -> Identity:
        """The process that the bridge's stand-in started."""
        identity = Identity.of(int((self.home.root / "task.pid").read_text()))
        assert identity is not None
        self.seen.add(identity)
        return identity

    def told(self, module: str) -> dict[str, str]:
        """The settings that a service got."""
        found: dict[str, str] = json.loads((self.home.root / f"told-{module}.json").read_text())
        return found

    def all_gone(self, seconds: float = 15.0) -> None:
        """Every process that was ever seen here ends within `seconds`, as does PostgreSQL's."""
        deadline = time.monotonic() + seconds
        for process in self.seen:
            assert process.wait(deadline - time.monotonic()), process
        eventually(lambda: not self.postgres_processes(), deadline - time.monotonic())

    def postgres_processes(self) -> list[int]:
        """The pids of all processes of this home's PostgreSQL."""
        data = str((self.home.postgres / "data").resolve())
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and str((entry / "cwd").readlink()) == data:
                    found.append(int(entry.name))
        return found


@pytest.fixture(scope="session")
def fakes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the services' stand-ins."""
    folder = tmp_path_factory.mktemp("fakes")
    for module in ("cairn_api", "cairn_engine", "cairn_bridge", "cairn_logs"):
        package = folder / module
        package.mkdir()
        (package / "__init__.py").write_text("")
        (package / "__main__.py").write_text(SERVICE)
    return folder


@pytest.fixture
def make_standalone(fakes: Path) -> Iterator[Callable[[Path], Standalone]]:
    """Makes a system that is not started on a home, and ends what is left of it afterwards."""
    made: list[Standalone] = []

    def make(root: Path) -> Standalone:
        made.append(Standalone(root, fakes))
        return made[-1]

    yield make
    for standalone in made:
        subprocess.run(standalone.command("down"), env=standalone.environment, check=False)
        state = load(standalone.home)
        left: Sequence[Identity | None] = [p.process for p in state.parts] if state else []
        mine = [process for process in (*left, *standalone.seen) if process]
        end([process for process in mine if process.pid != os.getpid()], 5.0)


@pytest.fixture
def standalone(make_standalone: Callable[[Path], Standalone], tmp_path: Path) -> Standalone:
    """A system on a fresh home."""
    return make_standalone(tmp_path / "home")


def kill(process: Identity) -> None:
    """kill -9, and wait until it is gone."""
    process.send(signal.SIGKILL)
    assert process.wait(10)


def status(standalone: Standalone, code: int = 0) -> Any:
    """What `cairn status` says."""
    return json.loads(standalone.run("status", "--format-type", "json", code=code).stdout)
