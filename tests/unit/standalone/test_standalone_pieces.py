"""The pieces around the supervisor: logs, the lifeline, identities, readiness, the home."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cairn_common.readiness import notify_ready
from cairn_standalone import logs, nats, notify, postgres, state
from cairn_standalone.home import Busy, Home, HomeError, Memory, choose_port, choose_ports
from cairn_standalone.lifeline import Lifeline
from cairn_standalone.parts import SERVICES, services
from cairn_standalone.process import describe_exit
from cairn_standalone.state import Identity


def test_a_log_is_rotated_when_it_is_too_long(tmp_path: Path) -> None:
    log = tmp_path / "api.log"
    fd = logs.open_log(log)
    os.write(fd, b"one\n")
    assert not logs.rotate(log, max_bytes=4)
    os.write(fd, b"two\n")
    assert logs.rotate(log, max_bytes=4)
    os.write(fd, b"three\n")
    os.close(fd)
    assert log.read_text() == "three\n"
    assert (tmp_path / "api.log.1").read_text() == "one\ntwo\n"
    assert not logs.rotate(tmp_path / "missing.log")


def test_the_tail_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "api.log"
    assert logs.tail(log, 3) == []
    log.write_bytes(b"old\n" + b"".join(b"%d \xff\n" % n for n in range(30)))
    assert logs.tail(log, 2) == ["28 �", "29 �"]
    assert logs.tail(log, 100, start=4)[0] == "0 �"
    assert logs.tail(log, 100, start=10_000)[0] == "old", "it was rotated since"


def test_following_logs(tmp_path: Path) -> None:
    log, other = tmp_path / "api.log", tmp_path / "engine.log"
    log.write_text("before\n")
    follower = logs.Follower([("api", log), ("engine", other)])
    assert follower.read() == []
    with log.open("a") as file:
        file.write("one\ntw")
    other.write_text("hello\n")
    assert follower.read() == [("api", "one"), ("engine", "hello")]
    with log.open("a") as file:
        file.write("o\n")
    assert follower.read() == [("api", "two")]
    log.write_text("new\n")
    assert follower.read() == [("api", "new")]


def test_an_identity_names_one_process_for_ever() -> None:
    me = Identity.of(os.getpid())
    assert me is not None
    assert me.alive
    assert not replace(me, ticks=me.ticks + 1).alive
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    identity = Identity.of(child.pid)
    assert identity is not None
    assert not identity.wait(0)
    child.communicate(b"\n")
    assert identity.wait(0)
    assert Identity.of(child.pid) is None
    state.end([identity], 0)


def test_the_state_file_survives_a_round(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.create()
    assert state.load(home) is None
    me = Identity.of(os.getpid())
    assert me is not None
    part = state.PartState("api", "ready", me, 1.5, 2, None, "/log")
    written = state.State(me, "ready", "http://127.0.0.1:1", 1.0, "/s", (part,))
    state.store(home, written)
    assert state.load(home) == written
    assert state.running(home) == written
    facts = written.for_people(now=3.0)
    assert (facts["uptime"], facts["parts"][0]["uptime"]) == (2.0, 1.5)
    state.store(home, replace(written, supervisor=replace(me, boot="another")))
    assert state.running(home) is None


async def test_the_lifeline_reaches_grandchildren() -> None:
    lifeline = Lifeline()
    code = f"import os; os.read({lifeline.read_end}, 1)"
    child = subprocess.Popen([sys.executable, "-c", code], pass_fds=[lifeline.read_end])
    assert child.poll() is None
    assert await lifeline.cut_and_wait(10) == 1
    assert child.wait(1) == 0
    lifeline.close()


async def test_a_holder_that_opens_and_closes_files_is_found() -> None:
    lifeline = Lifeline()
    churn = "import os, sys; print('up', flush=True)\nwhile True: os.close(os.open('/', 0))"
    child = subprocess.Popen(
        [sys.executable, "-c", churn], pass_fds=[lifeline.read_end], stdout=subprocess.PIPE
    )
    try:
        assert child.stdout is not None
        child.stdout.readline()
        child.stdout.close()
        for _ in range(300):
            assert [holder.pid for holder in lifeline._holders()] == [child.pid]
    finally:
        child.kill()
        child.wait()
        lifeline.close()


async def test_a_lifeline_that_nobody_holds() -> None:
    lifeline = Lifeline()
    assert await lifeline.cut_and_wait(10) == 0
    lifeline.close()


async def test_who_ignores_the_lifeline_is_killed() -> None:
    lifeline = Lifeline()
    child = subprocess.Popen(
        [sys.executable, "-c", "import signal; signal.pause()"], pass_fds=[lifeline.read_end]
    )
    assert await lifeline.cut_and_wait(0.1) == 1
    assert child.wait(1) == -9


async def test_readiness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "n"
    with notify.listening(path) as receiver:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.sendto(b"STATUS=warming up", str(path))
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        assert notify_ready()
        await notify.wait_until_ready(receiver)
    assert not path.exists()
    assert not notify_ready(), "said once"
    monkeypatch.setenv("NOTIFY_SOCKET", str(path))
    assert not notify_ready(), "nobody listens any more"


def test_one_supervisor_per_home(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    assert not home.is_locked()
    home.create()
    with home.locked():
        assert home.is_locked()
        with pytest.raises(Busy):
            home.locked().__enter__()
    assert not home.is_locked()


def test_ports_are_remembered_while_they_are_free(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.create()
    first = choose_ports(home, None)
    assert choose_ports(home, None) == first
    assert first.api_port != first.nats_port
    with socket.create_server(("127.0.0.1", first.nats_port)):
        second = choose_ports(home, None)
        assert second.nats_port != first.nats_port
        assert second.api_port == first.api_port
        assert second.nats_password == first.nats_password
        with pytest.raises(HomeError, match="is in use; choose another"):
            choose_ports(home, first.nats_port)
    assert choose_port(first.nats_port) == first.nats_port


def test_a_memory_that_is_damaged_is_named(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.create()
    home.remember(Memory("secret", 1, 2))
    file = tmp_path / "standalone.json"
    assert file.stat().st_mode & 0o777 == 0o600
    assert home.recall() == Memory("secret", 1, 2)
    file.write_text("[]")
    with pytest.raises(HomeError, match=r"standalone\.json cannot be understood"):
        home.recall()


def test_words() -> None:
    assert describe_exit(1) == "exited with code 1"
    assert describe_exit(-9) == "was ended by SIGKILL"
    assert describe_exit(-60) == "was ended by signal 60"
    assert nats.url(4222, "x") == "nats://cairn:x@127.0.0.1:4222"
    assert postgres.dsn(Path("/a b")) == "postgresql://cairn@/cairn?host=/a%20b"


def test_several_engines_are_parts_of_their_own() -> None:
    assert services() == SERVICES
    names = [service.name for service in services(3)]
    assert names == ["api", "engine", "engine-2", "engine-3", "scheduler-bridge", "log-relay"]
