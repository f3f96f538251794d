"""What must be in a cluster before its first group: priorities, queues, topologies.

Applied at every start, so that the configuration is the truth. Two kinds cannot be changed: the
value of a PriorityClass, which is refused, and the levels of a Topology, which is made anew.
"""

from __future__ import annotations

import asyncio

from cairn_bridge.cluster import ClusterError
from cairn_bridge.drivers.kubernetes.api import Api, ApiError, Document, kind_of
from cairn_bridge.drivers.kubernetes.core.scheduling import scheduler_objects
from cairn_bridge.drivers.kubernetes.core.site import Site


async def prepare(api: Api, site: Site) -> None:
    """Bring the scheduler's objects in line with the configuration.

    Raises:
        ClusterError: the cluster refuses one, e.g. as it has no KAI Scheduler; the message says
            which and why.
    """
    await asyncio.gather(*(_apply(api, each) for each in scheduler_objects(site)))


async def _apply(api: Api, document: Document) -> None:
    kind, name = kind_of(document), document["metadata"]["name"]
    try:
        try:
            await api.apply(document)
        except ApiError as error:
            if document["kind"] != "Topology" or error.status != 422:
                raise
            await api.delete(kind, name)
            await api.apply(document)
    except ApiError as error:
        hint = ""
        if error.status == 404:
            hint = "; is KAI Scheduler installed?"
        raise ClusterError(f"{document['kind']} {name}: {error}{hint}") from error
