"""What the API says about dead letters: messages that a service could not handle, with the reason.

An addition to the reference's API, for operators.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from datetime import datetime

from pydantic import BaseModel, Field

from cairn_api.core.answers import Time


class DeadLetterEntry(BaseModel):
    """A dead letter in a list."""

    id: int
    service: str = Field(description="Who could not handle it.")
    subject: str = Field(description="Where it was sent.")
    reason: str
    time: Time
    size: int = Field(description="Bytes of the whole body.")


class DeadLetterAnswer(DeadLetterEntry):
    """A dead letter with what was in it."""

    headers: dict[str, str]
    body: str = Field(description="As text, or in base64 where it is no text.")
    base64: bool
    complete: bool = Field(description="False: only the beginning of the body was kept.")


class DeadLettersAnswer(BaseModel):
    """The newest dead letters, the newest of them last."""

    dead_letters: list[DeadLetterEntry]
    more_entries: bool = Field(description="There are older ones: ask for those before the first.")


def entry(
    number: int, service: str, subject: str, reason: str, at: datetime, size: int
) -> DeadLetterEntry:
    """A dead letter in a list."""
    return DeadLetterEntry(
        id=number, service=service, subject=subject, reason=reason, time=at, size=size
    )


def list_answer(entries: Sequence[DeadLetterEntry], *, more: bool) -> DeadLettersAnswer:
    """A page."""
    return DeadLettersAnswer(dead_letters=list(entries), more_entries=more)


def letter_answer(
    found: DeadLetterEntry, headers: Mapping[str, str], body: bytes
) -> DeadLetterAnswer:
    """A whole one."""
    try:
        text, binary = body.decode(), False
    except UnicodeDecodeError:
        text, binary = base64.b64encode(body).decode(), True
    return DeadLetterAnswer(
        **found.model_dump(exclude={"time"}),
        time=found.time,
        headers=dict(headers),
        body=text,
        base64=binary,
        complete=len(body) == found.size,
    )
