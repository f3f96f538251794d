"""`cairn task list`."""

from __future__ import annotations

from typing import Annotated

import typer

from cairn_client.cli.completion import workflow_ids
from cairn_client.cli.connect import connect
from cairn_client.cli.output import Format, FormatOption, note, say_json, table
from cairn_client.cli.reading import (
    TIME_HELP,
    AllUsersOption,
    CountOption,
    OffsetOption,
    Order,
    OrderOption,
    PoolsOption,
    PrioritiesOption,
    UserOption,
)
from cairn_client.cli.values import duration, local, moment
from cairn_common.status import TaskStatus

_COLUMNS = (
    "WORKFLOW", "TASK", "STATUS", "RETRY", "STARTED", "DURATION", "CPU", "MEMORY", "GPU", "POOL",
    "NODE", "USER",
)  # fmt: skip

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, add_completion=False)


@app.callback()
def task() -> None:
    """List tasks over all workflows."""


@app.command("list")
def list_(
    ctx: typer.Context,
    workflow_id: Annotated[
        str | None,
        typer.Option(
            "--workflow-id", "-w", metavar="ID", help="Of this one.", autocompletion=workflow_ids
        ),
    ] = None,
    user: UserOption = None,
    all_users: AllUsersOption = False,
    status: Annotated[
        list[TaskStatus] | None,
        typer.Option("--status", "-s", case_sensitive=False, help="In this status; repeatable."),
    ] = None,
    pool: PoolsOption = None,
    node: Annotated[
        list[str] | None, typer.Option("--node", "-n", help="On this node; may be repeated.")
    ] = None,
    priority: PrioritiesOption = None,
    started_after: Annotated[
        str | None, typer.Option("--started-after", metavar="TIME", help=TIME_HELP)
    ] = None,
    started_before: Annotated[
        str | None, typer.Option("--started-before", metavar="TIME", help=TIME_HELP)
    ] = None,
    count: CountOption = 20,
    offset: OffsetOption = 0,
    order: OrderOption = Order.ASC,
    format_type: FormatOption = Format.TEXT,
) -> None:
    """List tasks over all workflows; without --user and --all-users your own."""
    with connect(ctx) as cairn:
        page = cairn.tasks(
            workflow=workflow_id,
            users=user or (),
            all_users=all_users,
            statuses=status or (),
            pools=pool or (),
            nodes=node or (),
            priorities=priority or (),
            started_after=moment(started_after) if started_after else None,
            started_before=moment(started_before) if started_before else None,
            limit=count,
            offset=offset,
            order=order.value.upper(),
        )
    if format_type is Format.JSON:
        say_json(page.raw)
        return
    if not page.tasks:
        note("There are no such tasks.")
        return
    table(
        _COLUMNS,
        [
            (
                found.workflow_id,
                found.task_name,
                found.status,
                str(found.retry_id),
                local(found.start_time),
                duration(found.duration),
                str(found.cpu),
                f"{found.memory:g}Gi",
                str(found.gpu),
                found.pool or "-",
                found.node or "-",
                found.user,
            )
            for found in page.tasks
        ],
        status=2,
        right=(3, 5, 6, 7, 8),
    )
