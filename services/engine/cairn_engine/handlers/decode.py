"""From events on the wire to inputs of the core."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from cairn_common.events import (
    Event,
    TaskAccepted,
    TaskArchived,
    TaskFinished,
    TaskScheduled,
    TaskStarted,
    WorkflowCancel,
    WorkflowSubmitted,
    decode,
)
from cairn_common.messaging import Message
from cairn_engine.core import (
    Accepted,
    Archived,
    CancelRequested,
    Finished,
    Input,
    Scheduled,
    Started,
)


@dataclass(slots=True)
class Arrivals:
    """What a batch of messages says: submissions to load, and inputs in order."""

    submissions: list[str] = field(default_factory=list)
    inputs: list[Input] = field(default_factory=list)

    def take(self, message: Message) -> Event:
        """Add what one message says.

        Raises:
            InvalidEventError: it says nothing that the engine understands.
        """
        event = decode(message.subject, message.headers, message.data)
        self.add(event)
        return event

    def add(self, event: Event) -> None:
        """Add what one event says; events that are not for the engine say nothing."""
        if isinstance(event, WorkflowSubmitted):
            self.submissions.append(event.workflow)
        elif type(event) in _INPUTS:
            self.inputs.extend(_INPUTS[type(event)](event))


def _cancel(event: WorkflowCancel) -> Iterable[Input]:
    return [CancelRequested(event.workflow, event.user, event.message, event.force)]


def _accepted(event: TaskAccepted) -> Iterable[Input]:
    return [Accepted(event.workflow, ref.index, ref.attempt, event.at) for ref in event.attempts]


def _scheduled(event: TaskScheduled) -> Iterable[Input]:
    return [
        Scheduled(event.workflow, ref.index, ref.attempt, event.at, event.node)
        for ref in event.attempts
    ]


def _started(event: TaskStarted) -> Iterable[Input]:
    return [
        Started(
            event.workflow,
            ref.index,
            ref.attempt,
            event.at,
            event.node,
            event.accepted_at,
            event.scheduled_at,
        )
        for ref in event.attempts
    ]


def _finished(event: TaskFinished) -> Iterable[Input]:
    return [
        Finished(
            event.workflow,
            outcome.index,
            outcome.attempt,
            outcome.at or event.at,
            outcome.reason,
            outcome.exit_code,
            outcome.message,
            outcome.node,
            outcome.started_at,
            outcome.log_lines,
            outcome.restarts,
            outcome.accepted_at,
            outcome.scheduled_at,
        )
        for outcome in event.outcomes
    ]


def _archived(event: TaskArchived) -> Iterable[Input]:
    now = datetime.now(UTC)
    return [Archived(event.workflow, ref.index, ref.attempt, now) for ref in event.attempts]


_INPUTS: dict[type[Event], Callable[[Any], Iterable[Input]]] = {
    WorkflowCancel: _cancel,
    TaskAccepted: _accepted,
    TaskScheduled: _scheduled,
    TaskStarted: _started,
    TaskFinished: _finished,
    TaskArchived: _archived,
}
