"""Servers that integration tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from servers import Servers, running_servers


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """A real nats-server and a real PostgreSQL."""
    with running_servers(tmp_path_factory.mktemp("servers")) as running:
        yield running
