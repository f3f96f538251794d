"""`cairn workflow submit`, `restart`, `validate` and `follow`."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cairn_client.cli import failures
from cairn_client.cli.completion import WorkflowArgument
from cairn_client.cli.connect import connect
from cairn_client.cli.output import (
    Format,
    FormatOption,
    Style,
    note,
    paint,
    say,
    say_json,
    warn,
)
from cairn_client.cli.values import pairs
from cairn_client.errors import CairnError, SubmissionError

if TYPE_CHECKING:
    from cairn_client.client import Client
    from cairn_client.models import Submission


class Priority(StrEnum):
    """HIGH and NORMAL are not preempted; LOW may borrow what is free."""

    HIGH = "HIGH"
    NORMAL = "NORMAL"
    LOW = "LOW"


_Source = tuple[str, Path, str]
"""A workflow file's text, the folder its local paths start in, and its name in messages."""

FileArgument = Annotated[
    str, typer.Argument(metavar="FILE", help="The workflow file; - reads standard input.")
]
PoolOption = Annotated[
    str | None, typer.Option("--pool", "-p", help="Where it runs [default: your own pool].")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Fill in a template; numbers are numbers."),
]
SetStringOption = Annotated[
    list[str] | None,
    typer.Option("--set-string", metavar="KEY=VALUE", help="Fill in a template with text."),
]
SetEnvOption = Annotated[
    list[str] | None,
    typer.Option("--set-env", metavar="KEY=VALUE", help="Set a variable in every task."),
]
PriorityOption = Annotated[
    Priority | None, typer.Option("--priority", case_sensitive=False, help="NORMAL by default.")
]
LabelOption = Annotated[
    list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="Label the workflow.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print only what a script needs.")]


def submit(
    ctx: typer.Context,
    file: FileArgument,
    pool: PoolOption = None,
    set_: SetOption = None,
    set_string: SetStringOption = None,
    set_env: SetEnvOption = None,
    priority: PriorityOption = None,
    label: LabelOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print the file with its templates filled in.")
    ] = False,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Watch it to its end, and exit as it ends.")
    ] = False,
    quiet: QuietOption = False,
    format_type: FormatOption = Format.TEXT,
) -> None:
    """Submit a workflow.

    With --follow the exit code is 0 if the workflow completes and 1 if it does not; Ctrl-C stops
    watching, not the workflow.
    """
    options = _options(pool, set_, set_string, set_env, priority, label)
    source = _read(file)
    with connect(ctx) as cairn:
        sent = _send(cairn, source, {**options, "dry_run": dry_run})
        if dry_run:
            warn(sent.warnings)
            _say_dry_run(sent, format_type)
            return
        _tell(cairn, sent, format_type, quiet=quiet, follow=follow)


def restart(
    ctx: typer.Context,
    workflow: WorkflowArgument,
    pool: Annotated[
        str | None, typer.Option("--pool", "-p", help="Where it runs [default: where it ran].")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Watch it to its end, and exit as it ends.")
    ] = False,
    quiet: QuietOption = False,
    format_type: FormatOption = Format.TEXT,
) -> None:
    """Run what did not complete of an ended workflow, as a new workflow.

    What completed is taken over with its outputs.
    """
    with connect(ctx) as cairn:
        sent = cairn.restart(workflow, pool=pool)
        _tell(cairn, sent, format_type, quiet=quiet, follow=follow)


def _tell(
    cairn: Client, sent: Submission, format_type: Format, *, quiet: bool, follow: bool
) -> None:
    """Say that a workflow is submitted, and how it goes on if that is wanted."""
    if format_type is Format.TEXT:
        warn(sent.warnings)
        _say_sent(sent, quiet=quiet, follow=follow)
    if follow:
        _follow(cairn, sent.name, format_type, quiet=quiet, about=dict(_json(sent)))
    elif format_type is Format.JSON:
        say_json(_json(sent))


