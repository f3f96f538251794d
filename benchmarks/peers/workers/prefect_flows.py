"""What Prefect runs: a chain and a fan-out of tasks that do nothing."""

from __future__ import annotations

import asyncio

from prefect import flow, task
from work import TASKS_OF_A_CHAIN, WIDTH


@task
async def noop() -> None:
    """A task that does nothing."""


@flow
async def chain() -> None:
    """Tasks one after the other."""
    for _ in range(TASKS_OF_A_CHAIN):
        await noop()


@flow
async def fan() -> None:
    """One task, then many beside each other."""
    await noop()
    await asyncio.gather(*(noop() for _ in range(WIDTH)))
