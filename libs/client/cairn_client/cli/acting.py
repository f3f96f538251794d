"""`cairn workflow cancel` and `tag`."""

from __future__ import annotations

from typing import Annotated

import typer

from cairn_client.cli import failures
from cairn_client.cli.completion import workflow_ids
from cairn_client.cli.connect import connect
from cairn_client.cli.output import Format, FormatOption, say, say_json
from cairn_client.errors import ApiError

WorkflowsArgument = Annotated[
    list[str],
    typer.Argument(metavar="ID...", help="The workflows' ids.", autocompletion=workflow_ids),
]


def cancel(
    ctx: typer.Context,
    workflows: WorkflowsArgument,
    message: Annotated[
        str | None, typer.Option("--message", "-m", help="Why; others will read it.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="At once, without time for tasks to end.")
    ] = False,
    format_type: FormatOption = Format.TEXT,
) -> None:
    """Cancel workflows.

    If one cannot be canceled, the others are; the exit code tells of the failure.
    """
    code = 0
    canceled: list[str] = []
    with connect(ctx) as cairn:
        for workflow in workflows:
            try:
                name = cairn.cancel(workflow, message=message, force=force)
            except ApiError as error:
                failures.show(error)
                code = max(code, failures.exit_code(error))
                continue
            canceled.append(name)
            if format_type is Format.TEXT:
                say(f"Workflow {name} is being canceled.")
    if format_type is Format.JSON:
        say_json([{"name": name} for name in canceled])
    if code:
        raise typer.Exit(code)


def tag(
    ctx: typer.Context,
    workflows: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ID...]", help="Workflows.", autocompletion=workflow_ids),
    ] = None,
    add: Annotated[list[str] | None, typer.Option("--add", help="Add this tag.")] = None,
    remove: Annotated[list[str] | None, typer.Option("--remove", help="Remove this tag.")] = None,
    format_type: FormatOption = Format.TEXT,
) -> None:
    """Change or show tags.

    Without an ID, lists the tags that there are.
    """
    if (add or remove) and not workflows:
        raise typer.BadParameter("name at least one workflow", param_hint="ID")
    with connect(ctx) as cairn:
        if not workflows:
            known = cairn.tags()
            if format_type is Format.JSON:
                say_json({"tags": list(known)})
            for name in known if format_type is Format.TEXT else ():
                say(name)
            return
        found: dict[str, list[str]] = {}
        for workflow in workflows:
            if add or remove:
                cairn.tag(workflow, add=add or (), remove=remove or ())
            found[workflow] = list(cairn.get(workflow).tags)
    if format_type is Format.JSON:
        say_json(found)
        return
    for workflow, tags in found.items():
        say(f"{workflow}: {', '.join(tags) or '-'}")
