"""The `cairn` command. What each module here is about:

app        the tree of commands, loaded when they are used
workflow   `cairn workflow ...`, task, version: the commands themselves, thin
sending    submit, restart, validate
reading    list, query, logs, events, spec
acting     cancel, tag
follow     how a running workflow is shown
failures   errors in words and exit codes
output     tables, colours, JSON; what goes to which stream
values     what people type and read: times, durations, pairs
completion what the shell offers
connect    from the command line's options to a client
"""

from __future__ import annotations


def main() -> None:
    """Run the command line and end the process with its exit code."""
    from cairn_client.cli.app import run

    run()
