"""A small event loop for a process without threads: descriptors, timers, ended children.

The shim forks, and a process that forks must not have threads; asyncio would bring a hundred
modules into thousands of processes for what fits on this page.
"""

from __future__ import annotations

import heapq
import itertools
import os
import select
import signal
import time
from collections.abc import Callable

Callback = Callable[[], None]


class Reactor:
    """Calls back when a descriptor is ready, a moment has come or a child has ended."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._readers: dict[int, Callback] = {}
        self._timers: list[tuple[float, int, Callback]] = []
        self._numbers = itertools.count()
        self._children: dict[int, Callable[[int], None]] = {}
        self._running = True
        self._wake, self._woken = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(self._woken, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _ignore)
        self.read(self._wake, self._reap)

    def read(self, descriptor: int, callback: Callback) -> None:
        """Calls back whenever a descriptor can be read or has ended."""
        self._poll.register(descriptor, select.EPOLLIN)
        self._readers[descriptor] = callback

    def forget(self, descriptor: int) -> None:
        """Stops watching a descriptor, which is to be closed."""
        if self._readers.pop(descriptor, None):
            self._poll.unregister(descriptor)

    def watches(self, descriptor: int) -> bool:
        """Whether a descriptor is being watched."""
        return descriptor in self._readers

    def at(self, moment: float, callback: Callback) -> None:
        """Calls back at a moment of `time.monotonic`."""
        heapq.heappush(self._timers, (moment, next(self._numbers), callback))

    def child(self, pid: int, callback: Callable[[int], None]) -> None:
        """Calls back with the wait status of a child once it has ended."""
        self._children[pid] = callback

    def soon(self) -> None:
        """Looks for ended children at the next turn, for one whose end came before `child`."""
        os.write(self._woken, b"\0")

    def run(self) -> None:
        """Serves until `stop`."""
        while self._running:
            wait = None
            if self._timers:
                wait = max(0.0, self._timers[0][0] - time.monotonic())
            for descriptor, _ in self._poll.poll(wait):
                if callback := self._readers.get(descriptor):
                    callback()
            while self._running and self._timers and self._timers[0][0] <= time.monotonic():
                heapq.heappop(self._timers)[2]()

    def stop(self) -> None:
        """Ends `run` after this turn."""
        self._running = False

    def close(self) -> None:
        """Closes what the loop holds: for a forked child, which has its own life."""
        self._poll.close()
        os.close(self._wake)
        os.close(self._woken)

    def _reap(self) -> None:
        os.read(self._wake, 4096)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if callback := self._children.pop(pid, None):
                callback(status)


def _ignore(_number: int, _frame: object) -> None:
    """A handler must exist for the wake-up descriptor to be written to."""
