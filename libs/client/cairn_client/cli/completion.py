"""What the shell offers for a workflow's id or a task's name: what the server knows, or nothing.

A person waits with a finger on the Tab key, so the server has one second, and no failure speaks.
"""

from __future__ import annotations

from typing import Annotated

import typer

from cairn_client.errors import CairnError

_SECONDS = 1.0
_OFFERED = 50


def workflow_ids(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """The newest workflows whose ids start so."""
    from cairn_client.cli.connect import connect

    try:
        with connect(ctx, _SECONDS) as cairn:
            page = cairn.list(limit=_OFFERED)
    except CairnError:
        return []
    return [(w.name, w.status) for w in page.workflows if w.name.startswith(incomplete)]


def task_names(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """The tasks of the workflow that stands on the line already."""
    from cairn_client.cli.connect import connect

    # While an option still lacks its value, the arguments before it are not assigned yet.
    workflow = ctx.params.get("workflow") or next(iter(ctx.args), None)
    if not isinstance(workflow, str):
        return []
    try:
        with connect(ctx, _SECONDS) as cairn:
            found = cairn.get(workflow)
    except CairnError:
        return []
    newest = {task.name: task.status for group in found.groups for task in group.tasks}
    return [item for item in newest.items() if item[0].startswith(incomplete)]


WorkflowArgument = Annotated[
    str,
    typer.Argument(metavar="ID", help="The workflow's id.", autocompletion=workflow_ids),
]
TaskOption = Annotated[
    str | None,
    typer.Option("--task", metavar="NAME", help="Only this task.", autocompletion=task_names),
]
RetryOption = Annotated[
    int | None, typer.Option("--retry-id", min=0, metavar="N", help="Only this attempt.")
]
