"""Workflows that tests submit, and what became of them."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from whole_system import Cairn


def gang(
    name: str,
    size: int = 1,
    resource: Mapping[str, Any] | None = None,
    task: Mapping[str, Any] | None = None,
    **sim: str,
) -> str:
    """A workflow of one group of equal tasks.

    Args:
        name: the workflow's name.
        size: how many tasks; the first leads.
        resource: what each asks for.
        task: more about each, as the file says it.
        sim: what the simulated nodes do with their pods.
    """
    environment = {f"SIM_{key.upper()}": value for key, value in sim.items()}
    tasks = [
        {
            "name": f"t{index}",
            "lead": index == 0,
            "image": "ubuntu:24.04",
            "command": ["sleep", "1"],
            "environment": environment,
            "resource": "each",
            **(task or {}),
        }
        for index in range(size)
    ]
    spec = {
        "name": name,
        "resources": {"each": resource or {}},
        "groups": [{"name": "g", "tasks": tasks}],
    }
    return json.dumps({"workflow": spec})


def attempts(cairn: Cairn, workflow: str) -> list[dict[str, Any]]:
    """All attempts of a workflow's tasks."""
    groups = cairn.json("workflow", "query", workflow)["groups"]
    return [task for group in groups for task in group["tasks"]]


def fates(cairn: Cairn, workflow: str) -> Counter[tuple[str, int, str]]:
    """Of all attempts of a workflow's tasks: name, number, status."""
    return Counter(
        (task["name"], task["retry_id"], task["status"]) for task in attempts(cairn, workflow)
    )


def until_says(cairn: Cairn, workflow: str, words: str, seconds: float = 60) -> str:
    """Until `cairn workflow query` shows these words."""
    deadline = time.monotonic() + seconds
    while words not in (story := cairn.story(workflow)):
        assert time.monotonic() < deadline, story
        time.sleep(0.2)
    return story
