"""Logs: one line an event, JSON for machines or pretty on a terminal, through structlog.

Libraries that log through `logging` (uvicorn, alembic, FastStream) come out in the same form.
"""

from __future__ import annotations

import logging
import sys
from typing import Literal

import structlog


def configure_logs(
    service: str,
    *,
    form: Literal["auto", "json", "pretty"] = "auto",
    level: str = "info",
) -> None:
    """Send the logs of this process to standard error, each marked with `service`."""
    pretty = sys.stderr.isatty() if form == "auto" else form == "pretty"
    threshold = getattr(logging, level.upper())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        cache_logger_on_first_use=True,
    )
    renderer: list[structlog.typing.Processor] = (
        [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(),
                # Without the values of local variables: they may be somebody's secrets.
                exception_formatter=structlog.dev.plain_traceback,
            )
        ]
        if pretty
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    logging.basicConfig(level=threshold, handlers=[handler], force=True)
    for chatty in ("alembic.runtime.migration", "httpx", "uvicorn.access", "sqlalchemy.engine"):
        logging.getLogger(chatty).setLevel(max(threshold, logging.WARNING))
    structlog.contextvars.bind_contextvars(service=service)
