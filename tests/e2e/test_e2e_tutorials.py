"""The reference's tutorials, unchanged: those that need no GPU and no cloud bucket run here."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from e2e.conftest import System

_BESIDE_US = Path(__file__).parents[3] / "shared" / "osmo" / "workflows" / "tutorials"
TUTORIALS = Path(os.environ.get("CAIRN_TEST_TUTORIALS") or _BESIDE_US)
needs_tutorials = pytest.mark.skipif(
    not TUTORIALS.is_dir(),
    reason="the reference's files are somebody else's, so not in here: set CAIRN_TEST_TUTORIALS",
)

RUNNABLE = {
    "combination_workflow_complex": ["APPLE", "3\tcherry", "✓ Results combined!"],
    "combination_workflow_simple": [
        "✓ Validation passed!",
        "sample_10,value_10",
        "10 /osmo/data/input/0/data/training_data.csv",
        "✓ Model B complete!",
    ],
    "group_tasks": ["Processor 1: Complete", "Processor 2: Complete", "Processor 3: Complete"],
    "group_tasks_communication": ["Received from server: hello", "Server: Complete"],
    "hello_world": ["Hello from OSMO!"],
    "parallel_tasks": ["Hello from task-a", "Hello from task-b", "Hello from task-c"],
    "resources_basic": ["Using default resources"],
    "serial_workflow": ["[task2] a line: Data from task 1", "[task3] a line: Data from task 2"],
    "template_hello_world": ["Hello from OSMO!"],
    "token_example": ["Running experiment: my-experiment", "Workflow ID: my-experiment-"],
}
REFUSED = {
    "data_download": "s3://",
    "data_upload": "s3://",
    "data_filter": "storage_url",
    "resources_multiple": "gpu",
    "resources_platforms": "Platform ovx-l40 does not exist in pool default!",
    "robot_simulation": "gpu",
}


@needs_tutorials
@pytest.mark.timeout(400)
def test_every_tutorial_that_can_run_gives_the_right_results(system: System) -> None:
    assert RUNNABLE.keys() | REFUSED.keys() == {file.stem for file in TUTORIALS.glob("*.yaml")}
    names = {stem: system.submit_file(TUTORIALS / f"{stem}.yaml") for stem in RUNNABLE}
    for stem, name in names.items():
        log = system.logs(name)
        for line in RUNNABLE[stem]:
            assert line in log, f"{stem}:\n{log}"
        assert system.status(name) == "COMPLETED", stem


@needs_tutorials
@pytest.mark.parametrize("stem", sorted(REFUSED))
def test_what_cannot_run_here_is_refused_by_name(system: System, stem: str) -> None:
    error = system.cairn("workflow", "submit", str(TUTORIALS / f"{stem}.yaml"), code=1)
    assert REFUSED[stem] in error
    assert re.search(rf"{stem}\.yaml:\d+:\d+", error), error
