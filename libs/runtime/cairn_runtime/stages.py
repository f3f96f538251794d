"""Work of the shim's in processes of their own, forked from it: what blocks, and can be killed.

The child's words come through a pipe: a line's end is a zero byte, and what follows the last one
is its failure. Lines are handed on as they come. Some children take orders, lines of text, by
another pipe.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from typing import NoReturn

from cairn_runtime import libc
from cairn_runtime.copying import StorageError
from cairn_runtime.process import exit_code
from cairn_runtime.reactor import Reactor
from cairn_runtime.transfer import Say


class Stage:
    """One such process.

    Args:
        reactor: what calls us back.
        work: what the child does, with a way to say lines and the descriptor of its orders.
        close: closes in the child what belongs to the shim alone.
        say: takes a line of the child's.
        done: takes its failure, or None, once it has ended.
    """

    def __init__(
        self,
        reactor: Reactor,
        work: Callable[[Say, int], None],
        *,
        close: Callable[[], None],
        say: Say,
        done: Callable[[str | None], None],
    ) -> None:
        self._reactor = reactor
        self._say = say
        self._done = done
        self._said = b""
        self._over = False
        self._read, write = os.pipe2(os.O_CLOEXEC)
        orders, self._orders = os.pipe2(os.O_CLOEXEC)
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._read)
            os.close(self._orders)
            close()
            _work(work, write, orders)
        os.close(write)
        os.close(orders)
        reactor.read(self._read, self._listen)
        reactor.child(self.pid, self._ended)
        reactor.soon()

    def order(self, words: str) -> None:
        """Tells the child; one that has ended hears nothing."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._orders, f"{words}\n".encode())

    def kill(self) -> None:
        """Ends it at once; `done` follows. Nothing if it has ended."""
        if not self._over:
            os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Closes what another child of the shim must not hold."""
        os.close(self._orders)

    def _listen(self) -> None:
        data = os.read(self._read, 65536)
        if not data:
            self._reactor.forget(self._read)
            os.close(self._read)
            return
        *lines, self._said = (self._said + data).split(b"\0")
        for line in lines:
            self._say(line.decode(errors="replace"))

    def _ended(self, status: int) -> None:
        self._over = True
        while self._reactor.watches(self._read):
            self._listen()
        os.close(self._orders)
        failure = self._said.decode(errors="replace")
        if (code := exit_code(status)) and not failure:
            failure = f"the transfer was killed (exit code {code})"
        self._done(failure or None)


def _work(work: Callable[[Say, int], None], write: int, orders: int) -> NoReturn:
    code = 1
    try:
        libc.die_with_parent(signal.SIGKILL)
        signal.set_wakeup_fd(-1)
        work(lambda words: _say(write, words + "\0"), orders)
        code = 0
    except (StorageError, OSError) as error:
        _say(write, str(error))
    finally:
        os._exit(code)


def _say(write: int, words: str) -> None:
    data = words.encode(errors="replace")
    while data:
        data = data[os.write(write, data) :]
