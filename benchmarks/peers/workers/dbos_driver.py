"""DBOS: workflows and steps in one process, their state in PostgreSQL.

python dbos_driver.py DATABASE_URL WORK
"""

from __future__ import annotations

import asyncio
import sys

from dbos import DBOS
from work import TASKS_OF_A_CHAIN, WIDTH, Work, measure


@DBOS.step()
async def noop() -> None:
    """A step that does nothing; DBOS stores that it has ended."""


@DBOS.workflow()
async def chain() -> None:
    """Steps one after the other."""
    for _ in range(TASKS_OF_A_CHAIN):
        await noop()


@DBOS.workflow()
async def fan() -> None:
    """One step, then many beside each other."""
    await noop()
    await asyncio.gather(*(noop() for _ in range(WIDTH)))


async def run_chain() -> None:
    """Start a chain and wait for its end."""
    await (await DBOS.start_workflow_async(chain)).get_result()


async def run_fan() -> None:
    """Start a fan-out and wait for its end."""
    await (await DBOS.start_workflow_async(fan)).get_result()


async def main() -> None:
    """Measure."""
    DBOS(
        config={
            "name": "benchmark",
            "system_database_url": sys.argv[1],
            "run_admin_server": False,
            "log_level": "WARNING",
        }
    )
    DBOS.launch()
    try:
        (await measure(Work.from_arguments(), run_chain, run_fan)).tell()
    finally:
        DBOS.destroy()


if __name__ == "__main__":
    asyncio.run(main())
