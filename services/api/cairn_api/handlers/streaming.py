"""Streams of a workflow: its log, its story, its state. They end when the workflow does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from cairn_api.core.answers import WatchAnswer, json_of
from cairn_api.core.errors import ApiError, no_task, no_workflow, unavailable
from cairn_api.core.present import watch_answer
from cairn_api.handlers.context import Context, Ctx, Streams, WorkflowId
from cairn_api.handlers.logreading import RelayAwayError
from cairn_api.handlers.submitting import REFUSED
from cairn_common.requests import LogReadRequest

router = APIRouter(tags=["Workflow API"])

_MOST_LINES = 10_000
_LONGEST_QUERY = 1000
_TEXT: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Lines, as they come.",
        "content": {
            "text/plain": {"example": "2026/08/01 12:00:00 [greet] hello\n"},
        },
    }
}
_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Server-sent events `status`, each with the whole state. The last has "
        "`final: true`.",
        "model": WatchAnswer,
        "content": {
            "text/event-stream": {
                "example": 'id: 1\nevent: status\ndata: {"name": "hello-1", ...}\n\n'
            }
        },
    }
}
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
LastLines = Annotated[
    int | None, Query(description="Begin this many lines before the present end.")
]
TaskName = Annotated[str | None, Query(description="Only of this task.")]
RetryId = Annotated[int | None, Query(description="Only of this attempt; 0 is the first.")]
Contains = Annotated[str | None, Query(description="Only lines that hold this text.")]


@router.get(
    "/api/workflow/{name}/logs", response_class=StreamingResponse, responses=_TEXT | REFUSED
)
async def get_workflow_logs(
    context: Ctx,
    workflow: WorkflowId,
    last_n_lines: LastLines = None,
    task_name: TaskName = None,
    retry_id: RetryId = None,
    query: Contains = None,
) -> StreamingResponse:
    """The log of a workflow, live until the workflow ends."""
    return await _log(context, workflow, last_n_lines, task_name, retry_id, query, None)


@router.get(
    "/api/workflow/{name}/error_logs", response_class=StreamingResponse, responses=_TEXT | REFUSED
)
async def get_workflow_error_logs(
    context: Ctx,
    workflow: WorkflowId,
    last_n_lines: LastLines = None,
    task_name: TaskName = None,
    retry_id: RetryId = None,
    query: Contains = None,
) -> StreamingResponse:
    """What the tasks of a workflow wrote to standard error, live until the workflow ends."""
    return await _log(context, workflow, last_n_lines, task_name, retry_id, query, "stderr")


async def _log(
    context: Context,
    workflow: str,
    last_n_lines: int | None,
    task: str | None,
    attempt: int | None,
    query: str | None,
    stream: str | None,
) -> StreamingResponse:
    if last_n_lines is not None and not 0 <= last_n_lines <= _MOST_LINES:
        raise ApiError(f"last_n_lines must be from 0 to {_MOST_LINES}.", "USAGE")
    if query is not None and len(query) > _LONGEST_QUERY:
        raise ApiError(f"query has at most {_LONGEST_QUERY} characters.", "USAGE")
    await _check(context, workflow, task)
    request = LogReadRequest(
        workflow=workflow,
        last_n_lines=last_n_lines,
        task=task,
        attempt=attempt,
        stream=stream,
        contains=query,
    )
    try:
        page = await context.logs.read(request)
    except RelayAwayError as error:
        raise unavailable("The log relay does not answer.") from error
    text = context.follower.follow(
        request, page, context.settings.debounce_seconds, context.closing
    )
    return _stream(context.streams, text, "text/plain")


@router.get(
    "/api/workflow/{name}/events", response_class=StreamingResponse, responses=_TEXT | REFUSED
)
async def get_workflow_events(
    context: Ctx, workflow: WorkflowId, task_name: TaskName = None, retry_id: RetryId = None
) -> StreamingResponse:
    """What happens to a workflow and its tasks, live until the workflow ends."""
    await _check(context, workflow, task_name)
    return _stream(context.streams, _events(context, workflow, task_name, retry_id), "text/plain")


async def _events(
    context: Context, workflow: str, task: str | None, attempt: int | None
) -> AsyncIterator[bytes]:
    told = version = 0
    async with context.watches.follow(workflow) as watch:
        while not context.closing.is_set():
            await watch.newer(version, context.settings.keepalive_seconds)
            version, ended = watch.version, watch.ended
            lines = watch.story.lines[told:]
            told += len(lines)
            text = "".join(
                line.text
                for line in lines
                if task is None
                or (line.task == task and (attempt is None or line.attempt == attempt))
            )
            if text:
                yield text.encode()
            if ended:
                return


@router.get(
    "/api/workflow/{name}/watch", response_class=StreamingResponse, responses=_EVENTS | REFUSED
)
async def watch_workflow(context: Ctx, workflow: WorkflowId) -> StreamingResponse:
    """The state of a workflow and its tasks, each time that it changes. Not in the reference."""
    await _check(context, workflow, None)
    return _stream(context.streams, _watch(context, workflow), "text/event-stream")


async def _watch(context: Context, workflow: str) -> AsyncIterator[bytes]:
    version = 0
    async with context.watches.follow(workflow) as watch:
        while not context.closing.is_set():
            await watch.newer(version, context.settings.keepalive_seconds)
            ended, snapshot = watch.ended, watch.snapshot
            if watch.version > version and snapshot is not None:
                version = watch.version
                data = json_of(watch_answer(snapshot))
                yield b"id: %d\nevent: status\ndata: %b\n\n" % (version, data)
            elif not ended:
                # A comment, which notices a client that is gone and keeps proxies patient.
                yield b": still there\n\n"
            if ended:
                return


async def _check(context: Context, workflow: str, task: str | None) -> None:
    """Refuse what cannot be followed while there still is a status line to do so."""
    context.streams.check()
    if not await context.reader.exists(workflow):
        raise no_workflow(workflow)
    if task is not None and await context.reader.task(workflow, task) is None:
        raise no_task(workflow, task)


def _stream(streams: Streams, body: AsyncIterator[bytes], kind: str) -> StreamingResponse:
    return StreamingResponse(_counted(streams, body), media_type=kind, headers=_HEADERS)


async def _counted(streams: Streams, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    streams.open += 1
    try:
        async for part in body:
            yield part
    finally:
        streams.open -= 1
        close = getattr(body, "aclose", None)
        if close is not None:
            await close()
