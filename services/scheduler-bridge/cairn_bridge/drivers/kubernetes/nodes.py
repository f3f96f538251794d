"""The nodes of a cluster: what they are, and which of them are lost.

A node that is not heard of may come back; after the set time what ran on it counts as lost, and
attempts that follow carry a higher number, so that a node which returns with old work changes
nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Set
from datetime import UTC, datetime

from cairn_bridge.drivers.kubernetes.api import Api, Document, Kind
from cairn_bridge.drivers.kubernetes.core.inventory import is_ready
from cairn_bridge.drivers.kubernetes.core.observe import condition, moment
from cairn_bridge.drivers.kubernetes.watch import Follower


class Nodes:
    """Follows the nodes.

    Args:
        api: the API server.
        patience: seconds that a node may be away.
        lose: called with a lost node's name and words about it.
    """

    def __init__(self, api: Api, patience: float, lose: Callable[[str, str], None]) -> None:
        self.present: dict[str, Document] = {}
        self.follower = Follower(api, Kind("v1", "nodes"), self._changed, self._listed)
        self._patience = patience
        self._lose = lose
        self._away: dict[str, asyncio.TimerHandle] = {}

    def close(self) -> None:
        """Stop the clocks."""
        for timer in self._away.values():
            timer.cancel()

    def _listed(self, present: Set[str]) -> None:
        for name, node in list(self.present.items()):
            if node["metadata"]["uid"] not in present:
                self._gone(name)

    def _changed(self, kind: str, item: Document) -> None:
        name = item["metadata"]["name"]
        if kind == "DELETED":
            self._gone(name)
            return
        self.present[name] = _kept(item)
        if is_ready(item):
            timer = self._away.pop(name, None)
            if timer is not None:
                timer.cancel()
        elif name not in self._away:
            ready = condition(item, "Ready")
            since = moment(ready.get("lastTransitionTime")) or datetime.now(UTC)
            words = ready.get("message") or ready.get("reason") or "it reports nothing"
            away = (datetime.now(UTC) - since).total_seconds()
            self._start_clock(name, f"node {name} is lost: {words}", self._patience - away)

    def _gone(self, name: str) -> None:
        self.present.pop(name, None)
        if name not in self._away:
            self._start_clock(name, f"node {name} was removed", self._patience)

    def _start_clock(self, name: str, words: str, wait: float) -> None:
        loop = asyncio.get_running_loop()
        self._away[name] = loop.call_later(max(0.0, wait), self._lose, name, words)


def _kept(node: Document) -> Document:
    """What of a node is used: not its list of images."""
    metadata, status = node["metadata"], node.get("status") or {}
    return {
        "metadata": {
            "name": metadata["name"],
            "uid": metadata["uid"],
            "labels": metadata.get("labels") or {},
        },
        "spec": node.get("spec") or {},
        "status": {
            "allocatable": status.get("allocatable") or {},
            "conditions": status.get("conditions") or [],
        },
    }
