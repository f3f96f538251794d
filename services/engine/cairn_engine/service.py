"""The engine as a process: wiring and lifecycle."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from pathlib import Path

import structlog

from cairn_common.messaging import DeadLetters, Publisher, connect_bus, ensure_streams
from cairn_common.persistence import TRANSIENT, connect_database, migrate
from cairn_engine.core import Clusters, Hearing
from cairn_engine.handlers.announce import Announcer
from cairn_engine.handlers.batch import BatchHandler
from cairn_engine.handlers.clusters import ClusterKeeper
from cairn_engine.handlers.lane import Lane
from cairn_engine.handlers.requests import requests_router
from cairn_engine.handlers.stranded import Stranded
from cairn_engine.settings import EngineSettings
from cairn_engine.store import ClusterStore, Leases, Store

log = structlog.get_logger(__name__)

MIGRATIONS = Path(__file__).parent / "migrations"


class EngineService:
    """One engine process; several share the partitions."""

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self.ready = asyncio.Event()
        self.lanes: list[Lane] = []

    async def run(self) -> None:
        """Work until canceled; gives its partitions back at the end."""
        settings = self._settings
        owner = f"{socket.gethostname()}-{os.getpid()}-{os.urandom(3).hex()}"
        database = await connect_database(settings.database_url, size=settings.database_connections)
        await migrate(settings.database_url, "engine", MIGRATIONS)
        store = Store(database, owner)
        leases = Leases(database, owner, settings.lease_seconds)
        clusters = Clusters(settings.pins)
        hearing = Hearing(settings.missed_beats, settings.cluster_lost_seconds)
        keeper = ClusterKeeper(ClusterStore(database), clusters, hearing)
        bus = await connect_bus(
            settings.nats_url,
            "engine",
            [requests_router(store, keeper)],
            settings.nats_credentials,
        )
        publisher = Publisher(bus)
        try:
            await ensure_streams(bus.jetstream)
            await publisher.start()
            await leases.create()
            await keeper.start(bus, publisher)
            announcer = Announcer(store)
            self.lanes = [
                Lane(
                    bus,
                    store,
                    BatchHandler(store, announcer, settings.policy(), settings.pool, clusters),
                    announcer,
                    publisher,
                    DeadLetters(publisher, "engine"),
                    settings.batch_size,
                    settings.lease_seconds,
                    Stranded(store, clusters),
                )
                for _ in range(settings.lanes)
            ]
            await bus.broker.start()
            async with asyncio.TaskGroup() as group:
                for lane in self.lanes:
                    group.create_task(lane.run())
                group.create_task(self._hold(leases))
                group.create_task(keeper.run(self._wake_lanes))
        finally:
            with contextlib.suppress(*TRANSIENT):  # the database may have gone first
                await leases.leave()
            await publisher.close()
            await bus.broker.stop()
            await database.close()

    def _wake_lanes(self) -> None:
        for lane in self.lanes:
            lane.wake()

    async def _hold(self, leases: Leases) -> None:
        """Renew the leases and give each lane its partitions."""
        owned: dict[int, int] | None = None
        while True:
            try:
                held = await leases.renew()
            except TRANSIENT as error:
                log.warning("leases not renewed", error=repr(error))
            else:
                for number, lane in enumerate(self.lanes):
                    await lane.own(
                        {p: epoch for p, epoch in held.items() if p % len(self.lanes) == number}
                    )
                if held != owned:
                    log.info("partitions owned", partitions=sorted(held))
                    owned = held
                self.ready.set()
            await asyncio.sleep(self._settings.lease_seconds / 3)
