"""`cairn workflow list`, `query`, `logs`, `events` and `spec`."""

from __future__ import annotations

import re
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cairn_client.cli.completion import RetryOption, TaskOption, WorkflowArgument
from cairn_client.cli.connect import connect
from cairn_client.cli.output import (
    Format,
    FormatOption,
    Style,
    clean,
    has_colours,
    note,
    paint,
    say,
    say_json,
    style_of,
    table,
    warn,
)
from cairn_client.cli.sending import Priority
from cairn_client.cli.values import duration, local, moment
from cairn_common.status import WorkflowStatus

if TYPE_CHECKING:
    from cairn_client.models import Group, Task, Workflow


class Order(StrEnum):
    """Whether the newest stands last or first."""

    ASC = "asc"
    DESC = "desc"


UserOption = Annotated[
    list[str] | None, typer.Option("--user", "-u", help="Of this user; may be repeated.")
]
AllUsersOption = Annotated[bool, typer.Option("--all-users", "-a", help="Of all users.")]
PoolsOption = Annotated[
    list[str] | None, typer.Option("--pool", "-p", help="In this pool; may be repeated.")
]
PrioritiesOption = Annotated[
    list[Priority] | None, typer.Option("--priority", case_sensitive=False, help="Of this one.")
]
CountOption = Annotated[
    int, typer.Option("--count", "--limit", "-c", min=1, max=1000, help="How many, the newest.")
]
OffsetOption = Annotated[int, typer.Option("--offset", min=0, help="Leave out so many newest.")]
OrderOption = Annotated[
    Order, typer.Option("--order", "-o", case_sensitive=False, help="asc: the newest last.")
]
TIME_HELP = "2026-08-01, 2026-08-01T12:00 or 3h (ago)."

_LINE = re.compile(
    rb"(\d{4}/\d\d/\d\d \d\d:\d\d:\d\d )(\[([^\] ]+)[^\]]*\](?:\[osmo\])?)(.*)", re.DOTALL
)
_TASK_COLOURS = (36, 35, 34, 32, 33, 96, 95, 94, 92, 93)


def list_(
    ctx: typer.Context,
    user: UserOption = None,
    all_users: AllUsersOption = False,
    status: Annotated[
        list[WorkflowStatus] | None,
        typer.Option("--status", "-s", case_sensitive=False, help="In this status; repeatable."),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", "-n", help="Name contains this.")] = None,
    pool: PoolsOption = None,
    tags: Annotated[list[str] | None, typer.Option("--tags", help="With this tag.")] = None,
    priority: PrioritiesOption = None,
    label: Annotated[
        list[str] | None,
        typer.Option("--label", metavar="KEY=VALUE", help="With this label; * and (a|b) match."),
    ] = None,
    submitted_after: Annotated[
        str | None, typer.Option("--submitted-after", metavar="TIME", help=TIME_HELP)
    ] = None,
    submitted_before: Annotated[
        str | None, typer.Option("--submitted-before", metavar="TIME", help=TIME_HELP)
    ] = None,
    count: CountOption = 20,
    offset: OffsetOption = 0,
    order: OrderOption = Order.ASC,
    format_type: FormatOption = Format.TEXT,
) -> None:
    """List workflows; without --user and --all-users your own."""
    with connect(ctx) as cairn:
        page = cairn.list(
            users=user or (),
            all_users=all_users,
            statuses=status or (),
            name=name,
            pools=pool or (),
            tags=tags or (),
            priorities=priority or (),
            labels=label or (),
            submitted_after=moment(submitted_after) if submitted_after else None,
            submitted_before=moment(submitted_before) if submitted_before else None,
            limit=count,
            offset=offset,
            order=order.value.upper(),
        )
    if format_type is Format.JSON:
        say_json(page.raw)
        return
    if not page.workflows:
        note("There are no such workflows.")
        return
    table(
        ("ID", "STATUS", "SUBMITTED", "DURATION", "PRIORITY", "POOL", "USER", "LABELS"),
        [
            (
                workflow.name,
                workflow.status,
                local(workflow.submit_time),
                duration(workflow.duration),
                workflow.priority,
                workflow.pool or "-",
                workflow.user,
                clean(", ".join(f"{key}={value}" for key, value in workflow.labels.items())),
            )
            for workflow in page.workflows
        ],
        status=1,
        right=(3,),
    )
    if page.more_entries:
        note(f"There are more: --offset {offset + len(page.workflows)}")


def query(
    ctx: typer.Context,
    workflow: WorkflowArgument,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="All attempts of every task.")
    ] = False,
    format_type: FormatOption = Format.TEXT,
) -> None:
    """Show a workflow with its groups and tasks."""
    with connect(ctx) as cairn:
        found = cairn.get(workflow, verbose=verbose)
    if format_type is Format.JSON:
        say_json(found.raw)
        return
    _say_workflow(found)
    now = datetime.now(UTC)
    rows = [row for group in found.groups for row in _group_rows(group, now, verbose=verbose)]
    if rows:
        say("")
        table(
            ("TASK", "STATUS", "RETRY", "EXIT", "DURATION", "NODE", "MESSAGE"),
            rows,
            status=1,
            right=(2, 3, 4),
        )
    warn(found.warnings)


