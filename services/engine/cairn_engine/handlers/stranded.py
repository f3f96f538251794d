"""What lies in clusters where it should not: looked for whenever the clusters have changed."""

from __future__ import annotations

from collections.abc import Sequence

from cairn_engine.core import Clusters, Input, Lose, Relocate
from cairn_engine.store import Store

_PAGE = 200
_FIRST = ("", -1)


class Stranded:
    """Finds the groups of a lane's partitions that have to be looked at, a page at a time.

    Args:
        store: where the groups are.
        clusters: what is known of the clusters.
    """

    def __init__(self, store: Store, clusters: Clusters) -> None:
        self._store = store
        self._clusters = clusters
        self._seen = -1
        self._after: dict[type[Lose] | type[Relocate], tuple[str, int]] = {}

    @property
    def waiting(self) -> bool:
        """Whether there may be more to find."""
        return bool(self._after) or self._seen != self._clusters.version

    def again(self) -> None:
        """Begin anew: what was found may not have been decided."""
        self._seen = -1

    async def next(self, partitions: Sequence[int]) -> list[Input]:
        """A page of what there is to decide."""
        if self._seen != self._clusters.version:
            self._seen = self._clusters.version
            # What is lost first: it may be what holds a gang where it is.
            self._after = {Lose: _FIRST, Relocate: _FIRST}
        for kind in list(self._after):
            groups = await self._page(kind, partitions, self._after[kind])
            if len(groups) < _PAGE:
                del self._after[kind]
            else:
                self._after[kind] = groups[-1]
            if groups:
                return [kind(*group) for group in groups]
        return []

    async def _page(
        self, kind: type[Lose] | type[Relocate], partitions: Sequence[int], after: tuple[str, int]
    ) -> list[tuple[str, int]]:
        clusters = self._clusters
        if kind is Lose and clusters.gone:
            return await self._store.on_nodes_of(partitions, clusters, after, _PAGE)
        if kind is Relocate and (clusters.served or clusters.gone):
            return await self._store.queued_elsewhere(partitions, clusters, after, _PAGE)
        return []
