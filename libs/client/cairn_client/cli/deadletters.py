"""`cairn dead-letters`: messages that no service could handle."""

from __future__ import annotations

from typing import Annotated

import typer

from cairn_client.cli import failures
from cairn_client.cli.connect import connect
from cairn_client.cli.output import Format, FormatOption, clean, note, say, say_json, table
from cairn_client.cli.values import local
from cairn_client.errors import ApiError

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, add_completion=False)

NumbersArgument = Annotated[list[int], typer.Argument(metavar="ID...", help="Their numbers.")]


@app.callback()
def dead_letters() -> None:
    """Look at messages that no service could handle, send them again or drop them."""


@app.command("list")
def list_(
    ctx: typer.Context,
    count: Annotated[
        int, typer.Option("--count", "-c", min=1, max=1000, help="How many, the newest.")
    ] = 20,
    before: Annotated[
        int | None, typer.Option("--before", min=1, metavar="ID", help="Older than this one.")
    ] = None,
    format_type: FormatOption = Format.TEXT,
) -> None:
    """List them, the newest last."""
    with connect(ctx) as cairn:
        page = cairn.dead_letters(limit=count, before=before)
    if format_type is Format.JSON:
        say_json(page.raw)
        return
    if not page.dead_letters:
        note("There are no dead letters.")
        return
    table(
        ("ID", "TIME", "SERVICE", "BYTES", "SUBJECT", "REASON"),
        [
            (
                str(letter.id),
                local(letter.time),
                clean(letter.service),
                str(letter.size),
                clean(letter.subject),
                clean(letter.reason),
            )
            for letter in page.dead_letters
        ],
        right=(0, 3),
    )
    if page.more_entries:
        note(f"There are more: --before {page.dead_letters[0].id}")


@app.command()
def show(
    ctx: typer.Context,
    number: Annotated[int, typer.Argument(metavar="ID", help="Its number.")],
    format_type: FormatOption = Format.TEXT,
) -> None:
    """Show one with its headers and its body."""
    with connect(ctx) as cairn:
        letter = cairn.dead_letter(number)
    if format_type is Format.JSON:
        say_json(letter.raw)
        return
    facts = {
        "Subject": letter.subject,
        "Service": letter.service,
        "Time": local(letter.time),
        "Reason": letter.reason,
        **letter.headers,
    }
    for name, value in facts.items():
        say(f"{clean(name)}: {clean(value)}")
    say("")
    say("\n".join(clean(line) for line in letter.body.splitlines()))
    if letter.base64:
        note("The body is no text; this is its base64.")
    if not letter.complete:
        note(f"Only the beginning of its {letter.size} bytes was kept.")


@app.command()
def replay(ctx: typer.Context, numbers: NumbersArgument) -> None:
    """Send them once more to where they were sent, and drop them."""
    _each(ctx, numbers, "replay_dead_letter", "is sent again")


@app.command()
def drop(ctx: typer.Context, numbers: NumbersArgument) -> None:
    """Remove them for good."""
    _each(ctx, numbers, "drop_dead_letter", "is dropped")


def _each(ctx: typer.Context, numbers: list[int], method: str, done: str) -> None:
    """Do it to each; if one is refused, the others are done, and the exit code tells of it."""
    code = 0
    with connect(ctx) as cairn:
        for number in numbers:
            try:
                getattr(cairn, method)(number)
            except ApiError as error:
                failures.show(error)
                code = max(code, failures.exit_code(error))
                continue
            say(f"Dead letter {number} {done}.")
    if code:
        raise typer.Exit(code)
