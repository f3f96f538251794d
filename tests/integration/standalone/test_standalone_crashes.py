"""Kills: of each part, of the supervisor, and what a crash leaves behind."""

from __future__ import annotations

import json
import os
import signal

import pytest

from cairn_standalone.state import Identity

from .conftest import PARTS, Standalone, kill, status


@pytest.mark.parametrize("name", PARTS)
def test_a_killed_part_is_restarted_alone(standalone: Standalone, name: str) -> None:
    before = standalone.up()
    task = standalone.task()
    kill(standalone.process(name))
    standalone.until_restarted(name)
    after = standalone.state()
    for old, new in zip(before.parts, after.parts, strict=True):
        assert (old.process == new.process) is (new.name != name)
        assert (new.last_exit == "was ended by SIGKILL") is (new.name == name)
    assert after.url == before.url
    assert task.alive, "a task outlives every part"
    assert status(standalone)["phase"] == "ready"


@pytest.mark.parametrize("name", ["nats", "postgres"])
def test_a_server_comes_back_at_the_same_address(standalone: Standalone, name: str) -> None:
    standalone.up()
    before = standalone.told("cairn_engine")
    kill(standalone.process(name))
    standalone.until_restarted(name)
    kill(standalone.process("engine"))  # it connects anew, with the same settings
    standalone.until_restarted("engine")
    assert standalone.told("cairn_engine") == before


def test_nothing_outlives_a_killed_supervisor(standalone: Standalone) -> None:
    state = standalone.up()
    standalone.task()
    kill(state.supervisor)
    standalone.all_gone(seconds=5)
    assert status(standalone, code=3)["phase"] == "stopped"
    assert standalone.up().url == state.url


def test_a_start_right_after_a_kill(standalone: Standalone) -> None:
    state = standalone.up()
    kill(state.supervisor)
    assert standalone.up().supervisor != state.supervisor


def test_what_hangs_after_a_kill_is_ended_by_the_next_command(standalone: Standalone) -> None:
    state = standalone.up()
    hung = standalone.process("log-relay")
    hung.send(signal.SIGSTOP)
    kill(state.supervisor)
    for process in standalone.seen - {hung}:
        assert process.wait(5)
    assert hung.alive
    assert "gone now" in standalone.run("down").stdout
    assert not hung.alive


def test_killed_server_of_a_killed_supervisor_does_not_block(standalone: Standalone) -> None:
    state = standalone.up()
    postgres = standalone.process("postgres")
    state.supervisor.send(signal.SIGSTOP)
    kill(postgres)
    kill(state.supervisor)
    standalone.up()


def test_stale_marks_do_not_block_a_start(standalone: Standalone) -> None:
    standalone.up()
    standalone.run("down")
    home = standalone.home
    # A pid that belongs to somebody by now: PostgreSQL alone would refuse to start.
    mark = home.postgres / "data" / "postmaster.pid"
    mark.write_text(f"{os.getppid()}\n{home.postgres / 'data'}\n1\n5432\n\n\n 1 1\nready   \n")
    me = Identity.of(os.getpid())
    assert me is not None
    old = {"pid": me.pid, "ticks": me.ticks - 1, "boot": me.boot}
    home.state_file.write_text(
        json.dumps(
            {
                "supervisor": old,
                "phase": "ready",
                "url": "http://127.0.0.1:1",
                "started_at": 1.0,
                "sockets": "/nonexistent",
                "parts": [
                    {
                        "name": "api",
                        "phase": "ready",
                        "process": old,
                        "started_at": 1.0,
                        "restarts": 0,
                        "last_exit": None,
                        "log": "",
                    }
                ],
            }
        )
    )
    (home.postgres / "data.new").mkdir()
    (home.run / "sockets").mkdir(exist_ok=True)
    (home.run / "sockets" / "n-api").write_text("")
    assert standalone.run("down").stdout == "Cairn is not running\n"
    standalone.up()
    assert me.alive


def test_an_unreadable_state_file_does_not_block_a_start(standalone: Standalone) -> None:
    standalone.home.create()
    standalone.home.state_file.write_text("{")
    standalone.up()
