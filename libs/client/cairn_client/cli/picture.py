"""The live picture of a workflow on a terminal.

One row a task, in an order in which they can run. What does not fit, or more than 40 tasks, becomes
a count per status, with rows only for tasks that run or have failed. The rows are computed from the
newest snapshot each time the picture is drawn, so elapsed times go on between snapshots.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from cairn_client.cli.output import clean, style_of
from cairn_client.cli.values import duration
from cairn_client.errors import ConnectionFailed
from cairn_client.models import Snapshot, SnapshotGroup, SnapshotTask
from cairn_common.status import TaskStatus

MOST_ROWS = 40
_BESIDES = 4
"""Lines of the terminal for the title, the notice and the prompt."""
_DRAWN_A_SECOND = 8
_SIGNS = {
    TaskStatus.COMPLETED: "✓",
    TaskStatus.FAILED_UPSTREAM: "⊘",
    TaskStatus.FAILED_CANCELED: "⊘",
}
_ACTIVE = frozenset({TaskStatus.RUNNING, TaskStatus.INITIALIZING})
_ORDER = (
    TaskStatus.COMPLETED, TaskStatus.RUNNING, TaskStatus.INITIALIZING, TaskStatus.SCHEDULING,
    TaskStatus.PROCESSING, TaskStatus.WAITING, TaskStatus.SUBMITTING,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the picture: a task, or the name of a group above its tasks."""

    name: str
    status: str
    elapsed: str = ""
    detail: str = ""
    heading: bool = False


