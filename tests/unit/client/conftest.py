"""Fixtures of the client's tests: a fake server, a client of it, and the command line."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from cairn_client import Client
from cairn_client import client as client_module
from cairn_client.cli.app import app
from unit.client.fake_cairn import URL, FakeCairn, Ran


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.delenv("CAIRN_URL", raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("CAIRN_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def server() -> FakeCairn:
    return FakeCairn()


@pytest.fixture
def cairn(server: FakeCairn) -> Iterator[Client]:
    with Client(URL, transport=httpx.MockTransport(server)) as client:
        yield client


@pytest.fixture
def run(server: FakeCairn, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    """Runs `cairn ...` against the fake."""
    transport = httpx.MockTransport(server)
    monkeypatch.setattr(client_module, "Client", functools.partial(Client, transport=transport))

    def run(*args: str, url: str | None = URL, input: str | None = None) -> Ran:  # noqa: A002
        before = ["--url", url] if url else []
        result = CliRunner().invoke(app, [*before, *args], input=input)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Ran(result.exit_code, result.stdout, result.stderr, result.stdout_bytes)

    return run
