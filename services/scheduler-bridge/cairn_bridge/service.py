"""The bridge as a process: wiring and lifecycle."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import structlog

from cairn_bridge.cluster import AttemptKey, ClusterDriver
from cairn_bridge.handlers import OrderHandler, resend_router
from cairn_bridge.orphans import Orphans
from cairn_bridge.reconcile import EngineAwayError, reconcile
from cairn_bridge.reporter import BusReporter
from cairn_bridge.settings import BridgeSettings
from cairn_common.events import ClusterHeartbeat, ClusterResources, encode
from cairn_common.events.subjects import PLACEMENTS, cluster_inbox
from cairn_common.messaging import (
    Bus,
    DeadLetters,
    Inbox,
    Publisher,
    connect_bus,
    ensure_streams,
)

log = structlog.get_logger(__name__)

_ENGINE_AWAY_SECONDS = 1.0
_RECONCILE_AGAIN_SECONDS = 5.0
_REPEATED_AT_ONCE = 256


class BridgeService:
    """One bridge process with one cluster.

    Args:
        settings: see `BridgeSettings`.
        make_driver: makes the cluster's driver once the event loop runs.
    """

    def __init__(
        self, settings: BridgeSettings, make_driver: Callable[[BridgeSettings], ClusterDriver]
    ) -> None:
        self._settings = settings
        self._make_driver = make_driver
        self.ready = asyncio.Event()

    async def run(self) -> None:
        """Work until canceled. What runs in the cluster goes on running."""
        settings = self._settings
        driver = self._make_driver(settings)
        bus = await connect_bus(
            settings.nats_url,
            f"bridge-{settings.cluster}",
            [resend_router(driver)],
            settings.nats_credentials,
        )
        publisher = Publisher(bus)
        reporter = BusReporter(publisher, settings.cluster, settings.unsettled_seconds)
        handler = OrderHandler(driver, reporter, DeadLetters(publisher, "bridge"))
        emptied = asyncio.Event()
        emptied.set()  # a bridge that starts compares, too
        inbox = Inbox(
            bus,
            PLACEMENTS,
            f"bridge-{settings.cluster}",
            cluster_inbox(settings.cluster),
            handler.deliver,
            on_restored=emptied.set,
        )
        try:
            await ensure_streams(bus.jetstream)
            await publisher.start()
            async with asyncio.TaskGroup() as group:
                group.create_task(reporter.run())
                await driver.start(reporter)
                await bus.broker.start()
                group.create_task(handler.run())
                await inbox.start()
                group.create_task(self._reconcile_when(emptied, bus, driver, reporter))
                group.create_task(self._repeat_unsettled(driver, reporter))
                group.create_task(self._beat(publisher))
                group.create_task(self._take_inventory(driver, publisher))
                group.create_task(Orphans(bus, driver, settings.orphan_seconds).run())
                self.ready.set()
        finally:
            await inbox.close()
            await driver.close()
            await publisher.close()
            await bus.broker.stop()

    async def _reconcile_when(
        self, emptied: asyncio.Event, bus: Bus, driver: ClusterDriver, reporter: BusReporter
    ) -> None:
        while True:
            await emptied.wait()
            emptied.clear()
            try:
                await reconcile(bus, driver, reporter)
            except EngineAwayError:
                await asyncio.sleep(_ENGINE_AWAY_SECONDS)
                emptied.set()
            except Exception:  # what runs must not wait for the two to agree
                log.exception("not reconciled, trying again")
                await asyncio.sleep(_RECONCILE_AGAIN_SECONDS)
                emptied.set()

    async def _repeat_unsettled(self, driver: ClusterDriver, reporter: BusReporter) -> None:
        """What is unanswered too long is said again: the end, and the log that goes with it."""
        while True:
            await asyncio.sleep(self._settings.unsettled_seconds / 4)
            overdue = reporter.overdue()
            if overdue:
                log.info("reporting unsettled ends again", attempts=len(overdue))
                try:
                    await self._repeat(overdue, driver, reporter)
                except Exception:  # this loop is what heals: it may not end; they are due again
                    log.exception("unsettled ends not reported again")

    async def _repeat(
        self, overdue: Sequence[AttemptKey], driver: ClusterDriver, reporter: BusReporter
    ) -> None:
        known = driver.known()
        for start in range(0, len(overdue), _REPEATED_AT_ONCE):
            some = overdue[start : start + _REPEATED_AT_ONCE]
            # The last line is enough: who lacks one before it will ask.
            await asyncio.gather(
                *(driver.resend_log(key, reporter.log_lines(key)) for key in some if key in known)
            )
            await reporter.repeat(some)

    async def _beat(self, publisher: Publisher) -> None:
        settings = self._settings
        while True:
            beat = ClusterHeartbeat(
                cluster=settings.cluster,
                at=datetime.now(UTC),
                interval_seconds=settings.heartbeat_seconds,
            )
            await publisher.publish([encode(beat, source=f"/bridge/{settings.cluster}")])
            await asyncio.sleep(settings.heartbeat_seconds)

    async def _take_inventory(self, driver: ClusterDriver, publisher: Publisher) -> None:
        settings = self._settings
        pools = settings.pools_of_cluster
        while True:
            resources = ClusterResources(
                cluster=settings.cluster,
                at=datetime.now(UTC),
                pools=list(pools.pools),
                nodes=await driver.inventory(),
                definitions=pools.announced(),
                features=sorted(driver.features),
            )
            await publisher.publish([encode(resources, source=f"/bridge/{settings.cluster}")])
            await asyncio.sleep(settings.inventory_seconds)
