"""What is wrong with a workflow file, said so that its author can repair it.

A check never stops at the first fault: it returns `Problem` values, and `SpecError` carries all
of them at once. A problem names the place twice: by path (`workflow.tasks[2].image`), which
survives any formatting, and by line and column, which an editor can open. Positions are looked up
only for what is wrong (see `yamltext.locate`), so a correct file pays nothing for them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

Location = tuple[str | int, ...]
"""A path into the file as keys and list indices, e.g. `("workflow", "tasks", 2, "image")`."""

_SHOWN_LINE = 160


class ErrorCode(StrEnum):
    """OSMO's `error_code` of a refused submission; its client branches on RESOURCE."""

    USAGE = "USAGE"
    USER = "USER"
    RESOURCE = "RESOURCE"
    SUBMISSION = "SUBMISSION"
    CREDENTIAL = "CREDENTIAL"
    SCHEMA = "SCHEMA"


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault in one place.

    `line` and `column` count from 1 and are 0 while unknown. When `in_rendered` is true they refer
    to the text after its templates were filled in, otherwise to the author's own lines.
    `on_key` says that the fault is the key at `location` and not its value.
    """

    message: str
    location: Location = ()
    code: ErrorCode = ErrorCode.USER
    hint: str = ""
    file: str = "workflow.yaml"
    line: int = 0
    column: int = 0
    in_rendered: bool = False
    source_line: str = ""
    on_key: bool = False
    token: str = ""

    @property
    def path(self) -> str:
        """The location as people write it: `workflow.tasks[2].inputs[0].task`."""
        return format_location(self.location)

    def at(self, line: int, column: int, source_line: str = "") -> Problem:
        """The same problem at a known position; long source lines are cut."""
        return replace(self, line=line, column=column, source_line=source_line[:_SHOWN_LINE])

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form for an HTTP answer."""
        return {
            "file": self.file,
            "line": self.line,
            "column": self.column,
            "in_rendered": self.in_rendered,
            "path": self.path,
            "message": self.message,
            "hint": self.hint,
            "code": self.code.value,
            "source_line": self.source_line,
        }

    def to_wire(self) -> dict[str, Any]:
        """Every field, for the way from a worker process to its parent."""
        return asdict(self)

    @classmethod
    def from_wire(cls, fields: dict[str, Any]) -> Problem:
        """The inverse of `to_wire` after a trip through JSON."""
        return cls(
            **{**fields, "location": tuple(fields["location"]), "code": ErrorCode(fields["code"])}
        )

    def __str__(self) -> str:
        place = self.file
        if self.line:
            place += f":{self.line}:{self.column}"
        if self.in_rendered:
            place += " (rendered)"
        subject = f" {self.path}:" if self.location else ""
        lines = [f"{place}:{subject} {self.message}"]
        if self.source_line.strip():
            margin = f"{self.line:>6} | "
            lines.append(margin + self.source_line)
            if 0 < self.column <= len(self.source_line) + 1:
                pad = "".join(
                    "\t" if c == "\t" else " " for c in self.source_line[: self.column - 1]
                )
                lines.append(" " * (len(margin) - 2) + "| " + pad + "^")
        if self.hint:
            lines.append(f"       = hint: {self.hint}")
        return "\n".join(lines)


class SpecError(ValueError):
    """A workflow file that cannot be accepted, with everything that is wrong with it.

    `problems` is never empty and is ordered by position. `rendered` is the text the positions
    refer to where templates were filled in, else None.
    """

    def __init__(self, problems: Iterable[Problem], *, rendered: str | None = None) -> None:
        ordered = sorted(problems, key=lambda p: (p.line or 1 << 60, p.column))
        if not ordered:
            raise ValueError("a SpecError needs at least one problem")
        self.problems: tuple[Problem, ...] = tuple(ordered)
        self.rendered = rendered
        super().__init__(ordered[0].message)

    @property
    def code(self) -> ErrorCode:
        """The error code for the whole answer: that of the first problem."""
        return self.problems[0].code

    def __str__(self) -> str:
        body = "\n".join(str(problem) for problem in self.problems)
        count = len(self.problems)
        summary = f"{count} problem{'s' if count > 1 else ''} found."
        if any(problem.in_rendered for problem in self.problems):
            summary += " Lines marked (rendered) are those of the text after its templates."
        return f"{body}\n{summary}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form: OSMO's error fields, and each problem beside them."""
        return {
            "message": str(self),
            "error_code": self.code.value,
            "problems": [problem.to_dict() for problem in self.problems],
        }

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self.problems, self.rendered)


def _rebuild(problems: tuple[Problem, ...], rendered: str | None) -> SpecError:
    return SpecError(problems, rendered=rendered)


def format_location(location: Location) -> str:
    """`("workflow", "tasks", 2, "image")` -> `workflow.tasks[2].image`."""
    text = ""
    for step in location:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += f".{step}" if text else step
    return text
