"""From events on the wire to inputs of the core."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from cairn_common.events import (
    Event,
    InvalidEventError,
    TaskAccepted,
    TaskArchived,
    TaskFinished,
    TaskHeld,
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
    Held,
    Input,
    Scheduled,
    Started,
)
from cairn_engine.core.inputs import Anomaly


@dataclass(slots=True)
class Arrivals:
    """What a batch of messages says: submissions to load, and inputs in order."""

    submissions: list[str] = field(default_factory=list)
    inputs: list[Input] = field(default_factory=list)
    _ends: list[tuple[int, int, Message]] = field(default_factory=list)

    def take(self, message: Message) -> Event:
        """Add what one message says.

        Raises:
            InvalidEventError: it says nothing that the engine understands.
        """
        event = decode(message.subject, message.headers, message.data)
        _check_subject(event, message.subject)
        self.add(event)
        self._ends.append((len(self.submissions), len(self.inputs), message))
        return event

    def about_nothing(
        self, anomalies: Sequence[Anomaly], submissions: Collection[str]
    ) -> dict[Message, str]:
        """The messages whose facts are about nothing that the engine knows, with the reasons.

        A request to cancel is none of them: it may come before the submission, is sent again
        until it is heeded, and the workflow's id in it was looked up.

        Args:
            anomalies: what was decided to be about nothing.
            submissions: workflows that were announced and that nobody has submitted.
        """
        reasons = {
            id(anomaly.fact): f"{anomaly.story}: {anomaly.what}"
            for anomaly in anomalies
            if anomaly.fact is not None
        }
        found: dict[Message, str] = {}
        first_submission = first_input = 0
        for last_submission, last_input, message in self._ends:
            for input_ in self.inputs[first_input:last_input]:
                if (reason := reasons.get(id(input_))) is not None:
                    found.setdefault(message, reason)
            for workflow in self.submissions[first_submission:last_submission]:
                if workflow in submissions:
                    found[message] = f"nobody has submitted a workflow {workflow}"
            first_submission, first_input = last_submission, last_input
        return found

    def add(self, event: Event) -> None:
        """Add what one event says; events that are not for the engine say nothing."""
        if isinstance(event, WorkflowSubmitted):
            self.submissions.append(event.workflow)
        elif type(event) in _INPUTS:
            self.inputs.extend(_INPUTS[type(event)](event))


def _check_subject(event: Event, subject: str) -> None:
    """An event on the subject of another would be decided by who does not own its workflow."""
    try:
        own = event.subject()
    except ValueError as error:
        raise InvalidEventError(f"{event.type}: {error}") from error
    if own != subject:
        raise InvalidEventError(f"an event with the subject {own} came on another one")


def _cancel(event: WorkflowCancel) -> Iterable[Input]:
    return [CancelRequested(event.workflow, event.user, event.message, event.force)]


def _accepted(event: TaskAccepted) -> Iterable[Input]:
    return [
        Accepted(event.workflow, ref.index, ref.attempt, event.at, event.message)
        for ref in event.attempts
    ]


def _held(event: TaskHeld) -> Iterable[Input]:
    return [
        Held(event.workflow, ref.index, ref.attempt, event.at, event.message)
        for ref in event.attempts
    ]


def _scheduled(event: TaskScheduled) -> Iterable[Input]:
    return [
        Scheduled(event.workflow, ref.index, ref.attempt, event.at, event.node, event.message)
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
    TaskHeld: _held,
    TaskScheduled: _scheduled,
    TaskStarted: _started,
    TaskFinished: _finished,
    TaskArchived: _archived,
}
