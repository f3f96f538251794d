"""What can go wrong between a client and Cairn, as a caller wants to tell it apart.

    CairnError
    ├── ConnectionFailed   nothing answers, or the connection broke
    ├── VersionMismatch    something answers, in words this client does not know
    └── ApiError           Cairn refuses, and says why
        └── SubmissionError   a workflow is refused

`str()` of each is a message for people. Nothing heavy is imported here: the command line catches
these before it knows whether it will need an HTTP library.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


class CairnError(Exception):
    """Any failure that this client reports."""


class ConnectionFailed(CairnError):  # noqa: N818 - what happened, not an error class of a library
    """Cairn could not be reached, or was lost in the middle of an answer.

    Attributes:
        url: where it was looked for; "" if no address is known.
        reason: what happened, in words.
        hint: what may mend it.
    """

    def __init__(self, url: str, reason: str, hint: str = "") -> None:
        self.url = url
        self.reason = reason
        self.hint = hint
        super().__init__(f"{reason}\n{hint}" if hint else reason)


class VersionMismatch(CairnError):  # noqa: N818 - as above
    """An answer that this client does not understand: not Cairn, or one of another time."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault in a workflow file. `line` and `column` count from 1, 0 is unknown.

    With `in_rendered` they are those of the text after its templates were filled in.
    """

    message: str
    path: str = ""
    file: str = ""
    line: int = 0
    column: int = 0
    in_rendered: bool = False
    hint: str = ""
    code: str = ""
    source_line: str = ""

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Problem:
        """A problem as the API tells it; fields that are missing or new do no harm."""
        return cls(
            message=str(fields.get("message") or ""),
            path=str(fields.get("path") or ""),
            file=str(fields.get("file") or ""),
            line=_number(fields.get("line")),
            column=_number(fields.get("column")),
            in_rendered=bool(fields.get("in_rendered")),
            hint=str(fields.get("hint") or ""),
            code=str(fields.get("code") or ""),
            source_line=str(fields.get("source_line") or ""),
        )


class ApiError(CairnError):
    """A refusal by the API.

    Attributes:
        message: what is wrong.
        error_code: the kind, such as USAGE, DATABASE (not found) or RESOURCE.
        status: the HTTP status; 0 if the client itself found out before it sent anything.
        problems: of a workflow file, each fault with its place.
        workflow_id: the workflow it is about, if any.
    """

    def __init__(
        self,
        message: str,
        *,
        error_code: str = "",
        status: int = 0,
        problems: Sequence[Problem] = (),
        workflow_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.error_code = error_code
        self.status = status
        self.problems = tuple(problems)
        self.workflow_id = workflow_id


class SubmissionError(ApiError):
    """A workflow that is not accepted."""


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0
