"""`python -m cairn_standalone`: the commands of this package alone, as `cairn` has them."""

from __future__ import annotations

import typer

from cairn_standalone.commands import register

app = typer.Typer(name="cairn", no_args_is_help=True, pretty_exceptions_enable=False)
register(app)

if __name__ == "__main__":
    app()
