"""Options of the whole test run."""

from __future__ import annotations

from pathlib import Path

import pytest
import structlog

_KUBERNETES = Path(__file__).parent / "kubernetes"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Simulation: `--seeds N` tells more stories, `--seed N` tells one again."""
    parser.addoption("--seeds", type=int, default=2000, help="how many simulated stories to tell")
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


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """The tests on Kubernetes need Go and minutes: they run only when they are named."""
    if collection_path != _KUBERNETES:
        return None
    named = (Path(argument.partition("::")[0]).absolute() for argument in config.args)
    return None if any(path.is_relative_to(_KUBERNETES) for path in named) else True
