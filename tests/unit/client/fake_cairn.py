"""A Cairn of a few dozen lines, in the process: tests see what the client says to it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

import httpx

URL = "http://cairn.test:1234"
START = "2026-08-01T12:00:00"


@dataclass
class Asked:
    """A request as the server got it."""

    method: str
    path: str
    query: dict[str, list[str]]
    body: Any
    headers: httpx.Headers


Answer = Callable[[Asked], httpx.Response]


def task(name: str, status: str = "RUNNING", **more: Any) -> dict[str, Any]:
    return {"name": name, "retry_id": 0, "status": status, "task_uuid": "u", **more}


def group(
    name: str, *tasks: dict[str, Any], status: str = "RUNNING", **more: Any
) -> dict[str, Any]:
    return {"name": name, "status": status, "tasks": list(tasks), **more}


def snapshot(status: str, *groups: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "name": "hello-1",
        "status": status,
        "submit_time": START,
        "start_time": START,
        "final": status not in {"PENDING", "RUNNING", "WAITING"},
        "groups": list(groups),
        **more,
    }


def sse(*snapshots: dict[str, Any]) -> Iterator[bytes]:
    yield b": hello\n\n"
    for number, value in enumerate(snapshots):
        text = f"id: {number}\nevent: status\ndata: {json.dumps(value)}\n\n".encode()
        # Cut in the middle, as networks do.
        yield text[: len(text) // 2]
        yield text[len(text) // 2 :]


@dataclass
class FakeCairn:
    """Answers by path; everything that it was asked is in `asked`."""

    answers: dict[str, Answer] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.json("GET /api/profile/settings", {"profile": {"pool": "mine"}})
        self.json("GET /api/version", {"major": "6", "minor": "4", "revision": "0", "hash": "c-1"})

    def on(self, what: str, answer: Answer) -> None:
        self.answers[what] = answer

    def json(self, what: str, value: Any, status: int = 200) -> None:
        self.on(what, lambda _: httpx.Response(status, json=value))

    def text(self, what: str, *chunks: bytes) -> None:
        self.on(what, lambda _: httpx.Response(200, content=iter(chunks)))

    def refuse(self, what: str, message: str, status: int = 400, **more: Any) -> None:
        self.json(what, {"message": message, "error_code": "USER", **more}, status)

    def watch(self, *streams: list[dict[str, Any]]) -> None:
        """What each next connection to the watch of hello-1 tells before it ends."""
        left = list(streams)
        self.on(
            "GET /api/workflow/hello-1/watch",
            lambda _: httpx.Response(200, content=sse(*left.pop(0))),
        )

    def submits(self, **more: Any) -> None:
        self.json("POST /api/pool/mine/workflow", {"name": "hello-1", "overview": "o", **more})

    def __call__(self, request: httpx.Request) -> httpx.Response:
        asked = Asked(
            request.method,
            request.url.raw_path.decode().partition("?")[0],
            parse_qs(request.url.query.decode(), keep_blank_values=True),
            json.loads(request.content) if request.content else None,
            request.headers,
        )
        self.asked.append(asked)
        answer = self.answers.get(f"{asked.method} {asked.path}")
        if answer is None:
            return httpx.Response(404, json={"detail": f"no {asked.method} {asked.path}"})
        return answer(asked)

    @property
    def last(self) -> Asked:
        return self.asked[-1]


@dataclass
class Ran:
    """A command that has ended."""

    code: int
    out: str
    err: str
    raw: bytes
