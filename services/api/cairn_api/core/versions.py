"""The version handshake with the reference's client (CONTRACT A.4).

The version that is told is that of the contract which this API keeps, because it is what the
client compares its own with; our own version stands in `hash`.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from importlib import metadata

from cairn_api.core.errors import ApiError

CONTRACT = (6, 4, 0)
OLDEST_CLIENT = (6, 0, 0)
CONTRACT_TEXT = ".".join(map(str, CONTRACT))
_VERSION = re.compile(r"(\d{1,9})\.(\d{1,9})\.(\d{1,9})(\.\w+)?")


def own_version() -> str:
    """The version of this package."""
    return metadata.version("cairn-api")


@dataclass(frozen=True, slots=True)
class Greeting:
    """Headers for a client of some version."""

    headers: tuple[tuple[str, str], ...] = ()


def greet(client: str | None) -> Greeting:
    """What to tell a client that says its version.

    Raises:
        ApiError: the text is no version, or the client is too old to be served.
    """
    if client is None:
        return Greeting()
    match = _VERSION.fullmatch(client)
    if match is None:
        raise ApiError(
            f"x-osmo-client-version {client[:40]!r} is no version: write 6.4.0", "OSMO_ERROR"
        )
    version = tuple(int(part) for part in match.groups()[:3])
    if version < OLDEST_CLIENT:
        oldest = ".".join(map(str, OLDEST_CLIENT))
        raise ApiError(
            f"Client version {client} is no longer supported; use {oldest} or newer.", "OSMO_ERROR"
        )
    headers = [("x-osmo-service-version", CONTRACT_TEXT)]
    if version < CONTRACT:
        warning = f"Client version {client} is older than {CONTRACT_TEXT}, which this service keeps"
        headers.append(("x-osmo-warning", base64.b64encode(warning.encode()).decode()))
    return Greeting(tuple(headers))
