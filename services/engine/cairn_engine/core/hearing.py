"""Who has not been heard of, and for how long.

What counts is the time in which the engine itself could hear: an engine that has just started,
was paused, or had no connection has no reason to call a cluster silent.
"""

from __future__ import annotations

from dataclasses import dataclass

USUAL_INTERVAL = 5.0


@dataclass(slots=True)
class _Ear:
    silence: float = 0.0
    interval: float = USUAL_INTERVAL


class Hearing:
    """Keeps the silence of each cluster.

    Args:
        missed_beats: how many heartbeats may fail to come.
        lost_after: seconds of silence after which what runs in a cluster counts as lost.
    """

    def __init__(self, missed_beats: float, lost_after: float) -> None:
        self._missed_beats = missed_beats
        self._lost_after = lost_after
        self._ears: dict[str, _Ear] = {}

    def heard(self, cluster: str, interval: float | None = None) -> None:
        """A cluster said something; `interval` is how often it means to, in seconds."""
        ear = self._ears.setdefault(cluster, _Ear())
        ear.silence = 0.0
        if interval is not None:
            ear.interval = interval

    def listened(self, seconds: float) -> None:
        """So much time has passed in which every cluster could have been heard."""
        for ear in self._ears.values():
            ear.silence += seconds

    def keep(self, clusters: frozenset[str]) -> None:
        """These are the clusters to listen for; new ones get their time."""
        self._ears = {name: self._ears.get(name) or _Ear() for name in clusters}

    @property
    def silent(self) -> frozenset[str]:
        """Those that have missed too many beats."""
        return frozenset(
            name
            for name, ear in self._ears.items()
            if ear.silence > self._missed_beats * ear.interval
        )

    @property
    def lost(self) -> frozenset[str]:
        """Those that have been silent for so long that what runs there counts as lost."""
        return frozenset(
            name for name in self.silent if self._ears[name].silence > self._lost_after
        )
