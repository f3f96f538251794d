"""From the command line's options to a client."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from cairn_client.client import Client


def connect(ctx: typer.Context, timeout: float = 60.0) -> Client:
    """A client for the options before the command.

    Raises:
        ConnectionFailed: no address is known.
    """
    _import_httpx_alone()
    from cairn_client.client import Client

    options = ctx.find_root().params
    return Client(options.get("url"), options.get("user"), timeout)


def _import_httpx_alone() -> None:
    """Import httpx without the command line program in it.

    That program brings a syntax highlighter and more, twice the time of all the rest. httpx itself
    does without it where it is not installed; for the moment of the import it is not.
    """
    program = "httpx._main"
    if "httpx" in sys.modules:
        return
    sys.modules[program] = None  # type: ignore[assignment]
    try:
        import httpx  # noqa: F401
    finally:
        del sys.modules[program]
