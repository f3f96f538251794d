"""Following a workflow to its end: a live picture on a terminal, a line a change elsewhere.

The picture is in `picture`; here is the loop around it, what is said at the end, and what Ctrl-C
means: it detaches the person, the workflow goes on.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Protocol

from cairn_client.cli.output import Style, clean, note, paint, say, style_of
from cairn_client.cli.values import duration
from cairn_client.errors import CairnError, ConnectionFailed
from cairn_common.status import TaskStatus

if TYPE_CHECKING:
    from cairn_client.client import Client
    from cairn_client.models import Snapshot, SnapshotTask

_CONSEQUENCES = frozenset({TaskStatus.FAILED_UPSTREAM, TaskStatus.FAILED_CANCELED})
_FAILURES_TOLD = 5
_LAST_LINES = 10
_LONGEST_LINE = 500


class Display(Protocol):
    """What shows snapshots."""

    def show(self, snapshot: Snapshot) -> None:
        """Show the state of things."""

    def lost(self, failure: ConnectionFailed) -> None:
        """Say that the server is away for the moment."""

    def close(self) -> None:
        """Show nothing more; what is there stays."""


class Silence:
    """Shows nothing."""

    def show(self, snapshot: Snapshot) -> None:
        """Nothing."""

    def lost(self, failure: ConnectionFailed) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Changes:
    """One line for each change of a task's status."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._told: dict[tuple[str, str], tuple[int, str]] = {}

    def show(self, snapshot: Snapshot) -> None:
        now = datetime.now(UTC)
        for group in snapshot.groups:
            for task in group.newest:
                key, state = (group.name, task.name), (task.retry_id, task.status)
                if self._told.get(key) != state:
                    self._told[key] = state
                    self._write(_change(task, now))

    def lost(self, failure: ConnectionFailed) -> None:
        note(f"{failure.reason} Trying again ...")

    def close(self) -> None:
        """Lines stay."""


def follow_to_end(cairn: Client, workflow: str, *, quiet: bool, as_json: bool) -> Snapshot | None:
    """Show a workflow until it ends or the user presses Ctrl-C; returns what was seen last.

    With `as_json` the standard output is left to the caller.
    """
    display = _display(quiet=quiet, as_json=as_json)
    snapshot: Snapshot | None = None
    try:
        with closing(cairn.watch(workflow, on_loss=display.lost)) as snapshots:
            for snapshot in snapshots:
                display.show(snapshot)
    except KeyboardInterrupt:
        display.close()
        note(
            f"\nYou stopped watching; {workflow} goes on.\n"
            f"  Watch it again: cairn follow {workflow}\n"
            f"  Cancel it:      cairn cancel {workflow}"
        )
        return snapshot
    finally:
        display.close()
    if snapshot is not None and not quiet:
        _conclude(cairn, snapshot, note if as_json else say)
    return snapshot


def _display(*, quiet: bool, as_json: bool) -> Display:
    if quiet:
        return Silence()
    stream = sys.stderr if as_json else sys.stdout
    if not stream.isatty():
        return Changes(note if as_json else say)
    from cairn_client.cli.picture import Picture

    return Picture(stream)


def _change(task: SnapshotTask, now: datetime) -> str:
    details = []
    if task.final:
        details += [f"exit code {task.exit_code}"] if task.exit_code else []
        details += [duration(task.seconds(now))] if task.start_time else []
        details += [clean(task.failure_message)] if task.failure_message else []
    elif task.node_name:
        details.append(f"on {task.node_name}")
    retry = f" retry-{task.retry_id}" if task.retry_id else ""
    rest = f"  {', '.join(details)}" if details else ""
    return f"{datetime.now().astimezone():%H:%M:%S}  {task.name}{retry}  {task.status}{rest}"


def _conclude(cairn: Client, snapshot: Snapshot, write: Callable[[str], None]) -> None:
    """The result, and of a failure where it began."""
    took = ""
    if snapshot.end_time and (since := snapshot.start_time or snapshot.submit_time):
        took = f" in {duration((snapshot.end_time - since).total_seconds())}"
    stream = sys.stderr if write is note else sys.stdout
    status = paint(snapshot.status, style_of(snapshot.status), stream)
    cause = f": {clean(snapshot.failure_message)}" if snapshot.failure_message else ""
    write(f"{paint(snapshot.name, Style.STRONG, stream)} {status}{took}{cause}")
    if snapshot.succeeded:
        return
    culprits = [t for t in snapshot.tasks if t.failed and t.status not in _CONSEQUENCES]
    for task in culprits[:_FAILURES_TOLD]:
        code = f", exit code {task.exit_code}" if task.exit_code is not None else ""
        message = f": {clean(task.failure_message)}" if task.failure_message else ""
        write(f"  {task.name}: {task.status}{code}{message}")
    if len(culprits) > _FAILURES_TOLD:
        write(f"  and {len(culprits) - _FAILURES_TOLD} more")
    if culprits:
        _quote_log(cairn, snapshot.name, culprits[0], write)


def _quote_log(
    cairn: Client, workflow: str, task: SnapshotTask, write: Callable[[str], None]
) -> None:
    """The end of the log of the task that failed first: often all that one wants to know."""
    try:
        logs = cairn.logs(workflow, task=task.name, retry_id=task.retry_id, last=_LAST_LINES)
        lines = list(islice(logs, _LAST_LINES))
    except CairnError:
        lines = []  # an extra; the failure itself has been told
    for line in lines:
        write(f"    {line[:_LONGEST_LINE]}")
    write(f"  All of it: cairn logs {workflow} --task {task.name}")
