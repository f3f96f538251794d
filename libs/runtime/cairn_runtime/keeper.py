"""The shim's part in checkpoints: a process that makes them, and the time that it is given.

The process lives from the start of the command to the end of the last checkpoint, also between
two runs of the command. If it is killed meanwhile (say, on a machine short of memory), or there
was none to be had, there is still the last checkpoint, by another one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from cairn_runtime.checkpoints import LEAST_GRACE, attend
from cairn_runtime.reactor import Reactor
from cairn_runtime.room import Checkpoint
from cairn_runtime.stages import Stage
from cairn_runtime.transfer import Say


class Keeper:
    """The checkpoints of one attempt; the arguments are as for `Stage`."""

    def __init__(
        self,
        reactor: Reactor,
        entries: Sequence[Checkpoint],
        *,
        close: Callable[[], None],
        say: Say,
    ) -> None:
        self._reactor = reactor
        self._entries = entries
        self._close = close
        self._say = say
        self._stage: Stage | None = None
        self._patience = math.inf  # the moment until which the last checkpoint may take
        self._done: Callable[[str | None], None] | None = None

    @property
    def pid(self) -> int | None:
        """The process, if there is one."""
        return None if self._stage is None else self._stage.pid

    def start(self) -> None:
        """The command has started."""
        if not self._entries:
            return
        try:
            self._stage = Stage(
                self._reactor,
                lambda say, orders: attend(self._entries, say, orders),
                close=self._close,
                say=self._say,
                done=self._ended,
            )
        except OSError as error:  # no process to be had: not the command's fault
            self._ended(str(error))

    def finish(self, done: Callable[[str | None], None]) -> None:
        """The command has ended for good; `done` is told why the last checkpoint failed, if so."""
        if not self._entries:
            done(None)
            return
        self._done = done
        if self._stage is None:
            self.start()
        self._hurry()

    def allow(self, grace: float) -> None:
        """The attempt is being stopped: the last checkpoint has these seconds, together with what
        else is to end."""
        until = time.monotonic() + grace if grace > 0 else -math.inf
        self._patience = min(self._patience, until)
        if self._done is not None:
            self._hurry()

    def close(self) -> None:
        """Closes what another child of the shim must not hold."""
        if self._stage is not None:
            self._stage.close()

    def _hurry(self) -> None:
        stage = self._stage
        if stage is None:
            return
        if self._patience == math.inf:
            stage.order("last")
            return
        now = time.monotonic()
        seconds = 0.0
        if self._patience > -math.inf:
            seconds = max(self._patience - now, LEAST_GRACE)
        stage.order(f"last {seconds:.3f}")
        # It may hang in a storage that does not answer.
        self._reactor.at(now + seconds + LEAST_GRACE, stage.kill)

    def _ended(self, failure: str | None) -> None:
        self._stage = None
        if self._done is None:
            self._say(f"checkpoints ended ({failure}): there is only the last one to come")
        else:
            self._done(failure)
