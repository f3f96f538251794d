"""`python -m tests.chaos`: see the package. Exit code 0: nothing lost, doubled, stuck or wrong."""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
import tempfile
from pathlib import Path

from .run import Settings, run_chaos
from .system import System


def main() -> int:
    """Run chaos as the arguments say."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=15.0, help="how long faults are injected")
    parser.add_argument("--workflows", type=int, default=200, help="how many are under way")
    parser.add_argument("--seed", type=int, default=None, help="what chance follows from")
    parser.add_argument("--engines", type=int, default=2, help="how many share the partitions")
    parser.add_argument("--only", action="append", help="only faults whose name contains this")
    parser.add_argument("--home", type=Path, default=None, help="an empty folder to work in")
    given = parser.parse_args()
    seed = secrets.randbelow(1_000_000) if given.seed is None else given.seed
    root = given.home or Path(tempfile.mkdtemp(prefix="chaos-"))
    settings = Settings(
        given.minutes, given.workflows, seed, engines=given.engines, only=given.only or ()
    )
    outcome = None
    try:
        outcome = asyncio.run(run_chaos(settings, root, say))
    finally:
        if outcome is not None and outcome.good:
            System(root, given.engines, 1).remove()
        else:
            say(f"the home folder is kept: {root}")
    print(outcome.tables())
    print(outcome.machine())
    return 0 if outcome.good else 1


def say(words: str) -> None:
    """Progress, for whoever waits."""
    print(words, file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
