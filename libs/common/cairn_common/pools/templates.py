"""Merging pod templates: a rule that fits in one sentence.

Maps are merged key by key and what comes later wins; lists of maps that carry a name (containers,
volumes, environment variables by `name`; mounts by `mountPath`; tolerations by `key`) are merged
entry by entry; any other value replaces the earlier one, and null removes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

_KEYS = ("mountPath", "name", "key", "containerPort", "ip")
"""The first that all have: a mount's `name` is that of its volume, which may be mounted twice."""


def merge_all(templates: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Templates from the most general to the most particular, as one."""
    merged: dict[str, Any] = {}
    for template in templates:
        merged = merge(merged, template)
    return merged


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` on top of `base`; neither is changed."""
    merged = dict(base)
    for name, value in over.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = _merge_values(merged.get(name), value)
    return merged


def _merge_values(base: Any, over: Any) -> Any:
    if isinstance(over, Mapping):
        return merge(base if isinstance(base, Mapping) else {}, over)
    if isinstance(base, list) and isinstance(over, list):
        key = _common_key([*base, *over])
        if key is not None:
            return _merge_lists(base, over, key)
    return over


def _common_key(entries: list[Any]) -> str | None:
    """What names the entries of a list, if they all are maps that have it."""
    if not entries or not all(isinstance(each, Mapping) for each in entries):
        return None
    return next((key for key in _KEYS if all(key in each for each in entries)), None)


def _merge_lists(base: list[Any], over: list[Any], key: str) -> list[Any]:
    merged = {each[key]: each for each in base}
    for each in over:
        merged[each[key]] = _merge_values(merged.get(each[key]), each)
    return list(merged.values())
