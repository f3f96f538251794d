"""`cairn workflow ...`: the commands are in the modules of their subject."""

from __future__ import annotations

import typer

from cairn_client.cli import acting, reading, sending

app = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    add_completion=False,
    help="Submit, watch and cancel workflows.",
)

for command in (
    sending.submit,
    sending.restart,
    sending.validate,
    reading.list_,
    reading.query,
    sending.follow,
    reading.logs,
    acting.cancel,
    reading.spec,
    reading.events,
    acting.tag,
):
    app.command(command.__name__.rstrip("_"))(command)
