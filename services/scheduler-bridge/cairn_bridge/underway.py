"""The attempts that are just being placed. Who stops them waits until it is clear what to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from cairn_bridge.cluster import AttemptKey, Identity, identity


class UnderWay:
    """What a driver is placing."""

    def __init__(self) -> None:
        self._ends: dict[Identity, asyncio.Future[None]] = {}

    def __contains__(self, key: AttemptKey) -> bool:
        return identity(key) in self._ends

    @contextmanager
    def placing(self, keys: Iterable[AttemptKey]) -> Iterator[None]:
        """These are being placed as long as the context lasts."""
        end = asyncio.get_running_loop().create_future()
        ends = dict.fromkeys(map(identity, keys), end)
        self._ends.update(ends)
        try:
            yield
        finally:
            for each in ends:
                if self._ends.get(each) is end:  # and not placed once more meanwhile
                    del self._ends[each]
            end.set_result(None)

    async def over(self, keys: Iterable[AttemptKey]) -> None:
        """Returns when none of these is being placed."""
        identities = list(map(identity, keys))
        while ends := {self._ends[each] for each in identities if each in self._ends}:
            await asyncio.wait(ends)
