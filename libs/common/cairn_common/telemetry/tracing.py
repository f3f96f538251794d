"""Traces: one trace a workflow, from the HTTP request through every event to the task and back.

The context travels as a W3C `traceparent` string: in the headers of every event, in the rows of
the engine, in the environment of the task. That costs nothing and needs no exporter. Spans are
made only where an exporter is configured, and then have this shape:

    POST /api/pool/{pool_name}/workflow     api; below the caller's span if it sent one
    ├── create workflow.submitted           api
    ├── process workflow.submitted          engine, and so on for every event that it handles
    ├── process task.ready                  bridge; task.stop likewise
    └── workflow <name>                     engine, at its end: from submission on
        └── task <name>                     engine, one an attempt, at its end
            └── ...                         what the task itself traces below its TRACEPARENT

A workflow's `traceparent` is the span of the request that submitted it, and so is that of all
its events: handling one hangs below the request, not below the handling of the event before it,
because a decision about a hundred events has no single cause, and a trace as deep as the
workflow is long is one that nobody can read. A request about a workflow that has a trace of its
own (a cancellation) is linked from the span that handles it.

The ids of `workflow` and `task` spans are derived from the entities' own ids, so that a task knows
the span below which it runs before there is such a span, and a span that an engine records a
second time after a crash is the same span.

Source: W3C Trace Context; OpenTelemetry semantic conventions for messaging (names, kinds and
attributes of `create` and `process` spans) and for processes (`process.exit.code`).
"""

from __future__ import annotations

import hashlib
import logging
import re
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import TYPE_CHECKING

from opentelemetry import context, trace
from opentelemetry.trace import INVALID_SPAN, Link, Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

Attributes = Mapping[str, str | int]

_TRACER = "cairn"
_MICROSECONDS = 1_000_000
_W3C = TraceContextTextMapPropagator()
_TRACEPARENT = re.compile(r"([0-9a-f]{2}-[0-9a-f]{32})-[0-9a-f]{16}-([0-9a-f]{2})")
_EXPORT_SECONDS = 5.0  # for one batch, retries included
_FAREWELL_SECONDS = 3.0
_DELAY_MILLISECONDS = 1000
_MOST_WAITING = 8192  # spans; what exceeds it is dropped
_QUIET_SECONDS = 60.0

_own_span_id: ContextVar[int | None] = ContextVar("own_span_id", default=None)
_provider: TracerProvider | None = None


def configure_tracing(
    service: str, endpoint: str | None, *, exporter: SpanExporter | None = None
) -> TracerProvider | None:
    """Export this process's spans to an OTLP/HTTP `endpoint`, or to `exporter`.

    Exporting happens in a thread of its own. A collector that does not answer costs spans, and
    a warning a minute; nothing waits for it.

    Returns None, and makes no spans from then on, when neither is given.
    """
    global _provider  # noqa: PLW0603
    if not endpoint and exporter is None:
        return None
    # Loading all this takes a while, which who does not trace is spared.
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

    class Ids(RandomIdGenerator):
        """Random, but for spans whose id is known beforehand."""

        def generate_span_id(self) -> int:
            return _own_span_id.get() or super().generate_span_id()

    if endpoint:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        exporter = OTLPSpanExporter(endpoint=endpoint, timeout=_EXPORT_SECONDS)
    assert exporter is not None
    _provider = TracerProvider(
        resource=Resource.create({SERVICE_NAME: f"cairn-{service}"}),
        id_generator=Ids(),
        shutdown_on_exit=False,  # `shutdown_tracing` does that, in bounded time
    )
    _provider.add_span_processor(
        BatchSpanProcessor(
            exporter, max_queue_size=_MOST_WAITING, schedule_delay_millis=_DELAY_MILLISECONDS
        )
    )
    trace.set_tracer_provider(_provider)
    _hush()
    return _provider


def _hush() -> None:
    """Let what exports complain once a minute, and not for every batch."""
    for name in list(logging.root.manager.loggerDict):
        if name.startswith(("opentelemetry.exporter.", "opentelemetry.sdk.")):
            logging.getLogger(name).addFilter(_Seldom())


