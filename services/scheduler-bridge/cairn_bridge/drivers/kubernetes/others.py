"""What others run on the cluster's nodes: there is no room for Cairn where they are.

Only sums are kept, since a cluster may have far more pods than Cairn has. A bridge that may not
see the pods of other namespaces goes on without: the scheduler knows better anyhow, and the
engine then chooses between clusters by what Cairn itself has used.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Final

import structlog

from cairn_bridge.drivers.kubernetes.api import Api, ApiError, Document, Kind
from cairn_bridge.drivers.kubernetes.core import names
from cairn_bridge.drivers.kubernetes.core.inventory import Use, use_of
from cairn_bridge.drivers.kubernetes.watch import Follower

log = structlog.get_logger(__name__)

_HOLDING: Final = "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed"


class Others:
    """Follows the pods on nodes that are not this bridge's."""

    def __init__(self, api: Api, cluster: str) -> None:
        self._pods: dict[str, tuple[str, Use]] = {}
        self.follower = Follower(
            api,
            Kind("v1", "pods"),
            self._changed,
            self._listed,
            labelSelector=f"{names.CLUSTER}!={cluster}",
            fieldSelector=_HOLDING,
        )

    async def run(self) -> None:
        """Follow until canceled, or for as long as it is allowed."""
        try:
            await self.follower.run()
        except ApiError as error:
            log.warning("kubernetes.others_unseen", error=str(error))
        finally:
            self._pods.clear()
            self.follower.listed.set()

    def uses(self) -> dict[str, Use]:
        """What they ask for, by node."""
        found: dict[str, Use] = {}
        for node, use in self._pods.values():
            found[node] = found[node].plus(use) if node in found else use
        return found

    def _listed(self, present: Set[str]) -> None:
        for uid in self._pods.keys() - present:
            del self._pods[uid]

    def _changed(self, kind: str, item: Document) -> None:
        uid = item["metadata"]["uid"]
        if kind == "DELETED":  # or ended: then it no longer fits what was asked for
            self._pods.pop(uid, None)
        else:
            self._pods[uid] = item["spec"]["nodeName"], use_of(item)
