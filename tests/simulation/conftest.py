"""Options that choose which stories are told."""

from __future__ import annotations

import pytest

BLOCKS = 8
"""So many tests share the seeds, each some of them, so that workers can share the work."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`seeds` is one that was asked for, or each block of so many."""
    if "seeds" not in metafunc.fixturenames:
        return
    chosen: int | None = metafunc.config.getoption("--seed")
    if chosen is not None:
        blocks = [range(chosen, chosen + 1)]
    else:
        blocks = [range(n, metafunc.config.getoption("--seeds"), BLOCKS) for n in range(BLOCKS)]
    metafunc.parametrize("seeds", blocks, ids=[f"from-{block.start}" for block in blocks])
