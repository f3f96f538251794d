"""Keeps workflows running: submits as many as end, cancels those that are to be canceled.

A submission that was acknowledged must run. One that got no answer may have been taken or not; it
is found again by its label, and what was taken must run, too.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import asyncpg
import httpx

from .shapes import Plan, Shapes
from .system import System

LABEL = "chaos-key"
AWAY = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError)
"""Errors of a database that does not answer now."""
_MOST_A_SECOND = 12


@dataclass(slots=True)
class Sent:
    """A submission. `workflow` is its id if it was acknowledged; times in monotonic seconds."""

    key: str
    plan: Plan
    at: float
    workflow: str | None = None
    canceled_at: float | None = None


class Load:
    """Sends workflows.

    Args:
        system: where to.
        shapes: draws them.
        workflows: how many are to be under way at any time.
    """

    def __init__(self, system: System, shapes: Shapes, workflows: int) -> None:
        self._system = system
        self._shapes = shapes
        self._workflows = workflows
        # So many more that there are enough while nothing can be sent: an API that is paused.
        self._target = workflows + max(5, workflows // 4)
        self._numbers = itertools.count(1)
        self._cancels: set[asyncio.Task[None]] = set()
        self.sent: list[Sent] = []
        self.ended: set[str] = set()
        self.least: int | None = None
        """The fewest workflows that were under way, once all had been sent for the first time."""

    @property
    def under_way(self) -> int:
        """How many workflows are acknowledged and not known to have ended."""
        return sum(
            sent.workflow is not None and sent.workflow not in self.ended for sent in self.sent
        )

    async def run(self) -> None:
        """Send until canceled; cancellations that were asked for still go out."""
        async with self._system.client() as client:
            counting = asyncio.create_task(self._count())
            try:
                while True:
                    await asyncio.sleep(1 / _MOST_A_SECOND)
                    if self.under_way < self._target:
                        await self.submit(client, self._shapes.draw())
            finally:
                counting.cancel()

    async def finish(self) -> None:
        """Returns once every cancellation was taken.

        What was taken although nobody heard so, the end of the load included, is canceled now.
        """
        by_key = await self._taken()
        for sent in self.sent:
            if sent.workflow is None and sent.plan.cancel_after is not None:
                sent.workflow = by_key.get(sent.key)
                if sent.workflow is not None:
                    self._cancels.add(asyncio.create_task(self._cancel(sent, 0.0)))
        await asyncio.gather(*self._cancels)

    async def _taken(self) -> dict[str, str]:
        """The workflow of each key that was taken."""
        while True:
            try:
                async with asyncio.timeout(5), self._system.database() as database:
                    return await submissions(database)
            except AWAY:
                await asyncio.sleep(1.0)

    async def submit(self, client: httpx.AsyncClient, plan: Plan, priority: str = "NORMAL") -> Sent:
        """Send one workflow, once; `workflow` of the result is None if nobody answered."""
        sent = Sent(f"k{next(self._numbers)}", plan, time.monotonic())
        self.sent.append(sent)
        try:
            answer = await client.post(
                "/api/pool/default/workflow",
                json={"file": plan.text},
                params={"label": f"{LABEL}={sent.key}", "priority": priority},
            )
        except httpx.HTTPError:
            return sent
        if answer.status_code == 200:
            sent.workflow = answer.json()["name"]
            if plan.cancel_after is not None:
                self._cancels.add(asyncio.create_task(self._cancel(sent, plan.cancel_after)))
        elif answer.status_code < 500:
            raise RuntimeError(f"{plan.shape} was refused: {answer.text}")
        return sent

    async def _cancel(self, sent: Sent, after: float) -> None:
        """Ask for it until the request is acknowledged: from then on it must be canceled."""
        await asyncio.sleep(after)
        force = "true" if sent.at % 1 < 0.3 else "false"
        async with self._system.client() as client:
            while True:
                try:
                    answer = await client.post(
                        f"/api/workflow/{sent.workflow}/cancel", params={"force": force}
                    )
                except httpx.HTTPError:
                    await asyncio.sleep(0.5)
                    continue
                # An earlier request, of which we heard no answer, may have done it already.
                if answer.status_code == 200 or "already finished" in answer.text:
                    sent.canceled_at = time.monotonic()
                    return
                await asyncio.sleep(0.5)

    async def _count(self) -> None:
        """Learn which workflows have ended, and keep the lowest number of those that have not."""
        reached = False
        while True:
            await asyncio.sleep(0.5)
            try:
                self.ended = await ended(self._system)
            except AWAY:
                continue
            now = self.under_way
            reached = reached or now >= self._target - 2
            if reached:
                self.least = now if self.least is None else min(self.least, now)


async def ended(system: System) -> set[str]:
    """The workflows that have ended, as the engine publishes it."""
    async with asyncio.timeout(5), system.database() as database:
        rows = await database.fetch(
            "SELECT id FROM engine.view_workflow WHERE ended_at IS NOT NULL"
        )
    return {row["id"] for row in rows}


async def submissions(database: asyncpg.Connection[Any]) -> dict[str, str]:
    """The workflow of each key, as the API publishes it."""
    rows = await database.fetch(
        "SELECT workflow, labels ->> $1 AS key FROM api.view_submission", LABEL
    )
    return {row["key"]: row["workflow"] for row in rows}


async def until(true: Callable[[], bool], seconds: float) -> bool:
    """Wait for something to become true, at most so long."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.2)
    return True
