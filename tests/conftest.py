"""Options of the whole test run."""

from __future__ import annotations

import pytest
import structlog


def pytest_addoption(parser: pytest.Parser) -> None:
    """Simulation: `--seeds N` tells more stories, `--seed N` tells one again."""
    parser.addoption("--seeds", type=int, default=1000, help="how many simulated stories to tell")
    parser.addoption("--seed", type=int, default=None, help="tell this story again")


def pytest_configure(config: pytest.Config) -> None:
    """Tracebacks in logs without local variables: a message of megabytes would take seconds."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
        ]
    )