class _Seldom(logging.Filter):
    """Lets one record of a level pass, and the next when a minute is over."""

    def __init__(self) -> None:
        super().__init__()
        self._next: dict[int, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        if now < self._next.get(record.levelno, 0.0):
            return False
        self._next[record.levelno] = now + _QUIET_SECONDS
        return True


def shutdown_tracing(seconds: float = _FAREWELL_SECONDS) -> None:
    """Send what has not been sent yet, unless that takes longer than `seconds`."""
    global _provider
    provider, _provider = _provider, None
    if provider is not None:
        farewell = threading.Thread(target=provider.shutdown, name="last spans", daemon=True)
        farewell.start()
        farewell.join(seconds)


def tracing_enabled() -> bool:
    """Whether spans go anywhere; where they do not, nothing should be done for them."""
    return _provider is not None


def new_traceparent() -> str:
    """A fresh, sampled trace context for a workflow that arrives without one."""
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"


def current_traceparent() -> str | None:
    """The trace context of the span that is current in this task, if there is one."""
    carrier: dict[str, str] = {}
    _W3C.inject(carrier)
    return carrier.get("traceparent")


def workflow_traceparent(traceparent: str, uuid: str) -> str:
    """The context of the span of a whole workflow, within the workflow's trace."""
    return _derived(traceparent, uuid)


def attempt_traceparent(traceparent: str, task_uuid: str, attempt: int) -> str:
    """The context of the span of an attempt of a task, within its workflow's trace."""
    return _derived(traceparent, f"{task_uuid}/{attempt}")


def _derived(traceparent: str, of: str) -> str:
    """What is no `traceparent` comes back as it is."""
    parts = _TRACEPARENT.fullmatch(traceparent)
    if parts is None:
        return traceparent
    span_id = hashlib.blake2b(of.encode(), digest_size=8).hexdigest()
    return f"{parts[1]}-{span_id}-{parts[2]}"


def same_trace(one: str, other: str) -> bool:
    """Whether two contexts are of one trace."""
    return one.split("-")[1:2] == other.split("-")[1:2]


@contextmanager
def start_span(
    name: str,
    traceparent: str | None = None,
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    attributes: Attributes | None = None,
) -> Iterator[Span]:
    """A span around a block, child of `traceparent` or of the current span."""
    if _provider is None:
        yield INVALID_SPAN
        return
    parent = _context(traceparent) if traceparent else None
    tracer = _provider.get_tracer(_TRACER)
    with tracer.start_as_current_span(name, parent, kind=kind, attributes=attributes) as span:
        yield span


def annotate_span(attributes: Attributes) -> None:
    """Say more about the current span, if there is one."""
    trace.get_current_span().set_attributes(attributes)


def record_span(
    name: str,
    traceparent: str | None,
    started: datetime,
    ended: datetime,
    attributes: Attributes | None = None,
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    own: str | None = None,
    linked: str | None = None,
    status: StatusCode = StatusCode.UNSET,
    message: str | None = None,
) -> None:
    """A span of something that is over, such as a task that ran elsewhere.

    Args:
        name: the span's name.
        traceparent: its parent; the current span, if not given.
        started: when it began.
        ended: when it ended, by another machine's clock perhaps.
        attributes: what else is known.
        kind: the span's kind.
        own: the context of the span itself, where that is known beforehand.
        linked: the context of a span to which this one has to do.
        status: how it ended.
        message: what went wrong.
    """
    if _provider is None:
        return
    parent = _context(traceparent) if traceparent else context.get_current()
    token = _own_span_id.set(_span_id(own)) if own else None
    try:
        span = _provider.get_tracer(_TRACER).start_span(
            name,
            parent,
            kind=kind,
            attributes=attributes,
            links=_links(linked),
            start_time=_nanoseconds(started),
        )
    finally:
        if token is not None:
            _own_span_id.reset(token)
    if status is not StatusCode.UNSET:
        span.set_status(Status(status, message if status is StatusCode.ERROR else None))
    span.end(_nanoseconds(max(started, ended)))


def message_attributes(
    operation: str,
    event: str,
    subject: str,
    headers: Mapping[str, str],
    *,
    task: str | None = None,
) -> dict[str, str | int]:
    """What a span says about an event that is created or processed.

    Args:
        operation: `create` or `process`.
        event: the event's type.
        subject: where it travels.
        headers: its CloudEvents headers.
        task: the task that it is about, if it is about one.
    """
    attributes: dict[str, str | int] = {
        "messaging.system": "nats",
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        "messaging.destination.name": subject,
        "messaging.destination.template": event,
    }
    for name, header in (("messaging.message.id", "ce-id"), ("cairn.workflow", "ce-subject")):
        if value := headers.get(header):
            attributes[name] = value
    if task is not None:
        attributes["cairn.task"] = task
    return attributes


def _context(traceparent: str) -> context.Context:
    # Into an empty context: what is no traceparent must not become a child of the current span.
    return _W3C.extract({"traceparent": traceparent}, context.Context())


def _span_id(traceparent: str) -> int | None:
    return trace.get_current_span(_context(traceparent)).get_span_context().span_id or None


def _links(traceparent: str | None) -> list[Link]:
    if traceparent is None:
        return []
    linked = trace.get_current_span(_context(traceparent)).get_span_context()
    return [Link(linked)] if linked.is_valid else []


def _nanoseconds(moment: datetime) -> int:
    return int(moment.timestamp() * _MICROSECONDS) * 1000
