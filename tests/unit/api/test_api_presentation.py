"""How rows become answers, lines and stories; and the catalogue as a document."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import yaml

from cairn_api.core.answers import json_of
from cairn_api.core.loglines import format_page
from cairn_api.core.model import Group, Snapshot, Task, Workflow
from cairn_api.core.present import Links, watch_answer, workflow_answer
from cairn_api.core.story import Story
from cairn_common.asyncapi import asyncapi_document
from cairn_common.events import CATALOGUE
from cairn_common.requests import LogRecord

T0 = datetime(2026, 8, 1, 10, tzinfo=UTC)
LINKS = Links("http://here")
WORKFLOW = Workflow("w-3", "u", "w", "me", "default", "NORMAL", {}, [], [], "w-2", T0)
GROUP = Group(0, "g", "RUNNING", None, [], [1], T0, None, None, T0, None)
TASK = Task(0, 0, 0, "a", "t", True, "RUNNING", None, None, None, "n", T0, T0, None, T0, None)


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def test_log_lines() -> None:
    def record(**fields: Any) -> LogRecord:
        values = {"task": "a", "attempt": 0, "seq": 0, "at": T0, "text": "x"}
        return LogRecord(**{**values, **fields})

    page = [record(), record(attempt=2), record(stream="cairn"), record(text="\udcff", task="b")]
    assert format_page(page) == (
        b"2026/08/01 10:00:00 [a] x\n"
        b"2026/08/01 10:00:00 [a retry-2] x\n"
        b"2026/08/01 10:00:00 [a][osmo] x\n"
        b"2026/08/01 10:00:00 [b] ?\n"
    )
    assert format_page([]) == b""


def test_a_workflow_that_the_engine_does_not_have_yet() -> None:
    answer = json.loads(
        json_of(workflow_answer(Snapshot(WORKFLOW), LINKS, at(5), rendered=None, template=None))
    )
    assert answer["status"] == "PENDING"
    assert answer["groups"] == []
    assert answer["queued_time"] == 5.0
    assert answer["duration"] is None
    assert answer["submit_time"] == "2026-08-01T10:00:00"
    assert (answer["parent_name"], answer["parent_job_id"]) == ("w", 2)
    assert answer["spec"] == "http://here/api/workflow/w-3/spec"


def test_a_running_workflow() -> None:
    running = replace(
        WORKFLOW, engine_status="RUNNING", cluster="local", started_at=at(2), parent=None
    )
    waiting = Group(1, "h", "WAITING", None, [0], [], None, None, None, None, None)
    snapshot = Snapshot(running, [GROUP, waiting], [TASK])
    answer = json.loads(
        json_of(workflow_answer(snapshot, LINKS, at(5), rendered="text", template=""))
    )
    assert (answer["queued_time"], answer["duration"]) == (2.0, 3.0)
    assert (answer["spec"], answer["template_spec"]) == ("text", "")
    assert answer["groups"][1]["remaining_upstream_groups"] == ["g"]
    task = answer["groups"][0]["tasks"][0]
    assert task["logs"] == "http://here/api/workflow/w-3/logs?task_name=a&retry_id=0"
    watched = json.loads(json_of(watch_answer(snapshot)))
    assert watched["final"] is False
    assert watched["groups"][1]["upstream"] == ["g"]
    assert watched["groups"][0]["tasks"][0]["node_name"] == "n"


def test_a_story_tells_each_step_once_and_in_order() -> None:
    story = Story()
    story.follow(Snapshot(WORKFLOW))
    assert [line.text for line in story.lines] == [
        "2026/08/01 10:00:00 Workflow w-3 submitted by me to pool default\n"
    ]
    running = replace(WORKFLOW, engine_status="RUNNING", started_at=at(1))
    started = replace(TASK, processing_at=at(1), scheduling_at=at(1), started_at=at(1))
    story.follow(Snapshot(running, [GROUP], [started]))
    story.follow(Snapshot(running, [GROUP], [started]))
    ended = replace(started, status="RESCHEDULED", exit_code=3, message="again", ended_at=at(2))
    second = replace(started, attempt=1, status="COMPLETED", exit_code=0, ended_at=at(4))
    final = replace(running, engine_status="COMPLETED", ended_at=at(4))
    story.follow(Snapshot(final, [GROUP], [ended, second]))
    assert [line.text[20:-1] for line in story.lines[1:]] == [
        "Workflow w-3 RUNNING",
        "[a] PROCESSING: offered to the cluster",
        "[a] SCHEDULING: in the cluster's queue",
        "[a] RUNNING on node n",
        "[a retry-1] PROCESSING: offered to the cluster",
        "[a retry-1] SCHEDULING: in the cluster's queue",
        "[a retry-1] RUNNING on node n",
        "[a] RESCHEDULED: exit code 3, again",
        "[a retry-1] COMPLETED: exit code 0",
        "Workflow w-3 COMPLETED",
    ]


def test_the_asyncapi_document_is_whole() -> None:
    document = asyncapi_document()
    assert document["channels"].keys() == CATALOGUE.keys()
    addresses = {channel["address"] for channel in document["channels"].values()}
    assert "task.log.{partition}.{workflow}.{task}" in addresses
    assert "task.ready.{cluster}.{workflow}" in addresses
    assert "cluster.heartbeat.{cluster}" in addresses

    def references(value: Any) -> list[str]:
        if isinstance(value, dict):
            own = [value["$ref"]] if "$ref" in value else []
            return own + [ref for item in value.values() for ref in references(item)]
        if isinstance(value, list):
            return [ref for item in value for ref in references(item)]
        return []

    for reference in references(document):
        target: Any = document
        for step in reference.removeprefix("#/").split("/"):
            target = target[step]
        assert target
    printed = subprocess.run(
        [sys.executable, "-m", "cairn_common.asyncapi"], capture_output=True, check=True
    )
    assert yaml.safe_load(printed.stdout) == document
    assert b"&id" not in printed.stdout
