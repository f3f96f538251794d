"""The whole of Cairn on one machine, supervised: `cairn up`, `cairn down`, `cairn status`."""

from __future__ import annotations

from pathlib import Path

from cairn_standalone.home import Home, default_home
from cairn_standalone.state import running

__all__ = ["discover"]


def discover(home: Path | None = None) -> str | None:
    """The URL of the API of the standalone system that runs on `home`; None: none runs there.

    Without `home`, the home is `$CAIRN_HOME` or `~/.cairn`. It reads one file and asks the kernel
    whether its writer lives; it does not connect. While the system starts there is a URL already.
    """
    state = running(Home(home or default_home()))
    return state.url if state else None
