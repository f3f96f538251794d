"""`cairn resource list`."""

from __future__ import annotations

from typing import Annotated

import typer

from cairn_client.cli.connect import connect
from cairn_client.cli.output import Format, FormatOption, clean, note, say_json, table
from cairn_client.cli.reading import PoolsOption

_AMOUNTS = ("cpu", "gpu", "memory", "storage")

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, add_completion=False)


@app.callback()
def resource() -> None:
    """List nodes."""


@app.command("list")
def list_(
    ctx: typer.Context,
    pool: PoolsOption = None,
    platform: Annotated[
        list[str] | None, typer.Option("--platform", help="Of this platform; may be repeated.")
    ] = None,
    format_type: FormatOption = Format.TEXT,
) -> None:
    """List the nodes of pools: what is used of what there is."""
    with connect(ctx) as cairn:
        found = cairn.resources(pools=pool or (), platforms=platform or ())
    if format_type is Format.JSON:
        say_json(found.raw)
        return
    if not found.resources:
        note("There are no such nodes.")
        return
    table(
        ("NODE", "CLUSTER", "CONDITION", "CPU", "GPU", "MEMORY", "STORAGE", "POOL/PLATFORM"),
        [
            (
                clean(node.hostname),
                clean(node.backend),
                ", ".join(node.conditions or ("-",)),
                *(
                    f"{node.usage_fields.get(name, '-')}/{node.allocatable_fields.get(name, '-')}"
                    for name in _AMOUNTS
                ),
                clean(
                    ", ".join(
                        f"{pool}/{each}"
                        for pool, platforms in node.pool_platform_labels.items()
                        for each in platforms
                    )
                ),
            )
            for node in found.resources
        ],
        right=(3, 4, 5, 6),
    )
