"""What the API server means when a namespace's quota refuses a pod.

Source: Kubernetes, admission plugin ResourceQuota; its refusals read `exceeded quota: NAME,
requested: requests.cpu=8, used: requests.cpu=60, limited: requests.cpu=64`.
"""

from __future__ import annotations

import re

from cairn_bridge.drivers.kubernetes.core import quantities

_MARK = "exceeded quota:"
_PAIR = re.compile(r"([\w./-]+)=([0-9.]+[A-Za-z]*)")


def exceeds_quota(message: str) -> bool:
    """Whether a refusal is one of a quota."""
    return _MARK in message


def never_fits(message: str, pods: int) -> bool:
    """Whether so many pods like the refused one exceed the quota even when it is unused."""
    requested = _amounts(message, "requested")
    limited = _amounts(message, "limited")
    return any(
        name in limited and quantities.parse(amount) * pods > quantities.parse(limited[name])
        for name, amount in requested.items()
    )


def _amounts(message: str, word: str) -> dict[str, str]:
    _, found, rest = message.partition(f"{word}: ")
    if not found:
        return {}
    text = re.split(r", (?:requested|used|limited): ", rest)[0]
    return dict(_PAIR.findall(text))
