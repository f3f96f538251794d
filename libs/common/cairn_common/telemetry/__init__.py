"""Structured logs and traces, set up once by each service."""

from cairn_common.telemetry.logs import configure_logs
from cairn_common.telemetry.messages import MessageSpans
from cairn_common.telemetry.tracing import (
    annotate_span,
    attempt_traceparent,
    configure_tracing,
    current_traceparent,
    message_attributes,
    new_traceparent,
    record_span,
    shutdown_tracing,
    start_span,
    tracing_enabled,
    workflow_traceparent,
)

__all__ = [
    "MessageSpans",
    "annotate_span",
    "attempt_traceparent",
    "configure_logs",
    "configure_tracing",
    "current_traceparent",
    "message_attributes",
    "new_traceparent",
    "record_span",
    "shutdown_tracing",
    "start_span",
    "tracing_enabled",
    "workflow_traceparent",
]
