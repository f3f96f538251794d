"""`ClusterDriver` for Kubernetes: takes placements, watches pods, tells their fate.

The cluster's objects are the whole record. A finalizer keeps every pod until its outcome is
settled, so a pod that is deleted, evicted or preempted while no bridge runs is found by the next
one, with its exit code, just as Kubernetes Jobs do it.

This module starts and ends the parts: `orders` makes and removes objects, `sightings` takes down
what the watches say (as `core.observe` reads it), `endings` and `clocks` decide that an attempt is
over, `barriers` lets groups start, `litter` removes what is half-made, `telling` says all of it to
the engine, in order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, Final

import structlog

from cairn_bridge.cluster import (
    AttemptKey,
    ByteStream,
    ClusterError,
    ExecStream,
    Phase,
    Reporter,
)
from cairn_bridge.drivers.kubernetes.api import Api, ApiError
from cairn_bridge.drivers.kubernetes.attempts import Register
from cairn_bridge.drivers.kubernetes.barriers import Barriers
from cairn_bridge.drivers.kubernetes.clocks import Clocks, Patience
from cairn_bridge.drivers.kubernetes.core import names
from cairn_bridge.drivers.kubernetes.core.inventory import node_info
from cairn_bridge.drivers.kubernetes.core.site import Site
from cairn_bridge.drivers.kubernetes.endings import Endings
from cairn_bridge.drivers.kubernetes.litter import Litter
from cairn_bridge.drivers.kubernetes.nodes import Nodes
from cairn_bridge.drivers.kubernetes.orders import Orders
from cairn_bridge.drivers.kubernetes.others import Others
from cairn_bridge.drivers.kubernetes.passes import Passes
from cairn_bridge.drivers.kubernetes.placing import Placer
from cairn_bridge.drivers.kubernetes.preparing import prepare
from cairn_bridge.drivers.kubernetes.sightings import Sightings
from cairn_bridge.drivers.kubernetes.streams import PodExec, PodPort
from cairn_bridge.drivers.kubernetes.telling import Teller
from cairn_bridge.drivers.kubernetes.watch import Follower
from cairn_common.events import GroupPlacement, NodeInfo
from cairn_common.security import PassIssuer
from cairn_common.spec.features import Feature

FEATURES: Final = frozenset(
    {
        Feature.CREDENTIALS,
        Feature.GPU,
        Feature.HOST_NETWORK,
        Feature.NODES_EXCLUDED,
        Feature.PLATFORM,
        Feature.PRIVILEGED,
        Feature.TOPOLOGY,
        Feature.VOLUME_MOUNTS,
    }
)
"""What pods can do, where their platform lets them."""


class KubernetesDriver:
    """One cluster, or one namespace of it.

    Args:
        connect: opens the connection to the API server.
        site: what is the same for every group.
        patience: see `Patience`.
        issuer: gives tasks credentials for NATS; without one they get none.
    """

    def __init__(
        self,
        connect: Callable[[], Coroutine[Any, Any, Api]],
        site: Site,
        *,
        patience: Patience | None = None,
        issuer: PassIssuer | None = None,
    ) -> None:
        self.name = site.cluster
        kept = {Feature.CHECKPOINT} if site.runtime_image is not None else set()
        self.features = FEATURES | kept
        self._connect = connect
        self._site = site
        self._patience = patience or Patience()
        self._issuer = issuer
        self._register = Register()
        self._followers: list[asyncio.Task[None]] = []
        self._api: Api
        self._placer: Placer
        self._teller: Teller
        self._nodes: Nodes
        self._others: Others
        self._litter: Litter
        self._orders: Orders
        self.group_follower: Follower
        self.pod_follower: Follower
        self._say = structlog.get_logger(__name__).bind(cluster=site.cluster)

    # --- life ---

    async def start(self, reporter: Reporter) -> None:
        """See `ClusterDriver`. Raises ClusterError or ApiError when the cluster refuses."""
        self._api = await self._connect()
        site = self._site
        passes = None
        if self._issuer is not None:
            passes = Passes(self._api, site, self._issuer, self._register)
        self._placer = Placer(self._api, site, passes)
        self._teller = Teller(
            self._api, self._placer.pods, reporter, helpers=site.runtime_image is not None
        )
        register, placer, teller = self._register, self._placer, self._teller
        self._litter = Litter(register, placer, teller, self._patience.orphan)
        endings = Endings(register, placer, teller, self._litter)
        self._orders = Orders(register, placer, teller, endings, self._litter)
        clocks = Clocks(register, teller, endings, self._patience)
        barriers = Barriers(placer, teller, endings)
        sightings = Sightings(register, teller, endings, clocks, barriers, self._litter)
        self._nodes = Nodes(self._api, self._patience.node, clocks.lose_node)
        self._others = Others(self._api, site.cluster)
        await prepare(self._api, site)
        selector = names.selector(site.cluster)
        self.group_follower = Follower(
            self._api,
            self._placer.pod_groups,
            sightings.group_changed,
            sightings.groups_listed,
            sightings.groups_listing,
            labelSelector=selector,
        )
        self.pod_follower = Follower(
            self._api,
            self._placer.pods,
            sightings.pod_changed,
            sightings.pods_listed,
            sightings.pods_listing,
            labelSelector=selector,
        )
        # Groups first: they say which placements are whole.
        for follower in (self.group_follower, self._nodes.follower, self.pod_follower):
            task = asyncio.create_task(follower.run())
            self._followers.append(task)
            await _until(follower.listed, task)
        task = self._teller.spawn(self._others.run())
        await _until(self._others.follower.listed, task)
        if passes is not None:
            self._teller.spawn(passes.renew_for_ever())
        for gang in list(self._register.gangs.values()):
            self._litter.mind(gang)

    async def close(self) -> None:
        """See `ClusterDriver`."""
        for task in self._followers:
            task.cancel()
        await asyncio.gather(*self._followers, return_exceptions=True)
        self._followers.clear()
        if not hasattr(self, "_teller"):
            return
        self._nodes.close()
        await self._teller.close()
        for attempt in self._register.all():
            attempt.stop_clocks()
            if attempt.log is not None:
                await attempt.log.close()
        for gang in self._register.gangs.values():
            for timer in (gang.sweep, gang.words):
                if timer is not None:
                    timer.cancel()
        await self._api.close()

    def _check(self) -> None:
        """A watch that has failed for good leaves the driver blind: begin anew."""
        for task in self._followers:
            if task.done() and not task.cancelled() and (error := task.exception()):
                raise ClusterError(f"{self.name} cannot be watched: {error!r}") from error

    # --- orders ---

    async def place(self, placement: GroupPlacement, traceparent: str | None) -> None:
        """See `ClusterDriver`."""
        self._check()
        await self._orders.place(placement, traceparent)

    async def stop(self, keys: Iterable[AttemptKey], cause: str, grace_seconds: float) -> None:
        """See `ClusterDriver`."""
        self._check()
        await self._orders.stop(keys, cause, grace_seconds)

    async def settle(self, keys: Iterable[AttemptKey]) -> None:
        """See `ClusterDriver`. Attempts that have not ended stay."""
        await self._orders.settle(keys)

    # --- telling again ---

    async def report_all(self) -> None:
        """See `ClusterDriver`."""
        everything = [each for each in self._register.all() if each.told is not None]
        for attempt in everything:
            if attempt.log is not None:
                attempt.log.rewind(0)
        ended = [each for each in everything if each.told is Phase.FINISHED]
        for start in range(0, len(ended), 64):
            some = ended[start : start + 64]
            await asyncio.gather(*(self._teller.log_again(each, 0) for each in some))
        await self._teller.phases(everything)

    def known(self) -> frozenset[AttemptKey]:
        """See `ClusterDriver`."""
        return frozenset(each.key for each in self._register.all())

    async def resend_log(self, key: AttemptKey, from_seq: int) -> None:
        """See `ClusterDriver`."""
        attempt = self._register.get(key)
        if attempt is not None:
            await self._teller.log_again(attempt, from_seq)

    # --- looking ---

    async def inventory(self) -> list[NodeInfo]:
        """See `ClusterDriver`."""
        self._check()
        uses = {node: [use] for node, use in self._others.uses().items()}
        for attempt in self._register.all():
            if attempt.live and attempt.sight.node is not None:
                uses.setdefault(attempt.sight.node, []).append(attempt.sight.use)
        return [
            node_info(node, uses.get(name, ()), self._site)
            for name, node in sorted(self._nodes.present.items())
        ]

    async def exec(self, key: AttemptKey, command: Sequence[str]) -> ExecStream:
        """See `ClusterDriver`."""
        pod = self._running(key)
        try:
            return await PodExec.start(self._api, self._placer.pods, pod, command)
        except ApiError as error:
            raise LookupError(f"task {key.name} of {key.workflow}: {error}") from error

    async def port_forward(self, key: AttemptKey, port: int) -> ByteStream:
        """See `ClusterDriver`."""
        pod = self._running(key)
        try:
            return await PodPort.connect(self._api, self._placer.pods, pod, port)
        except ApiError as error:
            raise LookupError(f"task {key.name} of {key.workflow}: {error}") from error

    def _running(self, key: AttemptKey) -> str:
        attempt = self._register.get(key)
        if attempt is None or attempt.phase is not Phase.STARTED:
            raise LookupError(f"task {key.name} of {key.workflow} is not running")
        return attempt.sight.pod


async def _until(event: asyncio.Event, task: asyncio.Task[None]) -> None:
    """Until an event; what its task fails with is raised."""
    waiting = asyncio.create_task(event.wait())
    try:
        await asyncio.wait({waiting, task}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
    finally:
        waiting.cancel()
