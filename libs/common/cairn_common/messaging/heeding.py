"""Requests that heed a cancellation.

The client of nats-py waits for an answer with `asyncio.wait_for`. On Python 3.11 that returns the
answer, as if nothing had been, when the task is cancelled in the moment in which the answer comes
(https://github.com/python/cpython/issues/86296). Who is cancelled once then works on for ever, and
whoever awaits its end hangs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from nats.aio.client import Client

P = ParamSpec("P")
T = TypeVar("T")


def heeding(ask: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """`ask`, but an answer to a task that was cancelled meanwhile is no answer."""

    @wraps(ask)
    async def asked(*args: P.args, **kwargs: P.kwargs) -> T:
        task = asyncio.current_task()
        assert task is not None
        # Who cleans up after a cancellation may still ask: only a new one counts.
        before = task.cancelling()
        answer = await ask(*args, **kwargs)
        if task.cancelling() > before:
            raise asyncio.CancelledError
        return answer

    return asked


def heed_cancellation(client: Client) -> None:
    """Every request through this connection, those of its JetStream too, heeds a cancellation."""
    client.request = heeding(client.request)  # type: ignore[method-assign]