def logs(
    ctx: typer.Context,
    workflow: WorkflowArgument,
    task: TaskOption = None,
    retry_id: RetryOption = None,
    last: Annotated[
        int | None, typer.Option("-n", "--last", min=1, metavar="LINES", help="Only the last.")
    ] = None,
    error: Annotated[bool, typer.Option("--error", help="The error log instead.")] = False,
) -> None:
    """Print logs, of a running workflow until it ends."""
    with (
        connect(ctx) as cairn,
        closing(
            cairn.log_bytes(workflow, task=task, retry_id=retry_id, last=last, error=error)
        ) as chunks,
    ):
        if not has_colours(sys.stdout):
            _pass_on(chunks)
            return
        from cairn_client import streams

        _pass_on(_coloured(line) + b"\n" for line in streams.lines(chunks))


def events(
    ctx: typer.Context,
    workflow: WorkflowArgument,
    task: TaskOption = None,
    retry_id: RetryOption = None,
) -> None:
    """Print what happened, of a running workflow until it ends."""
    with connect(ctx) as cairn:
        for line in cairn.events(workflow, task=task, retry_id=retry_id):
            say(line)


def spec(
    ctx: typer.Context,
    workflow: WorkflowArgument,
    template: Annotated[
        bool, typer.Option("--template", help="As its author wrote it, with its templates.")
    ] = False,
) -> None:
    """Print the file of a workflow."""
    with connect(ctx) as cairn:
        text = cairn.spec(workflow, template=template)
    sys.stdout.write(text if text.endswith("\n") or not text else text + "\n")
    sys.stdout.flush()


def _say_workflow(workflow: Workflow) -> None:
    say(
        f"{paint(workflow.name, Style.STRONG)}  {paint(workflow.status, style_of(workflow.status))}"
    )
    times = [f"submitted {local(workflow.submit_time)} by {workflow.submitted_by or '-'}"]
    if workflow.queued_time is not None:
        times.append(f"queued {duration(workflow.queued_time)}")
    if workflow.duration is not None:
        verb = "ran" if workflow.final else "running for"
        times.append(f"{verb} {duration(workflow.duration)}")
    lines = {
        "": ", ".join(times),
        "Pool": f"{workflow.pool or '-'}, priority {workflow.priority or '-'}",
        "Labels": ", ".join(f"{key}={value}" for key, value in workflow.labels.items()),
        "Tags": ", ".join(workflow.tags),
        "Canceled by": workflow.cancelled_by or "",
        "Because": workflow.failure_message or "",
        "Overview": workflow.overview,
    }
    for title, text in lines.items():
        if text:
            say("  " + (f"{title}: " if title else "") + clean(text))


def _group_rows(group: Group, now: datetime, *, verbose: bool) -> Iterator[tuple[str, ...]]:
    tasks: Sequence[Task] = group.tasks
    if not verbose:
        tasks = tuple({task.name: task for task in tasks}.values())
    branch = ""
    if len({task.name for task in tasks}) > 1:
        branch = "  "
        seconds = None
        if group.start_time:
            seconds = ((group.end_time or now) - group.start_time).total_seconds()
        message = clean(group.failure_message)
        yield f"{group.name}/", group.status, "", "", duration(seconds), "", message
    for task in tasks:
        yield (
            branch + task.name + (" (lead)" if task.lead and branch else ""),
            task.status,
            str(task.retry_id),
            "-" if task.exit_code is None else str(task.exit_code),
            duration(task.seconds(now)),
            task.node_name or "-",
            clean(task.failure_message),
        )


def _pass_on(chunks: Iterable[bytes]) -> None:
    """Write as it comes: whoever reads a live log wants each line now."""
    out: Any = sys.stdout.buffer
    for chunk in chunks:
        out.write(chunk)
        out.flush()


def _coloured(line: bytes) -> bytes:
    """A log line with its time dimmed and its task in a colour of its own."""
    match = _LINE.fullmatch(line)
    if match is None:
        return line
    time, bracket, task, rest = match.groups()
    colour = _TASK_COLOURS[zlib.crc32(task) % len(_TASK_COLOURS)]
    return b"\x1b[2m%b\x1b[0m\x1b[%dm%b\x1b[0m%b" % (time, colour, bracket, rest)
