"""CloudEvents 1.0 on NATS, binary content mode: attributes as headers, the body as JSON.

Source: CloudEvents specification 1.0.2 and its NATS protocol binding (`ce-` headers), W3C Trace
Context for `traceparent`. `Nats-Msg-Id` repeats the event's id, so that JetStream drops a second
copy that is published within its duplicate window.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pydantic import ValidationError

from cairn_common.events.catalogue import CATALOGUE, Event

SPEC_VERSION = "1.0"


class InvalidEventError(ValueError):
    """A message that is no event of the catalogue; `str()` says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """An event ready to be sent: its subject, headers and body."""

    subject: str
    headers: dict[str, str]
    body: bytes = field(repr=False)


def encode(
    event: Event,
    *,
    source: str,
    event_id: str | None = None,
    traceparent: str | None = None,
    time: datetime | None = None,
) -> Envelope:
    """Put `event` into its envelope.

    Args:
        event: what to say.
        source: who says it, a URI reference such as `/engine`.
        event_id: unique among the source's events; the same id twice is the same event.
        traceparent: the W3C trace context that the event belongs to.
        time: when it happened; now, if not given.
    """
    headers = event_headers(
        event.type,
        about=event.about(),
        source=source,
        event_id=event_id or uuid.uuid4().hex,
        traceparent=traceparent,
        time=time,
    )
    return Envelope(event.subject(), headers, event.model_dump_json(exclude_none=True).encode())


def event_headers(
    kind: str,
    *,
    about: str,
    source: str,
    event_id: str,
    traceparent: str | None = None,
    time: datetime | None = None,
) -> dict[str, str]:
    """The headers of an event whose body is at hand already; see `encode`."""
    headers = {
        "ce-specversion": SPEC_VERSION,
        "ce-id": event_id,
        "ce-type": kind,
        "ce-source": source,
        "ce-subject": about,
        "ce-time": (time or datetime.now(UTC)).isoformat(),
        "content-type": "application/json",
        "Nats-Msg-Id": event_id,
    }
    if traceparent:
        headers["traceparent"] = traceparent
    return headers


def decode(subject: str, headers: Mapping[str, str] | None, body: bytes) -> Event:
    """Take an event off the wire.

    The type comes from the `ce-type` header, or from the subject where a sender left the
    header out (the two agree for every event of the catalogue).

    Raises:
        InvalidEventError: unknown type or version, or a body that does not fit the type's model.
    """
    version = (headers or {}).get("ce-specversion", SPEC_VERSION)
    if version != SPEC_VERSION:
        raise InvalidEventError(f"CloudEvents version {version!r} is not {SPEC_VERSION!r}")
    kind = (headers or {}).get("ce-type") or ".".join(subject.split(".", 2)[:2])
    model = CATALOGUE.get(kind)
    if model is None:
        raise InvalidEventError(f"no event of the catalogue has the type {kind!r}")
    try:
        # A newer sender may say more, also about what is configuration and strict elsewhere.
        return model.model_validate_json(body, extra="ignore")
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "body"
        raise InvalidEventError(
            f"{kind}: {where}: {first['msg']} ({error.error_count()} problems in all)"
        ) from error
