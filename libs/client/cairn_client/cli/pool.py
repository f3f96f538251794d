"""`cairn pool list`."""

from __future__ import annotations

import typer

from cairn_client.cli.connect import connect
from cairn_client.cli.output import Format, FormatOption, clean, note, say_json, table
from cairn_client.cli.reading import PoolsOption

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, add_completion=False)


@app.callback()
def pool() -> None:
    """List pools."""


@app.command("list")
def list_(
    ctx: typer.Context, pool: PoolsOption = None, format_type: FormatOption = Format.TEXT
) -> None:
    """List pools with the use of their GPUs. Pools that share nodes stand together."""
    with connect(ctx) as cairn:
        use = cairn.pools(pool or ())
    if format_type is Format.JSON:
        say_json(use.raw)
        return
    rows = []
    for each in use.pools:
        usage = each.resource_usage
        rows.append(
            (
                each.name,
                each.status or "-",
                clean(each.backend) or "-",
                usage.quota_used,
                usage.quota_free,
                usage.quota_limit,
                usage.total_usage,
                usage.total_free,
                usage.total_capacity,
                clean(each.description),
            )
        )
    if not rows:
        note("There are no such pools.")
        return
    table(
        ("POOL", "STATUS", "CLUSTERS", "QUOTA USED", "FREE", "LIMIT", "GPU USED", "FREE", "TOTAL",
         "DESCRIPTION"),
        rows,
        status=1,
        right=(3, 4, 5, 6, 7, 8),
    )  # fmt: skip
