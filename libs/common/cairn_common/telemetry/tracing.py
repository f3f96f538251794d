"""Traces: one trace a workflow, from the HTTP request through every event to the task and back.

The context travels as a W3C `traceparent` string: in the headers of every event, in the rows of
the engine, in the environment of the task. That costs nothing and needs no exporter. Spans are
made only where an exporter is configured. Source: W3C Trace Context; OpenTelemetry messaging
conventions for the attribute names.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime

from opentelemetry import context, propagate, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Span, SpanKind

_TRACER = "cairn"
_NANOSECONDS = 1_000_000_000


def configure_tracing(
    service: str, endpoint: str | None, *, exporter: SpanExporter | None = None
) -> TracerProvider | None:
    """Export this process's spans to an OTLP/HTTP `endpoint`, or to `exporter`.

    Returns None, and makes no spans from then on, when neither is given.
    """
    if endpoint:
        exporter = OTLPSpanExporter(endpoint=endpoint)
    if exporter is None:
        return None
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: f"cairn-{service}"}))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return provider


def shutdown_tracing() -> None:
    """Send what has not been sent yet."""
    provider = trace.get_tracer_provider()
    if isinstance(provider, TracerProvider):
        provider.shutdown()


def new_traceparent() -> str:
    """A fresh, sampled trace context for a workflow that arrives without one."""
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"


def current_traceparent() -> str | None:
    """The trace context of the span that is current in this task, if there is one."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier.get("traceparent")


@contextmanager
def start_span(
    name: str,
    traceparent: str | None = None,
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    attributes: Mapping[str, str | int] | None = None,
) -> Iterator[Span]:
    """A span around a block, child of `traceparent` or of the current span."""
    parent = propagate.extract({"traceparent": traceparent}) if traceparent else None
    tracer = trace.get_tracer(_TRACER)
    with tracer.start_as_current_span(name, parent, kind=kind, attributes=attributes) as span:
        yield span


def record_span(
    name: str,
    traceparent: str | None,
    started: datetime,
    ended: datetime,
    attributes: Mapping[str, str | int] | None = None,
) -> None:
    """A span of something that is over, such as a task that ran elsewhere."""
    if not isinstance(trace.get_tracer_provider(), TracerProvider):
        return
    parent = (
        propagate.extract({"traceparent": traceparent}) if traceparent else context.get_current()
    )
    span = trace.get_tracer(_TRACER).start_span(
        name,
        parent,
        attributes=attributes,
        start_time=int(started.timestamp() * _NANOSECONDS),
    )
    span.end(int(ended.timestamp() * _NANOSECONDS))
