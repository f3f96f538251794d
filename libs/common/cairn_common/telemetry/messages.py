"""Spans of messages that are handled together."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import SpanKind, StatusCode

from cairn_common.telemetry.tracing import (
    message_attributes,
    record_span,
    same_trace,
    tracing_enabled,
)

if TYPE_CHECKING:
    from cairn_common.events import Event
    from cairn_common.messaging import Message


class MessageSpans:
    """A span for each message of a batch: from the batch's beginning until all of it is done.

    A message is about a workflow and has its place in the workflow's trace, though it may come
    without a context (a bridge that has just started knows none) or out of another trace. What
    belongs to no trace gets no span.

    `traceparents` are those of the workflows in the batch, as far as the reader knows them.
    """

    def __init__(self) -> None:
        self._started = datetime.now(UTC)
        self._taken: list[tuple[Message, Event | None]] = []
        self._faults: dict[int, str] = {}
        self.traceparents: dict[str, str] = {}

    @classmethod
    def if_wanted(cls) -> MessageSpans | None:
        """None where spans go nowhere: then nothing is to be done for them."""
        return cls() if tracing_enabled() else None

    def take(self, message: Message, event: Event | None) -> None:
        """Remember a message, and what it says if that can be read."""
        self._taken.append((message, event))

    def fail(self, what: Message | Event, reason: str) -> None:
        """Remember that a message, known by itself or by what it says, could not be carried out."""
        self._faults[id(what)] = reason

    def record(self) -> None:
        """Make the spans; the batch is over now."""
        ended = datetime.now(UTC)
        for message, event in self._taken:
            headers = message.headers
            sent = headers.get("traceparent")
            parent = self.traceparents.get(headers.get("ce-subject", ""), sent)
            if parent is None:
                continue
            kind = event.type if event else headers.get("ce-type", "unknown")
            attributes = message_attributes(
                "process", kind, message.subject, headers, task=_task_of(event)
            )
            attributes["messaging.batch.message_count"] = len(self._taken)
            fault = self._faults.get(id(message)) or self._faults.get(id(event))
            record_span(
                f"process {kind}",
                parent,
                self._started,
                ended,
                attributes,
                kind=SpanKind.CONSUMER,
                linked=sent if sent and not same_trace(sent, parent) else None,
                status=StatusCode.ERROR if fault else StatusCode.UNSET,
                message=fault,
            )


def _task_of(event: Event | None) -> str | None:
    """The name of the task that an event is about, if it is about one."""
    placements: Sequence[Any] = getattr(event, "placements", ())
    placement = placements[0] if len(placements) == 1 else None
    for owner, name in ((placement, "tasks"), (event, "attempts"), (event, "outcomes")):
        tasks: Sequence[Any] = getattr(owner, name, ())
        if len(tasks) == 1:
            return str(tasks[0].name)
    return None
