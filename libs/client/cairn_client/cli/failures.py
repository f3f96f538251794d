"""Failures in words, and the exit codes that scripts read.

An error is one clear message on standard error: what is wrong, where, and what mends it. A fault of
our own is one line as well, with the way to its traceback.
"""

from __future__ import annotations

import sys
from types import TracebackType

from cairn_client.cli.output import Style, note, paint
from cairn_client.errors import (
    ApiError,
    CairnError,
    ConnectionFailed,
    Problem,
    SubmissionError,
    VersionMismatch,
)

FAILED = 1
"""A workflow was refused, or failed while it was followed."""
REFUSED = 2
"""Any other request was refused."""
INTERRUPTED = 3
UNREACHABLE = 10
TOO_MANY = 75

_TOO_MANY_REQUESTS = 429


def exit_code(error: CairnError) -> int:
    """The exit code for an error."""
    match error:
        case ApiError(status=429):
            return TOO_MANY
        case ApiError(status=status) if status >= 500:
            return UNREACHABLE
        case SubmissionError():
            return FAILED
        case ApiError():
            return REFUSED
        case ConnectionFailed() | VersionMismatch():
            return UNREACHABLE
        case _:
            return FAILED


def show(error: CairnError, file: str = "") -> None:
    """Tell a person. `file` is the workflow file that was refused."""
    if isinstance(error, ApiError) and error.problems:
        for problem in error.problems:
            _show_problem(problem, file)
        count = len(error.problems)
        rest = "1 problem" if count == 1 else f"{count} problems"
        if any(problem.in_rendered for problem in error.problems):
            rest += "; lines marked (rendered) are those after the templates are filled in"
        note(paint(f"{rest}.", Style.ERROR, sys.stderr))
        return
    first, *more = (str(error) or type(error).__name__).splitlines()
    note(paint("Error: ", Style.ERROR, sys.stderr) + first)
    for line in more:
        note(line)
    if isinstance(error, ApiError) and error.status == _TOO_MANY_REQUESTS:
        note("Try again in a moment.")


def _show_problem(problem: Problem, file: str) -> None:
    place = file or problem.file
    if problem.line:
        place += f":{problem.line}:{problem.column}"
    if problem.in_rendered:
        place += " (rendered)"
    path = f" {problem.path}:" if problem.path else ""
    note(f"{paint(place + ':', Style.STRONG, sys.stderr)}{path} {problem.message}")
    if problem.source_line.strip():
        margin = f"{problem.line:>6} | "
        note(paint(margin, Style.DIM, sys.stderr) + problem.source_line)
        before = problem.source_line[: problem.column - 1]
        if 0 < problem.column <= len(problem.source_line) + 1:
            # A tab in the source must be a tab here too, or the caret stands elsewhere.
            pad = "".join("\t" if sign == "\t" else " " for sign in before)
            bar = paint(" " * (len(margin) - 2) + "| ", Style.DIM, sys.stderr)
            note(bar + pad + paint("^", Style.ERROR, sys.stderr))
    if problem.hint:
        note(f"       {paint('hint:', Style.DIM, sys.stderr)} {problem.hint}")


def unexpected(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """What `sys.excepthook` does with a fault of our own."""
    if issubclass(kind, KeyboardInterrupt):
        return
    note(
        paint("Internal error: ", Style.ERROR, sys.stderr)
        + f"{kind.__name__}: {error}\nRun it again with --debug to see where it comes from."
    )
