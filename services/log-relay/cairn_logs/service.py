"""The log relay as a process: wiring and lifecycle."""

from __future__ import annotations

import asyncio

from cairn_common.events.subjects import LOGS, WORKFLOWS
from cairn_common.messaging import (
    DeadLetters,
    Inbox,
    Publisher,
    connect_bus,
    ensure_streams,
)
from cairn_logs.archive import Archive
from cairn_logs.handlers import DURABLE, EndHandler, Followers, IngestHandler, reading_router
from cairn_logs.settings import LogRelaySettings


class LogRelayService:
    """One log relay; it owns its archive."""

    def __init__(self, settings: LogRelaySettings) -> None:
        self._settings = settings
        self.ready = asyncio.Event()

    async def run(self) -> None:
        """Work until canceled."""
        archive = Archive(self._settings.archive_path)
        followers = Followers()
        bus = await connect_bus(
            self._settings.nats_url,
            "log-relay",
            [reading_router(archive, followers)],
            self._settings.nats_credentials,
        )
        publisher = Publisher(bus)
        dead_letters = DeadLetters(publisher, "log-relay")
        ingest = IngestHandler(bus, archive, publisher, dead_letters, followers)
        end = EndHandler(bus, archive, ingest, dead_letters, followers)
        inboxes = [
            Inbox(bus, LOGS, DURABLE, "task.log.>", ingest.deliver, on_restored=ingest.restart),
            Inbox(bus, WORKFLOWS, "log-relay-ends", "workflow.finished.>", end.deliver),
        ]
        try:
            await ensure_streams(bus.jetstream)
            await publisher.start()
            async with asyncio.TaskGroup() as group:
                for inbox in inboxes:
                    await inbox.start()
                await ingest.locate()
                group.create_task(ingest.run())
                group.create_task(end.run())
                await bus.broker.start()
                self.ready.set()
        finally:
            for inbox in inboxes:
                await inbox.close()
            await publisher.close()
            await bus.broker.stop()
            archive.close()
