"""The pipe that tells every descendant, however distant, that the supervisor is gone.

A death signal reaches only the supervisor's own children. What those start and mean to outlive
themselves (a task must survive a restart of the bridge) inherits the read end of a pipe whose
only write end is the supervisor's: whatever way the supervisor ends, the kernel closes it, and a
reader sees end of file. Nobody ever writes.

After a clean stop the same pipe tells who is still there: a process that holds the read end.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
from collections.abc import Iterator
from pathlib import Path

from cairn_standalone.state import Identity, end


class Lifeline:
    """Both ends of the pipe."""

    def __init__(self) -> None:
        self.read_end, self._write_end = os.pipe()  # neither is inherited unless asked for
        self._inode = os.fstat(self.read_end).st_ino

    def cut(self) -> None:
        """Tell all descendants to end. The second call does nothing."""
        if self._write_end >= 0:
            os.close(self._write_end)
            self._write_end = -1

    def close(self) -> None:
        """Cut it and let go of our read end."""
        self.cut()
        if self.read_end >= 0:
            os.close(self.read_end)
            self.read_end = -1

    def unheld(self) -> bool:
        """Whether nobody but us holds a read end. Only before it is cut, and only once.

        It lets go of our own read end: a pipe without readers answers a poll with POLLERR.
        """
        os.close(self.read_end)
        self.read_end = -1
        poll = select.poll()
        poll.register(self._write_end, 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))

    async def cut_and_wait(self, patience: float) -> int:
        """Tell all descendants to end, wait up to `patience` seconds, kill the rest.

        Returns how many there were.
        """
        if self.unheld():
            self.close()
            return 0
        holders = tuple(self._holders())
        self.cut()
        await asyncio.to_thread(end, holders, patience)
        return len(holders)

    def _holders(self) -> Iterator[Identity]:
        link = f"pipe:[{self._inode}]"
        for process in Path("/proc").iterdir():
            if not process.name.isdigit() or int(process.name) == os.getpid():
                continue
            identity = Identity.of(int(process.name)) if _holds(process, link) else None
            if identity is not None:
                yield identity


def _holds(process: Path, link: str) -> bool:
    """Whether one of a process's descriptors is this."""
    try:
        for descriptor in (process / "fd").iterdir():
            # It may be closed meanwhile; that says nothing of the others.
            with contextlib.suppress(FileNotFoundError):
                if str(descriptor.readlink()) == link:
                    return True
    except OSError:  # ended meanwhile, or not ours to look into
        pass
    return False
