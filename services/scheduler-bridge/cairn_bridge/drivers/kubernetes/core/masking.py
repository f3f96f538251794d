"""Hides the values of credentials in what tasks say.

Source: OSMO user guide, "Secrets": values of eight characters or more are masked in logs and in
error messages; shorter ones would hide half of every text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

SHORTEST = 8
MASK = "[MASKED]"


class Mask:
    """Hides these values; of one that has several lines, each of them."""

    def __init__(self, values: Iterable[str]) -> None:
        lines = {line.strip() for value in values for line in value.splitlines()}
        # Longest first, or a value within another would uncover the rest of it.
        hidden = sorted((line for line in lines if len(line) >= SHORTEST), key=len, reverse=True)
        self._hidden = re.compile("|".join(map(re.escape, hidden))) if hidden else None

    def __call__(self, text: str) -> str:
        """The text as everybody may read it."""
        return text if self._hidden is None else self._hidden.sub(MASK, text)


NO_MASK = Mask(())
