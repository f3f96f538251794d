"""A whole standalone system in a fresh home, driven by the `cairn` command as a person would."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

CAIRN = Path(sys.executable).parent / "cairn"
UNREACHABLE = 10
DEGRADED = 1


class System:
    """One home, and the command line to it; `environment` is added to that of the commands."""

    def __init__(self, home: Path, environment: Mapping[str, str] | None = None) -> None:
        self.home = home
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("CAIRN_")},
            "CAIRN_HOME": str(home),
            "NO_COLOR": "1",
            **(environment or {}),
        }

    def run(self, *arguments: str, timeout: float = 90) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            [CAIRN, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def cairn(self, *arguments: str, code: int = 0, timeout: float = 90) -> str:
        """Run a command, check its exit code, return what it printed."""
        result = self.run(*arguments, timeout=timeout)
        assert result.returncode == code, f"{arguments}\n{result.stdout}\n{result.stderr}"
        return result.stdout if code == 0 else result.stdout + result.stderr

    def json(self, *arguments: str) -> Any:
        """Run a command and read its JSON."""
        return json.loads(self.cairn(*arguments, "--format-type", "json"))

    def submit(self, text: str, *arguments: str) -> str:
        """Submit a workflow file's text; its id."""
        file = self.home / "workflow.yaml"
        file.write_text(text)
        name = self.json("workflow", "submit", str(file), *arguments)["name"]
        assert isinstance(name, str)
        return name

    def submit_file(self, file: Path, *arguments: str) -> str:
        """Submit a workflow file; its id."""
        name = self.json("workflow", "submit", str(file), *arguments)["name"]
        assert isinstance(name, str)
        return name

    def logs(self, name: str, *arguments: str, timeout: float = 200) -> str:
        """The log, followed to the workflow's end."""
        return self.cairn("workflow", "logs", name, *arguments, timeout=timeout)

    def status(self, name: str) -> str:
        """The workflow's status; UNREACHABLE while parts that were killed are away."""
        result = self.run("workflow", "query", name, "--format-type", "json")
        if result.returncode == UNREACHABLE:
            return "UNREACHABLE"
        assert result.returncode == 0, result.stderr
        status = json.loads(result.stdout)["status"]
        assert isinstance(status, str)
        return status

    def tasks(self, name: str) -> dict[str, dict[str, Any]]:
        """The newest attempt of each task."""
        groups = self.json("workflow", "query", name)["groups"]
        newest: dict[str, dict[str, Any]] = {}
        for group in groups:
            for task in group["tasks"]:
                old = newest.get(task["name"])
                if old is None or old["retry_id"] < task["retry_id"]:
                    newest[task["name"]] = task
        return newest

    def wait(self, name: str, wanted: Callable[[str], bool], seconds: float = 90) -> str:
        """Returns the status once it is as wanted."""
        deadline = time.monotonic() + seconds
        while not wanted(status := self.status(name)):
            assert time.monotonic() < deadline, f"{name} is still {status}\n{self.story(name)}"
            time.sleep(0.1)
        return status

    def finish(self, name: str, seconds: float = 90) -> str:
        """Returns the final status."""
        return self.wait(name, lambda s: s == "COMPLETED" or s.startswith("FAILED"), seconds)

    def story(self, name: str) -> str:
        """What is known of a workflow, for a failing test."""
        return self.cairn("workflow", "query", name)

    def parts(self) -> dict[str, dict[str, Any]]:
        """The processes of the system, by name."""
        answer = self.run("status", "--format-type", "json")
        assert answer.returncode in {0, DEGRADED}, answer.stderr
        return {part["name"]: part for part in json.loads(answer.stdout)["parts"]}

    def kill(self, *names: str) -> None:
        """kill -9 of parts; returns once others have taken their places."""
        before = self.parts()
        for name in names:
            os.kill(before[name]["pid"], signal.SIGKILL)
        deadline = time.monotonic() + 60
        while True:
            after = self.parts()
            if all(
                after[n]["phase"] == "ready" and after[n]["pid"] != before[n]["pid"] for n in names
            ):
                return
            assert time.monotonic() < deadline, f"{names} did not come back: {after}"
            time.sleep(0.1)


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A running system."""
    system = System(tmp_path_factory.mktemp("home"))
    system.cairn("up", "--detach")
    yield system
    system.cairn("down")


def tasks_file(name: str, tasks: Sequence[str]) -> str:
    """A workflow file of shell tasks: each `name: needs: script`."""
    lines = ["workflow:", f"  name: {name}", "  tasks:"]
    for task in tasks:
        title, needs, script = (part.strip() for part in task.split(":", 2))
        inputs = ", ".join(f"{{task: {need}}}" for need in needs.split())
        lines += [
            f"  - name: {title}",
            "    image: ubuntu:24.04",
            f"    command: [sh, -c, {json.dumps(script)}]",
            f"    inputs: [{inputs}]",
        ]
    return "\n".join(lines)
