"""`cairn cluster`: the clusters that run tasks."""

from __future__ import annotations

from typing import Annotated

import typer

from cairn_client.cli.connect import connect
from cairn_client.cli.output import Format, FormatOption, clean, note, say, say_json, table
from cairn_client.cli.values import local
from cairn_client.models import Cluster

_GI = 1 << 30

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, add_completion=False)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The cluster's name.")]


@app.callback()
def cluster() -> None:
    """Look at clusters, drain, resume or remove them. A cluster registers itself."""


@app.command("list")
def list_(ctx: typer.Context, format_type: FormatOption = Format.TEXT) -> None:
    """List the clusters that have registered."""
    with connect(ctx) as cairn:
        found = cairn.clusters()
    if format_type is Format.JSON:
        say_json(found.raw)
        return
    if not found.clusters:
        note("No cluster has registered yet.")
        return
    table(
        ("CLUSTER", "STATE", "STATUS", "NODES", "CPU", "GPU", "MEMORY", "POOLS"),
        [
            (each.name, each.state, each.status, str(each.nodes), *_use(each), _pools(each))
            for each in found.clusters
        ],
        status=1,
        right=(3, 4, 5, 6),
    )


@app.command()
def show(ctx: typer.Context, name: NameArgument, format_type: FormatOption = Format.TEXT) -> None:
    """Show one with the tasks that are open there."""
    with connect(ctx) as cairn:
        found = cairn.cluster(name)
    _show(found, format_type)


@app.command()
def drain(ctx: typer.Context, name: NameArgument, format_type: FormatOption = Format.TEXT) -> None:
    """Place nothing new there. What is queued there moves if it can, what runs ends."""
    with connect(ctx) as cairn:
        found = cairn.drain_cluster(name)
    _show(found, format_type)


@app.command()
def resume(ctx: typer.Context, name: NameArgument, format_type: FormatOption = Format.TEXT) -> None:
    """Let a draining cluster take work again."""
    with connect(ctx) as cairn:
        found = cairn.resume_cluster(name)
    _show(found, format_type)


@app.command()
def remove(
    ctx: typer.Context,
    name: NameArgument,
    force: Annotated[
        bool, typer.Option("--force", help="Even if tasks are open there: those are lost.")
    ] = False,
) -> None:
    """Forget a cluster whose bridge has been stopped."""
    with connect(ctx) as cairn:
        cairn.remove_cluster(name, force=force)
    say(f"Cluster {clean(name)} is removed.")


def _show(cluster: Cluster, format_type: Format) -> None:
    if format_type is Format.JSON:
        say_json(cluster.raw)
        return
    cpu, gpu, memory = _use(cluster)
    facts = {
        "Cluster": cluster.name,
        "State": f"{cluster.state}, {cluster.status}",
        "Registered": local(cluster.registered),
        "Pools": _pools(cluster),
        "Nodes": str(cluster.nodes),
        "In use": f"cpu {cpu}, gpu {gpu}, memory {memory}",
        "Features": ", ".join(cluster.features) or "-",
        "Open tasks": ", ".join(f"{count} {status}" for status, count in cluster.tasks.items())
        or "none",
    }
    for title, text in facts.items():
        say(f"{title}: {clean(text)}")


def _use(cluster: Cluster) -> tuple[str, str, str]:
    return (
        f"{cluster.used_cpu}/{cluster.cpu}",
        f"{cluster.used_gpu}/{cluster.gpu}",
        f"{cluster.used_memory / _GI:.0f}/{cluster.memory / _GI:.0f}Gi",
    )


def _pools(cluster: Cluster) -> str:
    return clean(", ".join(cluster.pools))
