"""What people see of a start, a restart and a failure.

Standard output gets exactly one line, the URL; all else goes to standard error, so that a script
can take the first and a person sees both. On a terminal the start is a small live table that
goes away when all is ready; elsewhere it is silent.

The table is drawn when something changes and when `refresh` is called, never from a thread of its
own: the supervisor's process stays single-threaded in what matters (see `process.py`).
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cairn_standalone.core import Phase, Process
from cairn_standalone.logs import open_log
from cairn_standalone.supervisor import Failure

_STYLES = {
    Phase.WAITING: ("·", "dim"),
    Phase.STARTING: ("◌", "yellow"),
    Phase.READY: ("●", "green"),
    Phase.BACKING_OFF: ("◌", "red"),
    Phase.STOPPING: ("◌", "yellow"),
    Phase.STOPPED: ("·", "dim"),
    Phase.FAILED: ("✗", "bold red"),
}
_COLOURS = ("cyan", "magenta", "blue", "green", "yellow", "bright_blue", "bright_magenta")


@dataclass(slots=True)
class _Row:
    phase: Phase
    since: float
    start_began: float | None = None
    start_took: float | None = None


def ready_line(url: str) -> str:
    """The one line on standard output."""
    return f"Cairn is ready at {url}"


class Display:
    """A `Watcher` for people. It never raises for a terminal that has gone away."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._rows: dict[str, _Row] = {}
        self._colours: dict[str, str] = {}
        self._live: Live | None = None
        self.complained = False
        """Whether it has said why something does not work."""
        if self._console.is_terminal and not quiet:
            self._live = Live(
                console=self._console,
                auto_refresh=False,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()

    def changed(self, processes: Sequence[Process], now: float) -> None:
        self.show([(p.rule.name, p.phase, p.since) for p in processes])

    def show(self, parts: Sequence[tuple[str, Phase, float]]) -> None:
        """Take in the parts' phases and since when (seconds of `time.monotonic`)."""
        for name, phase, since in parts:
            row = self._rows.setdefault(name, _Row(phase, since))
            row.phase, row.since = phase, since
            if phase is Phase.STARTING and row.start_began is None:
                row.start_began = since
            if phase is Phase.READY and row.start_began is not None and row.start_took is None:
                row.start_took = since - row.start_began
        self.refresh()

    def refresh(self) -> None:
        """Draw the table again, with the time that it is now."""
        if self._live is None:
            return
        table = Table.grid(padding=(0, 2))
        for name, row in self._rows.items():
            sign, style = _STYLES[row.phase]
            seconds = row.start_took
            if row.phase is Phase.STARTING:
                seconds = time.monotonic() - row.since
            table.add_row(
                Text(sign, style),
                name,
                Text(row.phase, style),
                Text(f"{seconds:.1f} s" if seconds is not None else "", "dim"),
            )
        with contextlib.suppress(OSError):
            self._live.update(table, refresh=True)

    def ready(self, url: str) -> None:
        self.close()
        with contextlib.suppress(OSError):
            sys.stdout.write(ready_line(url) + "\n")
            sys.stdout.flush()

    def restarting(self, name: str, reason: str, delay: float) -> None:
        self.say(Text(f"{name} {reason}; it starts again in {delay:.1f} s", "yellow"))

    def gave_up(self, failure: Failure) -> None:
        self.close()
        self.complained = True
        self.say(Text(f"{failure.name} does not run: {failure.reason}", "bold red"))
        for line in failure.tail:
            self.say(Text("  ").append_text(Text.from_ansi(line)))
        self.say(Text(f"Its log: {failure.log}"))

    def stopping(self) -> None:
        self.close()
        if self._console.is_terminal:
            self.say(Text("Stopping ...", "dim"))

    def error(self, text: str) -> None:
        """Say why it did not work."""
        self.close()
        self.complained = True
        self.say(Text(text, "bold red"))

    def log_line(self, name: str, line: str) -> None:
        """Show a line of a part's log."""
        next_colour = _COLOURS[len(self._colours) % len(_COLOURS)]
        colour = self._colours.setdefault(name, next_colour)
        self.say(Text.assemble((f"{name:>16} │ ", colour), Text.from_ansi(line)))

    def say(self, text: Text) -> None:
        """A line on standard error."""
        with contextlib.suppress(OSError):
            self._console.print(text, soft_wrap=True)

    def close(self) -> None:
        """Take the live table away."""
        live, self._live = self._live, None
        if live is not None:
            with contextlib.suppress(OSError):
                live.stop()


class Reporter:
    """A `Watcher` that tells the process that waits for a detached start, by JSON lines.

    Once the start is over there is nobody to tell; the supervisor's log gets the rest.
    """

    def __init__(self, fd: int, log: Path) -> None:
        self._fd: int | None = fd
        self._log = log

    def changed(self, processes: Sequence[Process], now: float) -> None:
        self._send({"parts": [(p.rule.name, p.phase, p.since) for p in processes]})

    def ready(self, url: str) -> None:
        self._send({"ready": url})
        self.close()
        self._note(ready_line(url))

    def restarting(self, name: str, reason: str, delay: float) -> None:
        self._send({"restarting": [name, reason, delay]})
        self._note(f"{name} {reason}; it starts again in {delay:.1f} s")

    def gave_up(self, failure: Failure) -> None:
        self._send({"failure": asdict(failure) | {"log": str(failure.log)}})
        self._note(f"{failure.name} does not run: {failure.reason}")

    def stopping(self) -> None:
        self._note("stopping")

    def error(self, text: str) -> None:
        """Say why it did not work."""
        self._send({"error": text})
        self._note(text)

    def refresh(self) -> None:
        """Nothing to draw."""

    def close(self) -> None:
        """Nobody is told anything more."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _send(self, message: dict[str, Any]) -> None:
        if self._fd is not None:
            try:
                os.write(self._fd, json.dumps(message).encode() + b"\n")
            except OSError:
                self.close()

    def _note(self, text: str) -> None:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        with contextlib.suppress(OSError), os.fdopen(open_log(self._log), "a") as log:
            log.write(f"{stamp} {text}\n")


def pass_on(message: bytes, display: Display) -> Iterator[bool]:
    """Show one line of a `Reporter`; yields whether the start succeeded once that is known."""
    match json.loads(message):
        case {"parts": parts}:
            display.show([(name, Phase(phase), float(since)) for name, phase, since in parts])
        case {"ready": url}:
            display.ready(url)
            yield True
        case {"restarting": [name, reason, delay]}:
            display.restarting(name, reason, delay)
        case {"failure": failure}:
            fields = {**failure, "log": Path(failure["log"]), "tail": tuple(failure["tail"])}
            display.gave_up(Failure(**fields))
        case {"error": text}:
            display.error(text)
            yield False
