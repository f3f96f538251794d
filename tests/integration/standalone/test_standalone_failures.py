"""Starts that fail and parts that keep dying: what is said, and that nothing is left."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from cairn_standalone.core import Policy, Process
from cairn_standalone.home import Busy, Home
from cairn_standalone.supervisor import Failure, Settings, Supervisor

from .conftest import Standalone, eventually, kill, status


@pytest.mark.parametrize("detach", [(), ("--detach",)])
def test_a_service_that_does_not_start_is_named(
    standalone: Standalone, detach: tuple[str, ...]
) -> None:
    standalone.home.create()
    (standalone.home.root / "break-cairn_logs").touch()
    done = standalone.run("up", *detach, code=1)
    assert done.stdout == ""
    assert "log-relay does not run: exited with code 1 (3 times in a row)" in done.stderr
    assert "  cairn_logs is broken on purpose" in done.stderr
    assert str(standalone.home.log_file("log-relay")) in done.stderr
    assert "Traceback" not in done.stderr
    assert not standalone.postgres_processes()
    status(standalone, code=3)


def test_data_of_another_version_is_refused(standalone: Standalone) -> None:
    standalone.up()
    standalone.run("down")
    (standalone.home.postgres / "data" / "PG_VERSION").write_text("9\n")
    done = standalone.run("up", "--detach", code=1)
    assert "was written by PostgreSQL 9" in done.stderr
    assert "pg_dumpall" in done.stderr


def test_a_home_that_is_a_file_is_refused(standalone: Standalone) -> None:
    standalone.home.root.write_text("")
    for detach in ((), ("--detach",)):
        done = standalone.run("up", *detach, code=1)
        assert "cannot use" in done.stderr
        assert "Traceback" not in done.stderr


class Notes:
    """A watcher that remembers."""

    def __init__(self) -> None:
        self.url: str | None = None
        self.restarts: list[str] = []
        self.failures: list[Failure] = []
        self.stops = 0
        self.is_ready = asyncio.Event()

    def changed(self, processes: Sequence[Process], now: float) -> None:
        pass

    def ready(self, url: str) -> None:
        self.url = url
        self.is_ready.set()

    def restarting(self, name: str, reason: str, delay: float) -> None:
        self.restarts.append(name)

    def gave_up(self, failure: Failure) -> None:
        self.failures.append(failure)

    def stopping(self) -> None:
        self.stops += 1


async def test_a_part_that_keeps_dying_is_given_up_and_the_others_run_on(
    standalone: Standalone, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in standalone.environment.items():
        monkeypatch.setenv(name, value)
    notes = Notes()
    policy = Policy(first_delay=0.01, longest_delay=0.02, failures=3)
    supervisor = Supervisor(Settings(standalone.home, policy=policy), notes)
    run = asyncio.create_task(supervisor.run())
    await notes.is_ready.wait()
    (standalone.home.root / "break-cairn_engine").touch()
    await asyncio.to_thread(kill, standalone.process("engine"))
    await asyncio.to_thread(eventually, lambda: notes.failures)
    assert notes.restarts == ["engine", "engine"]
    (failure,) = notes.failures
    assert failure.name == "engine"
    assert failure.tail[-1] == "cairn_engine is broken on purpose"
    facts = await asyncio.to_thread(status, standalone, 1)
    assert facts["phase"] == "degraded"
    phases = {part["name"]: part["phase"] for part in facts["parts"]}
    assert phases.pop("engine") == "failed"
    assert set(phases.values()) == {"ready"}
    with pytest.raises(Busy):
        await Supervisor(Settings(standalone.home), Notes()).run()
    os.kill(os.getpid(), signal.SIGTERM)
    assert await run
    assert notes.stops == 1


def test_a_service_that_ignores_sigterm_is_killed_by_asking_twice(
    standalone: Standalone,
) -> None:
    with standalone.foreground() as process:
        assert process.stdout is not None
        process.stdout.readline()
        deaf = standalone.process("engine")
        deaf.send(signal.SIGSTOP)
        process.send_signal(signal.SIGINT)
        eventually(lambda: status(standalone, code=1)["phase"] == "stopping")
        assert deaf.alive
        process.send_signal(signal.SIGINT)
        assert process.wait(5) == 0
    standalone.all_gone()


def test_a_home_of_somebody_else_is_refused(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("the kernel lets only root give a folder to somebody else, as this test must")
    root = tmp_path / "home"
    root.mkdir()
    os.chown(root, 65534, 65534)
    with pytest.raises(Exception, match="belongs to uid 65534"):
        Home(root).create()
