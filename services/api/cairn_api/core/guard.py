"""Who may talk to an API that has no password: programs of this machine, and no web page.

A task is a command, so a page in the user's browser must not be able to submit one. Three doors
are closed: another name for this machine (DNS rebinding) by the Host header, another origin by
the Origin header, and the "simple" requests that a browser sends without asking by requiring
JSON. There are no CORS headers, so no page can read an answer either.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


def host_of(header: str) -> str:
    """The name in a Host header, without its port and brackets, in lower case; "" if malformed."""
    try:
        parts = urlsplit(f"//{header}")
        name = parts.hostname or ""
        _ = parts.port  # raises for what is no port
    except ValueError:
        return ""
    if not name or parts.path or parts.query or parts.fragment or parts.username is not None:
        return ""
    return name.rstrip(".")


def host_is_allowed(header: str, allowed: Collection[str]) -> bool:
    """Whether requests for this host are for us."""
    name = host_of(header)
    return bool(name) and (name in _LOCAL_NAMES or name in allowed)


def origin_is_allowed(origin: str, scheme: str, host: str) -> bool:
    """Whether a request with this Origin comes from a page that we served ourselves."""
    return origin.lower() == f"{scheme}://{host}".lower()


def content_is_json(content_type: str) -> bool:
    """Whether a body says that it is JSON."""
    return content_type.partition(";")[0].strip().lower() == "application/json"


def is_loopback(host: str) -> bool:
    """Whether listening on this address reaches this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
