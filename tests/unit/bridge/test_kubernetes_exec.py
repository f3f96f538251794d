"""What an API server says of a program beside a task, as the reader of its exit code takes it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest

from cairn_bridge.drivers.kubernetes.streams import PodExec


class Socket:
    """A WebSocket on which one frame comes."""

    def __init__(self, channel: int, content: Any) -> None:
        self._frame = bytes([channel]) + json.dumps(content).encode()

    async def __aiter__(self) -> AsyncIterator[SimpleNamespace]:
        yield SimpleNamespace(data=self._frame)

    async def close(self) -> None:
        """It has ended already."""


def program(status: dict[str, Any]) -> PodExec:
    """A program whose status has come."""
    return PodExec(cast(aiohttp.ClientWebSocketResponse, Socket(3, status)))


def failure(**cause: str) -> dict[str, Any]:
    """As Kubernetes' `Status` says it."""
    return {"status": "Failure", "message": "no such file", "details": {"causes": [cause]}}


async def test_the_exit_code_is_the_cause_of_that_name() -> None:
    assert await program({"status": "Success"}).wait() == 0
    assert await program(failure(reason="ExitCode", message="42")).wait() == 42


async def test_a_program_that_is_not_there_has_a_cause_without_reason() -> None:
    with pytest.raises(LookupError, match="no such file"):
        await program(failure(message="error executing command")).wait()
