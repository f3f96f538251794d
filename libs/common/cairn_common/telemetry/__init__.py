"""Structured logs and traces, set up once by each service."""

from cairn_common.telemetry.logs import configure_logs
from cairn_common.telemetry.tracing import (
    configure_tracing,
    current_traceparent,
    new_traceparent,
    record_span,
    shutdown_tracing,
    start_span,
)

__all__ = [
    "configure_logs",
    "configure_tracing",
    "current_traceparent",
    "new_traceparent",
    "record_span",
    "shutdown_tracing",
    "start_span",
]
