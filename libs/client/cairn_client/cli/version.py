"""`cairn version`."""

from __future__ import annotations

from typing import Any

import typer

from cairn_client import __version__
from cairn_client.address import find
from cairn_client.cli.connect import connect
from cairn_client.cli.output import Format, FormatOption, note, say, say_json
from cairn_client.errors import CairnError, ConnectionFailed

_SECONDS = 5.0

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def version(ctx: typer.Context, format_type: FormatOption = Format.TEXT) -> None:
    """Show the versions of this client and of the server.

    The exit code is 0 also when no server answers: what was asked is known.
    """
    answer: dict[str, Any] = {"client": __version__, "url": None, "server": None}
    trouble = ""
    if format_type is Format.TEXT:
        say(f"client {__version__}")
    try:
        # Without an address there is no need for the HTTP library.
        answer["url"] = find(ctx.find_root().params.get("url")).url
        with connect(ctx, _SECONDS) as cairn:
            server = cairn.version()
        answer["server"] = dict(server.raw)
        if format_type is Format.TEXT:
            say(f"server {server.hash or '-'} (contract {server}) at {cairn.url}")
    except CairnError as error:
        trouble = error.reason if isinstance(error, ConnectionFailed) else str(error)
    if format_type is Format.JSON:
        say_json(answer)
    if trouble:
        note(f"server unknown: {trouble}")
