"""What the watches say of groups and pods, taken down; what follows from it is begun.

Nothing here waits: a watch must not fall behind because the cluster or the bus is slow.
"""

from __future__ import annotations

from collections.abc import Set

import structlog

from cairn_bridge.cluster import Phase
from cairn_bridge.drivers.kubernetes.api import Document
from cairn_bridge.drivers.kubernetes.attempts import Attempt, Gang, Register
from cairn_bridge.drivers.kubernetes.barriers import Barriers
from cairn_bridge.drivers.kubernetes.clocks import Clocks
from cairn_bridge.drivers.kubernetes.core import names
from cairn_bridge.drivers.kubernetes.core.observe import group_waits_for, look
from cairn_bridge.drivers.kubernetes.endings import Endings
from cairn_bridge.drivers.kubernetes.litter import Litter
from cairn_bridge.drivers.kubernetes.telling import Teller
from cairn_bridge.drivers.kubernetes.watch import LISTED
from cairn_common.events import FinishReason

log = structlog.get_logger(__name__)


class Sightings:
    """Takes down what is seen."""

    def __init__(
        self,
        register: Register,
        teller: Teller,
        endings: Endings,
        clocks: Clocks,
        barriers: Barriers,
        litter: Litter,
    ) -> None:
        self._register = register
        self._teller = teller
        self._endings = endings
        self._clocks = clocks
        self._barriers = barriers
        self._litter = litter
        self._pods_known = False
        # Uids, as long as a list is being read.
        self._groups_before: Set[str] = frozenset()
        self._pods_before: Set[str] = frozenset()

    def groups_listing(self) -> None:
        """All groups are about to be listed."""
        gangs = self._register.gangs.values()
        self._groups_before = {gang.pod_group for gang in gangs if gang.pod_group is not None}

    def groups_listed(self, present: Set[str]) -> None:
        """The uids of all groups that there are, but for the newest."""
        gone, self._groups_before = self._groups_before - present, frozenset()
        for gang in list(self._register.gangs.values()):
            if gang.pod_group in gone:
                self._group_gone(gang)

    def group_changed(self, kind: str, item: Document) -> None:
        """News of one group; `kind` is that of the watch event."""
        uuid = item["metadata"]["labels"][names.GROUP]
        if kind == "DELETED":
            gang = self._register.gangs.get(uuid)
            if gang is not None and gang.pod_group == item["metadata"]["uid"]:
                self._group_gone(gang)
            return
        self._teller.mind_words(self._note_group(item))

    def _note_group(self, item: Document) -> Gang:
        metadata = item["metadata"]
        gang = self._register.gang(metadata["labels"][names.GROUP])
        if gang.pod_group != metadata["uid"]:
            gang.minima = _minima(item)
        gang.pod_group = metadata["uid"]
        gang.waits_for = group_waits_for(item)
        marks = [each for each in metadata["annotations"] if each.startswith(names.PLACED)]
        gang.placed.update(each.removeprefix(names.PLACED) for each in marks)
        if not gang.attempts:
            self._litter.mind(gang)
        return gang

    def _group_gone(self, gang: Gang) -> None:
        """Deleting the parent deletes all; no garbage collector does it, see `manifests`."""
        gang.pod_group = None
        gang.placed.clear()
        orphaned = [each for each in gang.attempts.values() if each.live]
        if not orphaned:
            return
        log.warning("kubernetes.group_deleted", group=gang.uuid, pods=len(orphaned))
        words = "its PodGroup was deleted, and not by Cairn"
        for attempt in orphaned:
            self._teller.spawn(self._endings.order(attempt, FinishReason.BACKEND_ERROR, words))

    def pods_listing(self) -> None:
        """All pods are about to be listed."""
        self._pods_before = {attempt.sight.uid for attempt in self._register.all()}

    def pods_listed(self, present: Set[str]) -> None:
        """The uids of all pods that there are, but for the newest."""
        gone, self._pods_before = self._pods_before - present, frozenset()
        attempts = self._register.all()
        for attempt in attempts:
            if attempt.sight.uid in gone and not attempt.pod_gone:
                self._endings.vanished(attempt, None)
        self._barriers.mind_all(attempts)
        self._pods_known = True

    def pod_changed(self, kind: str, item: Document) -> None:
        """News of one pod; `kind` is that of the watch event."""
        if kind == "DELETED":
            attempt = self._register.of_pod(item["metadata"]["name"])
            if attempt is not None and attempt.sight.uid == item["metadata"]["uid"]:
                self._endings.vanished(attempt, item)
        else:
            attempt = self._note_pod(item)
        if kind == LISTED:  # what it means for a barrier is clear when all are known
            if attempt is not None and not self._pods_known:
                self._begin_anew(attempt)
        elif attempt is not None:
            self._barriers.mind(attempt)

    def _begin_anew(self, attempt: Attempt) -> None:
        """Goes on with an attempt that was there before this bridge."""
        if attempt.told is not None or not attempt.gang.whole(attempt.sight.placement):
            return
        # An end is told again, since nobody knows whether it was; less than that is not.
        attempt.told = Phase.ACCEPTED if not attempt.live else attempt.phase
        if attempt.phase is Phase.STARTED:
            self._teller.follow_log(attempt)
        self._teller.advance(attempt)

    def _note_pod(self, item: Document) -> Attempt | None:
        sight = look(item)
        if sight is None or self._register.was_settled(sight.key):
            return None
        attempt = self._register.note(sight)
        if attempt.log is not None and sight.command_over:
            attempt.log.command_over()
        if attempt.phase is Phase.FINISHED:
            self._endings.seen(attempt, item)
        else:
            self._clocks.mind(attempt)
        if attempt.sight.waits_for and attempt.gang.waits_for is None:
            self._teller.mind_words(attempt.gang)
        self._teller.advance(attempt)
        return attempt


def _minima(pod_group: Document) -> dict[str | None, int]:
    spec = pod_group["spec"]
    leaves = [each for each in spec.get("subGroups") or () if "minMember" in each]
    minima: dict[str | None, int] = {each["name"]: each["minMember"] for each in leaves}
    return minima or {None: spec.get("minMember", 1)}