class Picture:
    """A `Display` that draws."""

    def __init__(self, stream: IO[str]) -> None:
        self._console = Console(file=stream, highlight=False)
        self._snapshot: Snapshot | None = None
        self._ordered: Sequence[SnapshotGroup] = ()
        self._notice = ""
        self._spinner = Spinner("dots", style="cyan")
        self._live: Live | None = Live(
            get_renderable=self._draw,
            console=self._console,
            refresh_per_second=_DRAWN_A_SECOND,
            vertical_overflow="crop",
        )
        self._live.start()

    def show(self, snapshot: Snapshot) -> None:
        # The order costs more than a row; it is computed once a snapshot, not once a drawing.
        self._ordered = in_order(snapshot.groups)
        self._snapshot, self._notice = snapshot, ""

    def lost(self, failure: ConnectionFailed) -> None:
        # Its words are long, and would make the picture jump.
        self._notice = "The connection was lost; trying again ..."

    def close(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    def _draw(self) -> RenderableType:
        snapshot = self._snapshot
        if snapshot is None:
            return Text("Waiting for the first news ...", "dim")
        now = datetime.now(UTC)
        room = min(MOST_ROWS, max(4, self._console.size.height - _BESIDES))
        rows, rest = rows_of(self._ordered, now, room)
        parts: list[RenderableType] = [self._title(snapshot, now), self._table(rows)]
        if rest:
            parts.append(_counts(rest))
        if self._notice:
            parts.append(Text(self._notice, "yellow"))
        return Group(*parts)

    def _title(self, snapshot: Snapshot, now: datetime) -> Text:
        since = snapshot.start_time or snapshot.submit_time
        elapsed = duration(((snapshot.end_time or now) - since).total_seconds()) if since else ""
        style = style_of(snapshot.status).rich_name
        return Text.assemble(
            (snapshot.name, "bold"), "  ", (snapshot.status, style), "  ", (elapsed, "dim")
        )

    def _table(self, rows: Sequence[Row]) -> Table:
        grid = Table.grid(padding=(0, 2))
        grid.add_column(width=1)
        grid.add_column(no_wrap=True, overflow="ellipsis")
        grid.add_column(no_wrap=True)
        grid.add_column(no_wrap=True, justify="right")
        grid.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        for row in rows:
            style = style_of(row.status).rich_name
            sign: RenderableType = Text(_sign(row.status), style)
            if row.status in _ACTIVE and not row.heading:
                sign = self._spinner
            grid.add_row(
                "" if row.heading else sign,
                Text(row.name, "bold" if row.heading else ""),
                Text(row.status, style),
                Text(row.elapsed, "dim"),
                Text(row.detail, "dim"),
            )
        return grid


def in_order(groups: Sequence[SnapshotGroup]) -> Sequence[SnapshotGroup]:
    """Groups so that each stands after those it needs, otherwise as they were."""
    index = {group.name: i for i, group in enumerate(groups)}
    needed = [{index[name] for name in group.upstream if name in index} for group in groups]
    after: list[list[int]] = [[] for _ in groups]
    for i, before in enumerate(needed):
        for j in before:
            after[j].append(i)
    ready = [i for i, before in enumerate(needed) if not before]
    ordered: list[SnapshotGroup] = []
    while ready:
        i = heapq.heappop(ready)
        ordered.append(groups[i])
        for j in after[i]:
            needed[j].discard(i)
            if not needed[j]:
                heapq.heappush(ready, j)
    # A cycle cannot have been submitted; were there one, nothing is drawn rather than all.
    return ordered if len(ordered) == len(groups) else groups


def rows_of(
    groups: Sequence[SnapshotGroup], now: datetime, room: int
) -> tuple[Sequence[Row], Counter[str]]:
    """The rows to draw; and, if those are not all, how many tasks are in which status."""
    count = sum(len(group.newest) + _has_heading(group) for group in groups)
    if count <= room:
        return [row for group in groups for row in _rows(group, now)], Counter()
    counts = Counter(task.status for group in groups for task in group.newest)
    chosen: list[Row] = []
    for wanted in (_is_failure, _is_active):
        for group in groups:
            for task in group.newest:
                if len(chosen) == room - 1:
                    return chosen, counts
                if wanted(task):
                    chosen.append(_task_row(group, task, now, ""))
    return chosen, counts


def _rows(group: SnapshotGroup, now: datetime) -> Iterator[Row]:
    indent = ""
    if _has_heading(group):
        indent = "  "
        yield Row(f"{group.name}/", group.status, "", clean(group.failure_message), heading=True)
    for task in group.newest:
        yield _task_row(group, task, now, indent)


def _task_row(group: SnapshotGroup, task: SnapshotTask, now: datetime, indent: str) -> Row:
    details: list[str] = []
    if task.retry_id:
        details.append(f"retry {task.retry_id}")
    if task.exit_code:
        details.append(f"exit code {task.exit_code}")
    if task.failure_message:
        details.append(clean(task.failure_message))
    elif task.status == TaskStatus.WAITING and group.upstream:
        # The names of tasks say more than those of the groups around them.
        needed = [name.removesuffix("-group") for name in group.upstream]
        details.append("after " + ", ".join(needed[:3]) + (", ..." if len(needed) > 3 else ""))
    elif task.status in _ACTIVE and task.node_name:
        details.append(f"on {task.node_name}")
    seconds = task.seconds(now)
    elapsed = "" if seconds is None else duration(seconds)
    return Row(indent + task.name, task.status, elapsed, ", ".join(details))


def _has_heading(group: SnapshotGroup) -> bool:
    return len(group.newest) > 1


def _is_failure(task: SnapshotTask) -> bool:
    return task.failed and task.status not in _SIGNS


def _is_active(task: SnapshotTask) -> bool:
    return task.status in _ACTIVE


def _sign(status: str) -> str:
    if status in _SIGNS:
        return _SIGNS[TaskStatus(status)]
    return "✗" if status.startswith("FAILED") else "·"


def _counts(counts: Counter[str]) -> Text:
    known = [status for status in _ORDER if status in counts]
    others = sorted(counts.keys() - set(known))
    text = Text(f"{sum(counts.values())} tasks: ")
    for index, status in enumerate([*known, *others]):
        text.append(" · " if index else "", "dim")
        text.append(f"{status} {counts[status]}", style_of(status).rich_name)
    return text
