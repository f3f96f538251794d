"""Reads what the system recorded: the engine's published views, and the archive of logs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from cairn_common.events.subjects import DEAD_LETTERS

from .checker import Record, Row
from .journal import Attempt
from .load import submissions
from .system import System


async def read_record(system: System) -> tuple[Record, dict[str, str]]:
    """The record, and the workflow of each submission's key."""
    async with system.database() as database:
        workflows = await database.fetch("SELECT id, status FROM engine.view_workflow")
        tasks = await database.fetch(
            "SELECT workflow, name, attempt, status, exit_code, started_at FROM engine.view_task"
        )
        by_key = await submissions(database)
    record = Record({row["id"]: row["status"] for row in workflows})
    for row in tasks:
        record.rows.setdefault(row["workflow"], []).append(
            Row(
                row["name"],
                row["attempt"],
                row["status"],
                row["exit_code"],
                row["started_at"] is not None,
            )
        )
    for file in (system.root / "logs").glob("*.jsonl"):
        record.logged |= _attempts_in(file)
    return record, by_key


def _attempts_in(file: Path) -> set[Attempt]:
    """The attempts of which a workflow's log file holds the first line."""
    found = set()
    with file.open("rb") as lines:
        for line in lines:
            body = orjson.loads(line)
            if body.get("text", "").startswith("ran "):
                found.add(Attempt(file.stem, body["task"], body["a"]))
    return found


async def loose_ends(system: System) -> dict[str, int]:
    """What must become nothing once all is over: messages, hand-overs and attempts undone."""
    async with system.database() as database:
        counted = await database.fetchrow(
            "SELECT (SELECT count(*) FROM engine.outbox) AS outbox,"
            " (SELECT count(*) FROM engine.follow_up) AS follow_ups,"
            " (SELECT count(*) FROM api.handover) AS handovers"
        )
    assert counted is not None
    async with system.bus() as client:
        dead = await client.jetstream().stream_info(DEAD_LETTERS.name)
    attempts = system.root / "clusters" / "local" / "attempts"
    return {
        **dict(counted),
        "unsettled attempts": sum(1 for _ in attempts.glob("*/*")),
        "dead letters": dead.state.messages,
    }


async def story(system: System, workflow: str) -> list[str]:
    """All that is recorded about a workflow, for people."""
    lines = []
    async with system.database() as database:
        for table in ("workflow", "task_group", "task", "anomaly"):
            column = "id" if table == "workflow" else "workflow"
            order = {"task": "index, attempt", "task_group": "index"}.get(table, "1")
            rows = await database.fetch(
                f"SELECT * FROM engine.{table} WHERE {column} = $1 ORDER BY {order}", workflow
            )
            lines += [f"engine.{table}: {_facts(dict(row))}" for row in rows]
        rows = await database.fetch("SELECT * FROM api.handover WHERE workflow = $1", workflow)
        lines += [f"api.handover: {_facts(dict(row))}" for row in rows]
    lines += await _events(system, workflow)
    for name in system.names():
        for log in (system.log(name).with_suffix(".log.1"), system.log(name)):
            if log.exists():
                with log.open(errors="replace") as file:
                    lines += [
                        f"{name}.log: {line.rstrip()[:600]}" for line in file if workflow in line
                    ]
    return lines


def _facts(row: dict[str, Any]) -> str:
    skipped = {"downstream", "upstream", "uuid", "labels", "partition"}
    kept = ((k, v) for k, v in row.items() if v not in (None, False) and k not in skipped)
    return " ".join(f"{key}={value}" for key, value in kept)


async def _events(system: System, workflow: str) -> list[str]:
    """The events about a workflow that the streams still hold, in the order of their times."""
    found: list[tuple[str, str]] = []
    async with system.bus() as client:
        jetstream = client.jetstream()
        for stream in await jetstream.streams_info():
            name = stream.config.name
            info = await jetstream.stream_info(name, subjects_filter=f"*.*.*.{workflow}")
            for subject in info.state.subjects or {}:
                sequence = info.state.first_seq
                while True:
                    try:
                        message = await jetstream.get_msg(
                            name, sequence, subject=subject, next=True, direct=True
                        )
                    except Exception:  # none follows
                        break
                    at = (message.headers or {}).get("ce-time", "")
                    body = (message.data or b"").decode(errors="replace")
                    found.append((at, f"{subject} #{message.seq} {body[:300]}"))
                    sequence = (message.seq or 0) + 1
    return [f"event {at} {words}" for at, words in sorted(found)]
