"""Where Cairn is: an argument, the environment, or what runs on this machine.

`cairn up` writes its URL to `<home>/run/state.json`. That file is read here and not through the
package that writes it: a client on another machine has no standalone package installed.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from cairn_client.errors import ConnectionFailed

URL_VARIABLE = "CAIRN_URL"
HOME_VARIABLE = "CAIRN_HOME"
START_HINT = "Is Cairn running? Start it with `cairn up`."


@dataclass(frozen=True, slots=True)
class Address:
    """A URL without a slash at its end, and what to say when nothing answers there."""

    url: str
    hint: str


def find(given: str | None = None) -> Address:
    """Where to send requests: `given`, `$CAIRN_URL`, or the Cairn that runs on this machine.

    Raises:
        ConnectionFailed: none of them says where, or what they say is no URL.
    """
    if given:
        return Address(_checked(given), START_HINT)
    if named := os.environ.get(URL_VARIABLE):
        return Address(_checked(named), f"{URL_VARIABLE} names this address. {START_HINT}")
    home = Path(os.environ.get(HOME_VARIABLE) or "~/.cairn").expanduser()
    try:
        state = json.loads((home / "run" / "state.json").read_bytes())
        url, phase = str(state["url"]), str(state.get("phase"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        # No file, or half of one: for a client both mean that nothing runs here.
        raise ConnectionFailed(
            "",
            "No Cairn runs on this machine, and no other is named.",
            f"Start one with `cairn up`, or name one with --url or {URL_VARIABLE}.",
        ) from None
    if phase == "starting":
        return Address(_checked(url), "Cairn is still starting; try again in a moment.")
    return Address(_checked(url), START_HINT)


def _checked(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower() not in {"http", "https"} or not rest.strip("/"):
        raise ConnectionFailed(
            url, f"{url!r} is no address of Cairn.", "Write it as http://HOST:PORT."
        )
    return url.rstrip("/")
