"""Options of the whole test run."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Simulation: `--seeds N` tells more stories, `--seed N` tells one again."""
    parser.addoption("--seeds", type=int, default=1000, help="how many simulated stories to tell")
    parser.addoption("--seed", type=int, default=None, help="tell this story again")
