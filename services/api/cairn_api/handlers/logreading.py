"""Reading logs from the log relay, and following one to its end.

The relay answers a request when there is something new, but it must not hold a request for every
idle follower: a follower asks when log lines pass by on NATS, and followers who ask the same
share one question.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import structlog
from nats.aio.client import Client
from nats.errors import Error as NatsError
from pydantic import ValidationError

from cairn_api.core.loglines import format_page
from cairn_api.handlers.listening import Listening
from cairn_api.store import EngineMissingError, Reader, UnavailableError
from cairn_common.events import partition_of
from cairn_common.requests import LOG_READ_SUBJECT, LogReadReply, LogReadRequest

log = structlog.get_logger(__name__)

_ANSWER_SECONDS = 5.0
_HOLD_SECONDS = 2.0
_LOOK_AGAIN_SECONDS = 10.0
_RETRY_SECONDS = 1.0
_LATE_SECONDS = 10.0
"""How long after a workflow's end its last lines are waited for."""


class RelayAwayError(Exception):
    """The log relay does not answer."""


class LogReader:
    """Asks the relay; equal questions at one time are asked once."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._asked: dict[bytes, asyncio.Task[LogReadReply]] = {}

    async def read(self, request: LogReadRequest) -> LogReadReply:
        """A page of a log.

        Raises:
            RelayAwayError: no answer came.
        """
        question = request.model_dump_json(exclude_none=True).encode()
        task = self._asked.get(question)
        if task is None:
            task = asyncio.create_task(self._ask(question, request.wait_seconds))
            self._asked[question] = task
            task.add_done_callback(lambda _: self._asked.pop(question, None))
            # Nobody may be left to hear of a failure.
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(task)

    async def _ask(self, question: bytes, wait_seconds: float) -> LogReadReply:
        try:
            reply = await self._client.request(
                LOG_READ_SUBJECT,
                question,
                timeout=wait_seconds + _ANSWER_SECONDS,
                headers={"content-type": "application/json"},
            )
            return LogReadReply.model_validate_json(reply.data)
        except (NatsError, TimeoutError) as error:
            raise RelayAwayError(str(error) or type(error).__name__) from error
        except ValidationError as error:
            raise RelayAwayError(f"an answer that is none: {error}") from error


class LogFollower:
    """One reader of one log, from the first page to the end of the workflow."""

    def __init__(self, logs: LogReader, listening: Listening, reader: Reader) -> None:
        self._logs = logs
        self._listening = listening
        self._reader = reader

    async def follow(
        self, request: LogReadRequest, page: LogReadReply, debounce: float, closing: asyncio.Event
    ) -> AsyncIterator[bytes]:
        """The text of the log from its first page on; ends when the workflow has.

        Args:
            request: what is to be read.
            page: the answer to it.
            debounce: lines that come closer together are read as one page.
            closing: set when the API goes down.
        """
        workflow = request.workflow
        subject = f"{partition_of(workflow)}.{workflow}"
        wake = asyncio.Event()
        wake.set()  # for what came after the first page was read and before we listened
        clock = asyncio.get_running_loop().time
        over_at: float | None = None
        async with self._listening.to(
            lambda _: wake.set(), f"task.log.{subject}.*", f"workflow.finished.{subject}"
        ):
            while True:
                if page.records:
                    yield format_page(page.records)
                if page.complete or closing.is_set():
                    return
                if not page.records and not wake.is_set():
                    over_at = over_at or await self._is_over(workflow)
                    if over_at is None:
                        await _wait(wake, closing, _LOOK_AGAIN_SECONDS)
                        await asyncio.sleep(debounce)
                    elif clock() >= over_at:
                        return
                # The relay holds the question only where an answer is to be expected.
                hold = _HOLD_SECONDS if wake.is_set() or over_at else 0.0
                wake.clear()
                again = request.model_copy(
                    update={
                        "cursor": page.cursor,
                        "last_n_lines": None,
                        "wait_seconds": hold,
                    }
                )
                page = await self._read_on(again, page, closing)

    async def _read_on(
        self, request: LogReadRequest, page: LogReadReply, closing: asyncio.Event
    ) -> LogReadReply:
        """The next page; an empty one if the relay is away for the moment."""
        try:
            return await self._logs.read(request)
        except RelayAwayError as error:
            log.info("log not read yet", workflow=request.workflow, error=str(error))
            await _wait(asyncio.Event(), closing, _RETRY_SECONDS)
            return page.model_copy(update={"records": []})

    async def _is_over(self, workflow: str) -> float | None:
        """When to stop waiting for last lines, if the workflow has ended; it may be long ago."""
        try:
            found = await self._reader.workflow(workflow)
        except (UnavailableError, EngineMissingError):
            return None
        if found is None or not found.status.final:
            return None
        now = asyncio.get_running_loop().time()
        if found.ended_at is None:
            return now
        since = (datetime.now(UTC) - found.ended_at).total_seconds()
        return now + max(0.0, _LATE_SECONDS - since)


async def _wait(wake: asyncio.Event, closing: asyncio.Event, seconds: float) -> None:
    """Returns when one of the events is set or time is up."""
    waits = [asyncio.create_task(event.wait()) for event in (wake, closing)]
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
