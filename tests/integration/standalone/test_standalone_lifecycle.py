"""Starting and stopping the whole system: real servers, stand-ins for the services."""

from __future__ import annotations

import signal
import socket
import stat
import subprocess
from pathlib import Path

import pytest

from cairn_standalone import discover

from .conftest import PARTS, Standalone, eventually, status


def test_cold_start_status_and_stop(standalone: Standalone) -> None:
    assert status(standalone, code=3) == {
        "phase": "stopped",
        "url": None,
        "pid": None,
        "uptime": None,
        "parts": [],
    }
    done = standalone.run("up", "--detach")
    url = discover(standalone.home.root)
    assert done.stdout == f"Cairn is ready at {url}\n"
    assert done.stderr == ""
    facts = status(standalone)
    assert facts["phase"] == "ready"
    assert facts["url"] == url
    assert tuple(part["name"] for part in facts["parts"]) == PARTS
    assert {part["restarts"] for part in facts["parts"]} == {0}
    assert "scheduler-bridge" in standalone.run("status").stdout
    standalone.state()
    standalone.task()
    assert standalone.run("down").stdout == "Cairn has stopped\n"
    standalone.all_gone(seconds=0.5)
    assert discover(standalone.home.root) is None
    left = sorted(file.name for file in standalone.home.run.iterdir())
    assert left == ["lock", "nats.conf", "postgres-probe.log"]
    assert standalone.run("down").stdout == "Cairn is not running\n"


def test_what_the_services_are_told(standalone: Standalone) -> None:
    state = standalone.up()
    told = standalone.told("cairn_engine")
    home = standalone.home
    assert told["CAIRN_HOME"] == str(home.root)
    assert told["CAIRN_STORE_URL"] == f"file://{home.root}/store"
    assert told["CAIRN_CLUSTER"] == "local"
    assert told["CAIRN_API_HOST"] == "127.0.0.1"
    assert f"http://127.0.0.1:{told['CAIRN_API_PORT']}" == state.url
    assert told["CAIRN_NATS_URL"].startswith("nats://cairn:")
    assert told["CAIRN_DATABASE_URL"].startswith("postgresql://cairn@/cairn?host=")
    assert "NOTIFY_SOCKET" not in told


def test_a_second_start_keeps_urls_and_data(standalone: Standalone) -> None:
    first = standalone.up()
    system = (standalone.home.postgres / "data" / "PG_VERSION").stat().st_ino
    told = standalone.told("cairn_engine")["CAIRN_NATS_URL"]
    standalone.run("down")
    second = standalone.up()
    assert second.url == first.url
    assert standalone.told("cairn_engine")["CAIRN_NATS_URL"] == told
    assert (standalone.home.postgres / "data" / "PG_VERSION").stat().st_ino == system


def test_up_where_it_runs_says_where(standalone: Standalone) -> None:
    state = standalone.up()
    for detach in ((), ("--detach",)):
        done = standalone.run("up", *detach)
        assert state.url in done.stdout
        assert str(state.supervisor.pid) in done.stdout
    port = state.url.rpartition(":")[2]
    standalone.run("up", "--port", port)
    other = standalone.run("up", "--port", str(int(port) + 1), code=1)
    assert "cairn down" in other.stderr
    assert standalone.state().supervisor == state.supervisor


def test_two_at_once_start_one(standalone: Standalone) -> None:
    commands = [
        subprocess.Popen(
            standalone.command("up", "--detach"),
            env=standalone.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    outputs = [command.communicate(timeout=60) for command in commands]
    assert [command.returncode for command in commands] == [0, 0], outputs
    url = standalone.state().url
    assert all(url in out for out, _ in outputs), outputs


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_everything(standalone: Standalone, number: signal.Signals) -> None:
    with standalone.foreground() as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("Cairn is ready at http://127.0.0.1:")
        standalone.state()
        standalone.task()
        process.send_signal(number)
        assert process.wait(10) == 0
        assert process.stdout.read() == ""
        assert process.stderr is not None
        assert process.stderr.read() == ""
    standalone.all_gone(seconds=0.5)


def test_a_signal_during_the_start_stops_everything(standalone: Standalone) -> None:
    with standalone.foreground() as process:
        # In the middle of initdb.
        eventually(lambda: list(standalone.home.postgres.glob("data.new/base/*")))
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 1
    standalone.all_gone()
    standalone.up()


def test_verbose_shows_the_logs_with_their_names(standalone: Standalone) -> None:
    with standalone.foreground("--verbose") as process:
        assert process.stdout is not None
        assert "ready" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert "engine │ starting cairn_engine" in errors
    assert "postgres │ " in errors
    assert "nats │ " in errors


def test_the_given_port_is_used_or_refused(standalone: Standalone) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = standalone.run("up", "--detach", "--port", str(port), code=1)
        assert f"port {port} on 127.0.0.1 is in use" in refused.stderr
    standalone.run("up", "--detach", "--port", str(port))
    assert standalone.state().url == f"http://127.0.0.1:{port}"


def test_no_folder_is_opened_to_others(standalone: Standalone, tmp_path: Path) -> None:
    def modes() -> dict[Path, int]:
        above = (tmp_path, *tmp_path.parents, Path.home())
        return {folder: folder.stat().st_mode for folder in above}

    tmp_path.chmod(0o700)
    before = modes()
    standalone.up()
    assert modes() == before
    home = standalone.home
    for path in (home.root, *home.root.iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 or path.name.startswith(
            ("told-", "task")
        ), path
    for path in (*home.log.iterdir(), *home.run.iterdir(), home.root / "standalone.json"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    standalone.run("down")
    assert modes() == before
