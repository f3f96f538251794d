"""OSMO's special tokens: places that only the running system can fill in.

`{{output}}`, `{{input:0}}`, `{{input:task}}`, `{{workflow_id}}`, `{{host:task}}` and `{{uuid}}`
look like Jinja but are not: they are recognised only without spaces, survive rendering untouched
and are substituted when a task is placed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

TOKEN = re.compile(
    r"\{\{(?:(output|workflow_id|uuid)|(input|host):([A-Za-z0-9_.:/-]+))\}\}", re.ASCII
)
RESERVED_NAMES = frozenset({"output", "workflow_id", "uuid"})
"""Names that mean a token when written without spaces, so no template variable may have them."""
SPACED_NAMES = RESERVED_NAMES | {"input", "host"}


@dataclass(frozen=True, slots=True)
class Token:
    """One token in a text: `kind` is output, workflow_id, uuid, input or host.

    `argument` is what follows the colon ("" without one); `start` and `end` are offsets.
    """

    kind: str
    argument: str
    start: int
    end: int

    @property
    def text(self) -> str:
        """The token as it is written."""
        colon = f":{self.argument}" if self.argument else ""
        return "{{" + self.kind + colon + "}}"


def find_tokens(text: str) -> list[Token]:
    """Every token of a text, in order."""
    return list(iter_tokens(text))


def iter_tokens(text: str) -> Iterator[Token]:
    """As `find_tokens`, one at a time; texts without braces cost one search."""
    if "{{" in text:
        for match in TOKEN.finditer(text):
            yield Token(match[1] or match[2], match[3] or "", match.start(), match.end())


def substitute(text: str, resolver: Callable[[Token], str | None]) -> str:
    """Replace each token by what `resolver` returns; None leaves the token as it is.

    Replacements are not searched again, so a value that looks like a token stays text.
    """
    if "{{" not in text:
        return text

    def replacement(match: re.Match[str]) -> str:
        token = Token(match[1] or match[2], match[3] or "", match.start(), match.end())
        value = resolver(token)
        return match[0] if value is None else value

    return TOKEN.sub(replacement, text)
