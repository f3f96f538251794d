"""Labels: those that come with a submission, and the selectors of lists.

A selector is `key=value`; the value may hold `*` for any text and `(a|b)` for alternatives.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from cairn_api.core.errors import ApiError

MAX_LABELS = 16
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_PREFIX = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_MAX_PREFIX = 253
_MAX_SELECTOR = 256


@dataclass(frozen=True, slots=True)
class Selector:
    """Workflows whose label `key` is `value`, or matches `pattern` where there is one."""

    key: str
    value: str
    pattern: str | None = None


def parse_labels(items: Iterable[str]) -> dict[str, str]:
    """The labels of `key=value` texts.

    Raises:
        ApiError: one of them is no label.
    """
    labels: dict[str, str] = {}
    for item in items:
        key, separator, value = item.partition("=")
        if not separator:
            raise ApiError(f'"{item}" is not a label. Write key=value.', "USAGE")
        prefix, slash, name = key.rpartition("/")
        if not _NAME.fullmatch(name) or (
            slash and (len(prefix) > _MAX_PREFIX or not _PREFIX.fullmatch(prefix))
        ):
            raise ApiError(f'Workflow label key "{key}" is not a valid Kubernetes label key.')
        if not _NAME.fullmatch(value):
            raise ApiError(
                f'Workflow label value "{value}" is not a valid non-empty Kubernetes label value.'
            )
        labels[key] = value
    return labels


def merge_labels(written: dict[str, str], given: dict[str, str]) -> dict[str, str]:
    """The labels of the file with those of the submission over them.

    Raises:
        ApiError: they are too many together.
    """
    merged = {**written, **given}
    if len(merged) > MAX_LABELS:
        raise ApiError(f"Workflows can have at most {MAX_LABELS} labels.")
    return merged


def parse_selector(text: str) -> Selector:
    """A selector of a list.

    Raises:
        ApiError: it is none.
    """
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise ApiError(f'"{text[:80]}" is not a label selector. Write key=value.', "USAGE")
    if len(text) > _MAX_SELECTOR:
        raise ApiError(f"A label selector has at most {_MAX_SELECTOR} characters.", "USAGE")
    if not re.search(r"[*()|]", value):
        return Selector(key, value)
    return Selector(key, value, _pattern(value, text))


def _pattern(value: str, text: str) -> str:
    """A regular expression that PostgreSQL reads as we mean it: only literals, `.*` and groups."""
    parts: list[str] = []
    open_group = False
    for character in value:
        if character == "*":
            parts.append(".*")
        elif character == "(" and not open_group:
            open_group = True
            parts.append("(?:")
        elif character == ")" and open_group:
            open_group = False
            parts.append(")")
        elif character == "|" and open_group:
            parts.append("|")
        elif character in "()|":
            raise ApiError(f'"{text}": alternatives are written (a|b), not nested.', "USAGE")
        else:
            parts.append(character if character.isalnum() else f"\\{character}")
    if open_group:
        raise ApiError(f'"{text}": a parenthesis is not closed.', "USAGE")
    return f"^(?:{''.join(parts)})$"
