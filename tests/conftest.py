"""Options of the whole test run."""

from __future__ import annotations

from pathlib import Path

import pytest

_KUBERNETES = Path(__file__).parent / "kubernetes"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Simulation: `--seeds N` tells more stories, `--seed N` tells one again."""
    parser.addoption("--seeds", type=int, default=1000, help="how many simulated stories to tell")
    parser.addoption("--seed", type=int, default=None, help="tell this story again")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """The tests on Kubernetes need Go and minutes: they run only when they are named."""
    if collection_path != _KUBERNETES:
        return None
    named = (Path(argument.partition("::")[0]).absolute() for argument in config.args)
    return None if any(path.is_relative_to(_KUBERNETES) for path in named) else True
