"""`cairn up`, `cairn down` and `cairn status`.

Exit codes: 0 it is as asked; 1 it is not, and standard error says why; 3 (`status` only) nothing
runs. `cairn up` where Cairn runs already is no mistake: it says where, and exits with 0.

Every `cairn` command loads this module, so what only one of them needs is imported late.
"""

from __future__ import annotations

import json
import signal
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from cairn_standalone import state
from cairn_standalone.home import Busy, Home, default_home

NOT_RUNNING = 3
_OTHER_PATIENCE = 90.0
"""Seconds to wait for another `cairn up` or `cairn down` on the same home."""
_FIRST_WORD_PATIENCE = 15.0
"""Seconds for a supervisor that has just begun to say who it is; it may wait for strays first."""
_STOP_PATIENCE = 75.0
"""Seconds for a supervisor to stop everything: more than all grace periods in a row."""


class Format(StrEnum):
    """How a result is written."""

    TEXT = "text"
    JSON = "json"


HomeOption = Annotated[
    Path | None,
    typer.Option("--home", help="Where all data lies [default: $CAIRN_HOME or ~/.cairn]"),
]
FormatOption = Annotated[Format, typer.Option("--format-type", "-t", help="Form of the result.")]


def register(app: typer.Typer) -> None:
    """Add the commands of standalone mode to the command line."""
    app.command("up")(up)
    app.command("down")(down)
    app.command("status")(status)


def up(
    home: HomeOption = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=65535,
            help="Port of the API on 127.0.0.1 [default: the last one, or a free one]",
        ),
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show the logs of all parts.")
    ] = False,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return when it is ready; it runs on.")
    ] = False,
    nats_monitor_port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Serve NATS's own monitoring on this port."),
    ] = None,
    engines: Annotated[
        int, typer.Option(min=1, max=16, help="How many engines share the work.")
    ] = 1,
    report_fd: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Start Cairn on this machine.

    Runs until Ctrl-C or `cairn down`. If it already runs, says where.
    """
    from cairn_standalone import start
    from cairn_standalone.parts import services
    from cairn_standalone.supervisor import Settings

    place = Home(home or default_home())
    deadline = time.monotonic() + _OTHER_PATIENCE
    while True:
        other = _other(place, deadline)
        if other is not None:
            raise typer.Exit(_already(other, port))
        settings = Settings(place, port, nats_monitor_port, services(engines))
        try:
            if detach:
                code = start.detached(settings)
            else:
                code = start.in_foreground(settings, verbose=verbose, report_fd=report_fd)
        except Busy:
            continue  # somebody was faster: see what they do
        raise typer.Exit(code)


def down(home: HomeOption = None) -> None:
    """Stop Cairn on this machine and wait until nothing of it is left."""
    place = Home(home or default_home())
    deadline = time.monotonic() + _FIRST_WORD_PATIENCE
    while (found := state.running(place)) is None and place.is_locked():
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    if found is None:
        killed = state.load(place)
        strays = state.end_strays(place, 10.0)
        place.remove_stale_sockets(killed.sockets if killed else None)
        typer.echo("Cairn was killed; its rest is gone now" if strays else "Cairn is not running")
        return
    found.supervisor.send(signal.SIGTERM)
    if not found.supervisor.wait(_STOP_PATIENCE):
        typer.echo(f"The supervisor (pid {found.supervisor.pid}) hangs; it is killed", err=True)
        found = state.load(place) or found
        state.end([found.supervisor], 0.0)
    state.end([part.process for part in found.parts if part.process], 10.0)
    place.remove_stale_sockets(found.sockets)
    typer.echo("Cairn has stopped")


def status(home: HomeOption = None, format_type: FormatOption = Format.TEXT) -> None:
    """Show the parts of Cairn on this machine.

    Exit code 0: all are ready; 1: not all are; 3: Cairn is not running.
    """
    found = state.running(Home(home or default_home()))
    if found is None:
        if format_type is Format.JSON:
            nothing: dict[str, Any] = dict.fromkeys(("url", "pid", "uptime"))
            typer.echo(json.dumps({"phase": "stopped", **nothing, "parts": []}))
        else:
            typer.echo("Cairn is not running")
        raise typer.Exit(NOT_RUNNING)
    facts = found.for_people(time.time())
    if format_type is Format.JSON:
        typer.echo(json.dumps(facts))
    else:
        _print_status(facts)
    if found.phase != "ready":
        raise typer.Exit(1)


def _print_status(facts: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    console.print(f"Cairn at {facts['url']} is {facts['phase']} (pid {facts['pid']})")
    table = Table(box=None, pad_edge=False)
    table.add_column("name")
    table.add_column("phase")
    for column in ("pid", "uptime", "restarts"):
        table.add_column(column, justify="right")
    table.add_column("last exit")
    for part in facts["parts"]:
        table.add_row(
            part["name"],
            part["phase"],
            str(part["pid"] or "-"),
            _duration(part["uptime"]),
            str(part["restarts"]),
            part["last_exit"] or "",
        )
    console.print(table)


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def _other(home: Home, deadline: float) -> state.State | None:
    """Another supervisor of this home, when it is ready; None: there is none.

    One that starts is waited for, as is one that stops.
    """
    while home.is_locked():
        found = state.running(home)
        if found is not None and found.phase in {"ready", "degraded"}:
            return found
        if time.monotonic() > deadline:
            pid = f" (pid {found.supervisor.pid})" if found else ""
            typer.echo(f"Another `cairn up`{pid} holds {home.root}, but is not ready", err=True)
            raise typer.Exit(1)
        time.sleep(0.05)
    return None


def _already(other: state.State, port: int | None) -> int:
    typer.echo(f"Cairn is already running at {other.url} (pid {other.supervisor.pid})")
    if port is None or other.url.endswith(f":{port}"):
        return 0
    typer.echo(f"`cairn down` first, to start it at port {port}", err=True)
    return 1
