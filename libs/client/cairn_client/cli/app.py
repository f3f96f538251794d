"""The tree of commands.

A command is imported when somebody uses it: help, version and completion must be there before one
notices. So the root knows its commands by name, module and one line of help, and renders its own
help instead of asking each command for it. For the same reason help is plain text: drawing it with
rich takes longer than everything else together.

Other packages add commands through the entry point group `cairn.commands`: each entry is a function
that gets a typer app. They are looked for only when a name is not one of ours.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from cairn_client.address import URL_VARIABLE
from cairn_client.cli import failures
from cairn_client.errors import CairnError

if TYPE_CHECKING:
    from collections.abc import Iterator

PLUGINS = "cairn.commands"

_LONGEST_HELP = 100


@dataclass(frozen=True, slots=True)
class _Entry:
    """A command of ours: a module's `app`, or one command of it."""

    section: str
    module: str
    help: str
    command: str = ""


_WORKFLOW = "cairn_client.cli.workflow"
_ENTRIES = {
    "workflow": _Entry("Workflows", _WORKFLOW, "Submit, watch and cancel workflows."),
    "task": _Entry("Workflows", "cairn_client.cli.task", "List tasks over all workflows."),
    "submit": _Entry("Shortcuts", _WORKFLOW, "Same as `cairn workflow submit`.", "submit"),
    "list": _Entry("Shortcuts", _WORKFLOW, "Same as `cairn workflow list`.", "list"),
    "query": _Entry("Shortcuts", _WORKFLOW, "Same as `cairn workflow query`.", "query"),
    "follow": _Entry("Shortcuts", _WORKFLOW, "Same as `cairn workflow follow`.", "follow"),
    "logs": _Entry("Shortcuts", _WORKFLOW, "Same as `cairn workflow logs`.", "logs"),
    "cancel": _Entry("Shortcuts", _WORKFLOW, "Same as `cairn workflow cancel`.", "cancel"),
    "pool": _Entry("Hardware", "cairn_client.cli.pool", "List pools with the use of their GPUs."),
    "resource": _Entry("Hardware", "cairn_client.cli.resource", "List nodes."),
    "cluster": _Entry(
        "Hardware", "cairn_client.cli.cluster", "List, drain, resume and remove clusters."
    ),
    "dead-letters": _Entry(
        "Cairn itself", "cairn_client.cli.deadletters", "Messages that no service could handle."
    ),
    "version": _Entry("Cairn itself", "cairn_client.cli.version", "Client and server versions."),
}
_STANDALONE = {
    "up": "Start Cairn on this machine.",
    "down": "Stop Cairn on this machine.",
    "status": "Show the parts of Cairn on this machine.",
}
_OTHERS = "Cairn itself"


class Root(TyperGroup):
    """The command `cairn`."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [*_ENTRIES, *(name for name in self._others() if name not in _ENTRIES)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in self.commands:
            return self.commands[cmd_name]
        entry = _ENTRIES.get(cmd_name)
        if entry is not None:
            self.commands[cmd_name] = _load(entry)
        elif found := self._others().get(cmd_name):
            return found
        elif cmd_name in _STANDALONE:
            raise CairnError(
                f"`cairn {cmd_name}` comes with the package cairn-standalone, "
                "which is not installed.\nInstall it: pip install cairn-standalone"
            )
        else:
            # For the suggestion of what may have been meant.
            self.commands.update(self._others())
            self.commands.update((name, _load(entry)) for name, entry in _ENTRIES.items())
        return self.commands.get(cmd_name)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        # People add --debug to the end of what has just failed.
        ours = args[: args.index("--")] if "--" in args else args
        if "--debug" in ours:
            args = ["--debug", *(arg for arg in ours if arg != "--debug"), *args[len(ours) :]]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Exit(failures.INTERRUPTED) from None
        except CairnError as error:
            if ctx.params.get("debug"):
                import traceback

                traceback.print_exc()
            failures.show(error)
            raise typer.Exit(failures.exit_code(error)) from None

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for name, entry in _ENTRIES.items():
            sections.setdefault(entry.section, []).append((name, entry.help))
        others = self._others()
        for name, command in others.items():
            if name not in _ENTRIES and not command.hidden:
                row = name, command.get_short_help_str(_LONGEST_HELP)
                sections.setdefault(_OTHERS, []).append(row)
        for title, rows in sections.items():
            with formatter.section(title):
                formatter.write_dl(rows)

    def _others(self) -> dict[str, Any]:
        if not hasattr(self, "_plugins"):
            self._plugins = dict(_plugins())
        return self._plugins


def _load(entry: _Entry) -> Any:
    command: Any = typer.main.get_command(import_module(entry.module).app)
    return command.commands[entry.command] if entry.command else command


def _plugins() -> Iterator[tuple[str, Any]]:
    from importlib.metadata import entry_points

    app = typer.Typer(rich_markup_mode=None)
    for entry in entry_points(group=PLUGINS):
        try:
            entry.load()(app)
        except (ImportError, AttributeError) as error:
            # One broken extension must not take the other commands away.
            typer.echo(f"The extension {entry.value} cannot be loaded: {error}", err=True)
    if app.registered_commands or app.registered_groups:
        app.callback()(lambda: None)  # a group, even of one command
        group: Any = typer.main.get_group(app)
        yield from group.commands.items()


app = typer.Typer(
    cls=Root,
    rich_markup_mode=None,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done; 1 workflow refused or failed; 2 other refusal; 3 Ctrl-C; "
    "10 no connection or server error; 75 too many requests, try later.",
)


@app.callback()
def root(
    url: Annotated[
        str | None,
        typer.Option(
            envvar=URL_VARIABLE,
            metavar="URL",
            help="Where Cairn is [default: the one that runs on this machine].",
        ),
    ] = None,
    user: Annotated[
        str | None,
        typer.Option(envvar="CAIRN_USER", metavar="NAME", help="Who asks, if the server allows."),
    ] = None,
    debug: Annotated[
        bool, typer.Option("--debug", envvar="CAIRN_DEBUG", help="Show where an error comes from.")
    ] = False,
) -> None:
    """Run AI and robotics workflows.

    Start here: `cairn up`, then `cairn submit FILE --follow`.
    """
    if not debug:
        sys.excepthook = failures.unexpected


def run() -> None:
    """Run the command of this process."""
    typer.main.get_command(app)(prog_name="cairn")
