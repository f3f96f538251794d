"""From events on the wire to inputs of the core."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

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
        match event:
            case WorkflowSubmitted():
                self.submissions.append(event.workflow)
            case WorkflowCancel():
                self.inputs.append(
                    CancelRequested(event.workflow, event.user, event.message, event.force)
                )
            case TaskAccepted():
                self.inputs.extend(
                    Accepted(event.workflow, ref.index, ref.attempt, event.at)
                    for ref in event.attempts
                )
            case TaskScheduled():
                self.inputs.extend(
                    Scheduled(event.workflow, ref.index, ref.attempt, event.at, event.node)
                    for ref in event.attempts
                )
            case TaskStarted():
                self.inputs.extend(
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
                )
            case TaskFinished():
                self.inputs.extend(
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
                        outcome.accepted_at,
                        outcome.scheduled_at,
                    )
                    for outcome in event.outcomes
                )
            case TaskArchived():
                now = datetime.now(UTC)
                self.inputs.extend(
                    Archived(event.workflow, ref.index, ref.attempt, now) for ref in event.attempts
                )
