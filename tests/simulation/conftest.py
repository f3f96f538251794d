"""Options that choose which stories are told."""

from __future__ import annotations

import pytest


@pytest.fixture
def seeds(request: pytest.FixtureRequest) -> range:
    """The seeds to tell: one that was asked for, or the first so many."""
    chosen = request.config.getoption("--seed")
    if chosen is not None:
        return range(chosen, chosen + 1)
    return range(request.config.getoption("--seeds"))
