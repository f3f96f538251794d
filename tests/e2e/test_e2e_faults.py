"""What a standalone system survives: each part killed, the bus emptied, everything stopped."""

from __future__ import annotations

import shutil

import pytest

from e2e.conftest import System, tasks_file

LENGTH = 12


def chain(name: str) -> str:
    """A chain of tasks that take their time."""
    return tasks_file(
        name,
        [f"t{i}: {f't{i - 1}' if i else ''}: sleep 0.3; echo done {i}" for i in range(LENGTH)],
    )


def check(name: str, system: System) -> None:
    """Everything ran once, in order, and every line of its log is there."""
    assert system.finish(name) == "COMPLETED", system.story(name)
    log = system.logs(name)
    assert [line.split("] ")[1] for line in log.splitlines() if "] done" in line] == [
        f"done {i}" for i in range(LENGTH)
    ]


@pytest.mark.parametrize(
    "parts",
    [
        ("engine",),
        ("scheduler-bridge",),
        ("log-relay",),
        ("api",),
        ("nats",),
        ("postgres",),
        ("engine", "scheduler-bridge", "log-relay", "api", "nats", "postgres"),
    ],
    ids="+".join,
)
def test_a_killed_part_costs_time_only(system: System, parts: tuple[str, ...]) -> None:
    name = system.submit(chain("killed"))
    system.wait(name, lambda status: status == "RUNNING")
    system.kill(*parts)
    check(name, system)
    attempts = {task["retry_id"] for task in system.tasks(name).values()}
    assert attempts == {0}, "no attempt was lost, so none was tried again"


def test_an_emptied_bus_costs_time_only(system: System) -> None:
    name = system.submit(chain("emptied"))
    system.wait(name, lambda status: status == "RUNNING")
    shutil.rmtree(system.home / "nats")
    system.kill("nats")
    check(name, system)


def test_what_ran_is_resumed_after_down_and_up(system: System) -> None:
    name = system.submit(chain("resumed"))
    system.wait(name, lambda status: status == "RUNNING")
    system.cairn("down")
    assert "not running" in system.cairn("status", code=3).lower()
    system.cairn("up", "--detach")
    assert system.finish(name) == "COMPLETED", system.story(name)
    assert {task["status"] for task in system.tasks(name).values()} == {"COMPLETED"}