def validate(
    ctx: typer.Context,
    file: FileArgument,
    pool: PoolOption = None,
    set_: SetOption = None,
    set_string: SetStringOption = None,
    set_env: SetEnvOption = None,
    priority: PriorityOption = None,
    label: LabelOption = None,
    format_type: FormatOption = Format.TEXT,
) -> None:
    """Check a workflow file without running it."""
    options = _options(pool, set_, set_string, set_env, priority, label)
    source = _read(file)
    with connect(ctx) as cairn:
        checked = _send(cairn, source, {**options, "validation_only": True})
    if format_type is Format.JSON:
        say_json(_json(checked))
        return
    warn(checked.warnings)
    say(paint(checked.logs or "Workflow validation succeeded.", Style.GOOD))


def follow(
    ctx: typer.Context,
    workflow: WorkflowArgument,
    quiet: QuietOption = False,
    format_type: FormatOption = Format.TEXT,
) -> None:
    """Watch a workflow to its end, and exit as it ends.

    The exit code is 0 if it completes and 1 if it does not; Ctrl-C stops watching only.
    """
    with connect(ctx) as cairn:
        _follow(cairn, workflow, format_type, quiet=quiet, about={"name": workflow})


def _follow(
    cairn: Client, workflow: str, format_type: Format, *, quiet: bool, about: dict[str, Any]
) -> None:
    from cairn_client.cli.follow import follow_to_end

    snapshot = follow_to_end(cairn, workflow, quiet=quiet, as_json=format_type is Format.JSON)
    if format_type is Format.JSON:
        say_json({**about, **(snapshot.raw if snapshot else {}), "name": workflow})
    if snapshot is None or not snapshot.final:
        raise typer.Exit(failures.INTERRUPTED)
    if not snapshot.succeeded:
        raise typer.Exit(failures.FAILED)


def _options(
    pool: str | None,
    set_: list[str] | None,
    set_string: list[str] | None,
    set_env: list[str] | None,
    priority: Priority | None,
    label: list[str] | None,
) -> dict[str, Any]:
    return {
        "pool": pool,
        "set_variables": pairs(set_, "--set"),
        "set_string_variables": pairs(set_string, "--set-string"),
        "env_vars": pairs(set_env, "--set-env"),
        "priority": priority.value if priority else None,
        "labels": pairs(label, "--label"),
    }


def _send(cairn: Client, source: _Source, options: dict[str, Any]) -> Submission:
    text, folder, name = source
    try:
        return cairn.submit(text, base_dir=folder, file=name, **options)
    except SubmissionError as error:
        # The server does not know what the file is called here.
        failures.show(error, name)
        raise typer.Exit(failures.exit_code(error)) from error


def _read(file: str) -> _Source:
    try:
        if file == "-":
            return sys.stdin.buffer.read().decode(), Path.cwd(), "<standard input>"
        return Path(file).read_bytes().decode(), Path(file).parent.absolute(), file
    except OSError as error:
        raise CairnError(f"{file} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise CairnError(f"{file} is not UTF-8 text (byte {error.start}).") from error


def _say_dry_run(sent: Submission, format_type: Format) -> None:
    if format_type is Format.JSON:
        say_json(_json(sent))
    else:
        sys.stdout.write(sent.spec or "")
        sys.stdout.flush()


def _say_sent(sent: Submission, *, quiet: bool, follow: bool) -> None:
    if quiet:
        say(sent.name)
        return
    say(f"Workflow {paint(sent.name, Style.STRONG)} is submitted.")
    if sent.overview:
        say(f"  Overview: {sent.overview}")
    if sent.dashboard_url:
        say(f"  Dashboard: {sent.dashboard_url}")
    if not follow and sys.stderr.isatty():
        note(f"  Watch it: cairn follow {sent.name}\n  Its logs: cairn logs {sent.name}")


def _json(sent: Submission) -> dict[str, Any]:
    return {
        "name": sent.name,
        "overview": sent.overview,
        "logs": sent.logs,
        "spec": sent.spec,
        "dashboard_url": sent.dashboard_url,
        "warnings": list(sent.warnings),
    }
