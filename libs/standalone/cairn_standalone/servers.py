"""The two servers alone, for tests and benchmarks: `python -m cairn_standalone.servers HOME`.

Prints one line of JSON once both are ready: the settings that a service needs to use them. Ends,
and leaves nothing behind, when its standard input ends.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from cairn_standalone.core import Process
from cairn_standalone.home import Home
from cairn_standalone.supervisor import Failure, Settings, Supervisor


class _Announcer:
    """Says on standard output that the servers are ready, and on standard error what fails."""

    def __init__(self) -> None:
        self.supervisor: Supervisor | None = None

    def changed(self, processes: Sequence[Process], now: float) -> None:
        """Progress is of no interest here."""

    def ready(self, url: str) -> None:
        if self.supervisor is not None:
            sys.stdout.write(json.dumps(self.supervisor.service_settings()) + "\n")
            sys.stdout.flush()

    def restarting(self, name: str, reason: str, delay: float) -> None:
        sys.stderr.write(f"{name} starts again in {delay:.1f} s: {reason}\n")

    def gave_up(self, failure: Failure) -> None:
        sys.stderr.write(f"{failure.name}: {failure.reason}\n" + "\n".join(failure.tail) + "\n")

    def stopping(self) -> None:
        """Nothing to say."""


async def _serve(home: Path) -> bool:
    announcer = _Announcer()
    supervisor = Supervisor(Settings(Home(home), services=()), announcer)
    announcer.supervisor = supervisor
    end_of_input = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    end_of_input.add_done_callback(lambda _: supervisor.stop())
    return await supervisor.run()


if __name__ == "__main__":
    raise SystemExit(0 if asyncio.run(_serve(Path(sys.argv[1]).absolute())) else 1)
