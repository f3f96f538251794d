"""Keeping what is known of the clusters: who is heard of, who registers, what somebody orders.

Every engine listens for itself. What is ordered lies in a table that all of them read: at once
when one of them says that it has changed, and otherwise every few seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

import structlog

from cairn_common.events import ClusterChanged, ClusterHeartbeat, ClusterResources, encode
from cairn_common.messaging import Bus, ClusterNews, News, Publisher
from cairn_common.persistence import TRANSIENT
from cairn_common.requests import ClusterAction, ClusterReply, ClusterRequest
from cairn_engine.core import Clusters, Hearing, State
from cairn_engine.handlers.announce import SOURCE
from cairn_engine.store import ClusterStore

log = structlog.get_logger(__name__)

_TICK_SECONDS = 0.5
_READ_SECONDS = 2.0
_STATES = {ClusterAction.DRAIN: State.DRAINING, ClusterAction.RESUME: State.ACTIVE}


class ClusterKeeper:
    """Keeps `clusters` up to date.

    Args:
        store: the table of clusters.
        clusters: what decisions look at.
        hearing: who has been silent, and for how long.
    """

    def __init__(self, store: ClusterStore, clusters: Clusters, hearing: Hearing) -> None:
        self._store = store
        self._clusters = clusters
        self._hearing = hearing
        self._announced: dict[str, ClusterResources] = {}
        self._states: dict[str, tuple[State, list[str]]] = {}
        self._started = False
        self._told = 0  # the version of the clusters that was passed on
        self._read_now = asyncio.Event()
        self._bus: Bus
        self._publisher: Publisher

    async def start(self, bus: Bus, publisher: Publisher) -> None:
        """Learn what there is; from then on hear of it."""
        self._bus = bus
        self._publisher = publisher
        await self._read()
        # A heartbeat from before the start is no sign of life.
        await ClusterNews(bus, self._take, [ClusterResources]).start()
        self._started = True

    async def run(self, changed: Callable[[], None]) -> None:
        """Work until canceled; `changed` is called when other clusters take work than before."""
        loop = asyncio.get_running_loop()
        before = loop.time()
        read_at = before
        while True:
            try:
                async with asyncio.timeout(_TICK_SECONDS):
                    await self._read_now.wait()
            except TimeoutError:
                pass
            now = loop.time()
            if self._bus.client.is_connected:
                # After a pause of the whole process, what was said meanwhile comes only now.
                self._hearing.listened(min(now - before, 2 * _TICK_SECONDS))
            before = now
            if self._read_now.is_set() or now >= read_at:
                self._read_now.clear()
                read_at = now + _READ_SECONDS
                try:
                    await self._read()
                except TRANSIENT as error:
                    log.warning("clusters not read", error=repr(error))
            self._clusters.hear(self._hearing.silent, self._hearing.lost)
            if self._clusters.version != self._told:
                self._told = self._clusters.version
                log.info(
                    "clusters",
                    taking_work=sorted(self._clusters.takers),
                    silent=sorted(self._hearing.silent),
                    lost=sorted(self._clusters.gone),
                )
                changed()

    async def _read(self) -> None:
        """Take in the table, and for clusters that are new in it what they have announced."""
        states = await self._store.all()
        new = states.keys() - self._states.keys()
        self._states = states
        self._hearing.keep(frozenset(states))
        self._clusters.register(states)
        for name in new & self._announced.keys():
            self._announce(self._announced[name])

    async def _take(self, event: News) -> None:
        if isinstance(event, ClusterChanged):
            self._read_now.set()
            return
        if self._started:
            interval = event.interval_seconds if isinstance(event, ClusterHeartbeat) else None
            self._hearing.heard(event.cluster, interval)
        if isinstance(event, ClusterResources):
            try:
                await self._register(event)
            except TRANSIENT as error:  # it will be said again
                log.warning("cluster not registered", cluster=event.cluster, error=repr(error))

    async def _register(self, event: ClusterResources) -> None:
        name = event.cluster
        self._announced[name] = event
        state, pools = self._states.get(name, (None, []))
        new = state in {None, State.REMOVED}
        if state is State.REMOVED and not self._started:
            return  # what it said long ago does not bring it back
        if new or pools != event.pools:
            registered = await self._store.register(name, event.pools)
            await self._read()
            if new:
                log.info("cluster registered", cluster=name, pools=event.pools)
                await self._say(name, registered)
        self._announce(event)

    def _announce(self, event: ClusterResources) -> None:
        self._clusters.announce(event.cluster, event.nodes, event.definitions, event.features)

    async def _say(self, name: str, state: State) -> None:
        event = ClusterChanged(cluster=name, at=datetime.now(UTC), state=state.value)
        await self._publisher.publish([encode(event, source=SOURCE)])

    async def order(self, request: ClusterRequest) -> ClusterReply:
        """Drain, resume or remove a cluster."""
        name = request.cluster
        if (state := self._states.get(name, (State.REMOVED, []))[0]) is State.REMOVED:
            await self._read()
            state = self._states.get(name, (State.REMOVED, []))[0]
        if state is State.REMOVED:
            return ClusterReply(known=False)
        wanted = _STATES.get(request.action, State.REMOVED)
        if wanted is State.REMOVED and not request.force:
            held = await self._store.open_in(name)
            if held:
                return ClusterReply(open_attempts=held)
        if state is not wanted:
            if not await self._store.change(name, wanted):
                return ClusterReply(known=False)
            await self._read()
            await self._say(name, wanted)
            self._read_now.set()
        return ClusterReply(state=wanted.value)
