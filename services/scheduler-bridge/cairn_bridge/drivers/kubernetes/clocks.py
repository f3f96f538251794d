"""What may pass by itself is waited for, and not for ever.

The times count from when the bridge sees the trouble, except a task's start timeout, which counts
from what the cluster wrote down.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime

from cairn_bridge.cluster import Phase
from cairn_bridge.drivers.kubernetes.attempts import Attempt, Register
from cairn_bridge.drivers.kubernetes.core.observe import Trouble
from cairn_bridge.drivers.kubernetes.endings import Endings
from cairn_bridge.drivers.kubernetes.telling import Teller
from cairn_common.events import FinishReason


@dataclass(frozen=True, slots=True)
class Patience:
    """How long what may pass by itself is waited for, in seconds.

    Args:
        image: for an image that cannot be pulled.
        start: for a container that cannot be made.
        node: for a node that is not heard of.
        orphan: for half-made groups, which nobody may ever complete.
        quiet: before it is said what keeps a task from starting.
    """

    image: float = 300.0
    start: float = 60.0
    node: float = 300.0
    orphan: float = 600.0
    quiet: float = 2.0


class Clocks:
    """Gives up attempts whose time is over."""

    def __init__(
        self, register: Register, teller: Teller, endings: Endings, patience: Patience
    ) -> None:
        self._register = register
        self._teller = teller
        self._endings = endings
        self._patience = patience

    def mind(self, attempt: Attempt) -> None:
        """Keeps the clocks of an attempt that has not ended."""
        self._say_what_keeps(attempt)
        loop = asyncio.get_running_loop()
        trouble, sight = attempt.sight.trouble, attempt.sight
        if trouble is None:
            if attempt.patience is not None:
                attempt.patience.cancel()
                attempt.patience = None
        elif attempt.patience is None:
            patience = self._patience
            wait = patience.image if trouble.reason is FinishReason.IMAGE_PULL else patience.start
            attempt.patience = loop.call_later(
                0 if trouble.hopeless else wait, self._give_up, attempt
            )
        if attempt.phase is Phase.STARTED and attempt.start_clock is not None:
            attempt.start_clock.cancel()
            attempt.start_clock = None
        elif (
            attempt.phase is Phase.SCHEDULED
            and sight.start_timeout is not None
            and attempt.start_clock is None
        ):
            since = (datetime.now(UTC) - sight.at).total_seconds()
            attempt.start_clock = loop.call_later(
                max(0.0, sight.start_timeout - since), self._start_timed_out, attempt
            )

    def _say_what_keeps(self, attempt: Attempt) -> None:
        """Nobody needs to hear of what takes a moment."""
        if attempt.phase is not Phase.SCHEDULED or attempt.sight.waits_for == attempt.told_words:
            return
        if attempt.quiet is None:
            later = asyncio.get_running_loop().call_later
            attempt.quiet = later(self._patience.quiet, self._break_silence, attempt)

    def _break_silence(self, attempt: Attempt) -> None:
        attempt.quiet = None
        words = attempt.sight.waits_for
        if attempt.phase is Phase.SCHEDULED and words not in {None, attempt.told_words}:
            attempt.told_words = words
            self._teller.spawn(self._teller.starting(attempt))

    def _give_up(self, attempt: Attempt) -> None:
        trouble: Trouble | None = attempt.sight.trouble
        if trouble is not None and attempt.live:
            self._teller.spawn(self._endings.order(attempt, trouble.reason, trouble.message))

    def _start_timed_out(self, attempt: Attempt) -> None:
        if attempt.phase is Phase.SCHEDULED:
            words = f"the command did not start within {attempt.sight.start_timeout:g} s"
            if attempt.sight.trouble is not None:
                words += f": {attempt.sight.trouble.message}"
            self._teller.spawn(self._endings.order(attempt, FinishReason.START_TIMEOUT, words))

    def lose_node(self, node: str, words: str) -> None:
        """What was on a node is lost."""
        for attempt in self._register.on_node(node):
            self._teller.spawn(
                self._endings.order(attempt, FinishReason.NODE_LOST, words, ended=True)
            )
