"""The API as a process: wiring and lifecycle."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import structlog
import uvicorn
from fastapi import FastAPI
from opentelemetry.trace import Span

from cairn_api.core.guard import is_loopback
from cairn_api.core.inventory import Inventory
from cairn_api.handlers.application import make_app
from cairn_api.handlers.clusters import ClusterListener
from cairn_api.handlers.context import Context, Streams
from cairn_api.handlers.listening import Listening
from cairn_api.handlers.logreading import LogFollower, LogReader
from cairn_api.handlers.outgoing import Outgoing, Sweep
from cairn_api.handlers.watching import Watches
from cairn_api.settings import ApiSettings
from cairn_api.store import Reader, Writer, open_engine
from cairn_common.messaging import Bus, DeadLetterBox, Publisher, connect_bus, ensure_streams
from cairn_common.persistence import connect_database, migrate
from cairn_common.spec import SpecLoader

log = structlog.get_logger(__name__)

MIGRATIONS = Path(__file__).parent / "migrations"
_BACKLOG = 1024
_GOODBYE_SECONDS = 3


class _Server(uvicorn.Server):
    """uvicorn without signal handlers of its own: `run_service` has them."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class ApiService:
    """One API process; any number may stand side by side."""

    def __init__(self, settings: ApiSettings) -> None:
        self._settings = settings
        self.ready = asyncio.Event()
        self.port = 0
        """Where it listens, once it does."""

    async def run(self) -> None:
        """Work until canceled; streams are ended, other requests answered."""
        settings = self._settings
        if not is_loopback(settings.api_host):
            log.warning("listening beyond this machine, and nobody is asked who they are")
        async with AsyncExitStack() as stack:
            listener = stack.enter_context(_listen(settings.api_host, settings.api_port))
            self.port = listener.getsockname()[1]
            loader = SpecLoader(workers=settings.spec_workers)
            async with asyncio.TaskGroup() as starting:
                # The loader's processes take as long to start as all the rest: side by side.
                starting.create_task(stack.enter_async_context(loader))
                starting.create_task(self._prepare_database())
                connecting = starting.create_task(self._connect_bus(stack))
            bus = connecting.result()
            engine = open_engine(settings.database_url, settings.database_connections)
            stack.push_async_callback(engine.dispose)
            publisher = Publisher(bus)
            await publisher.start()
            stack.push_async_callback(publisher.close)
            reader = Reader(engine)
            writer = Writer(engine, timedelta(seconds=settings.handover_seconds))
            outgoing = Outgoing(publisher)
            sweep = Sweep(writer, outgoing, settings.handover_seconds)
            listening = Listening(bus.client)
            inventory = Inventory(settings.pins, settings.default_pool)
            logs = LogReader(bus.client)
            context = Context(
                settings=settings,
                bus=bus,
                reader=reader,
                writer=writer,
                loader=loader,
                outgoing=outgoing,
                inventory=inventory,
                clusters=ClusterListener(bus, inventory),
                listening=listening,
                watches=Watches(
                    reader,
                    listening,
                    debounce=settings.debounce_seconds,
                    idle=settings.keepalive_seconds,
                ),
                logs=logs,
                follower=LogFollower(logs, listening, reader),
                streams=Streams(settings.max_streams),
                dead_letters=DeadLetterBox(bus.jetstream, publisher),
            )
            await context.clusters.start()
            await bus.broker.start()
            app = make_app(context)
            if settings.otlp_endpoint:
                _trace(app)
            async with asyncio.TaskGroup() as group:
                work = [group.create_task(outgoing.run()), group.create_task(sweep.run())]
                await self._serve(app, listener, context)
                for task in work:
                    task.cancel()

    async def _prepare_database(self) -> None:
        url = self._settings.database_url
        # Waits for a database that is still starting, which the migration does not.
        probe = await connect_database(url, size=1)
        await probe.close()
        await migrate(url, "api", MIGRATIONS)

    async def _connect_bus(self, stack: AsyncExitStack) -> Bus:
        settings = self._settings
        bus = await connect_bus(settings.nats_url, "api", credentials=settings.nats_credentials)
        stack.push_async_callback(bus.broker.stop)
        await ensure_streams(bus.jetstream)
        return bus

    async def _serve(self, app: FastAPI, listener: socket.socket, context: Context) -> None:
        """Serve until canceled, then let the followers go and answer what is being answered."""
        server = _Server(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                http="httptools",
                ws="none",
                lifespan="off",
                server_header=False,
                timeout_graceful_shutdown=_GOODBYE_SECONDS,
            )
        )
        serving = asyncio.create_task(server.serve([listener]), name="http")
        listener.listen(_BACKLOG)
        self.ready.set()
        log.info("listening", host=self._settings.api_host, port=self.port)
        try:
            await asyncio.shield(serving)
        finally:
            context.closing.set()
            await context.watches.close()
            server.should_exit = True
            await serving


def _trace(app: FastAPI) -> None:
    """A span a request, but none for each piece of a stream."""
    # Loading it takes a while, which who does not trace is spared.
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

    FastAPIInstrumentor.instrument_app(
        app,
        excluded_urls="/health,/api/ready",
        exclude_spans=["receive", "send"],
        server_request_hook=_without_query,
    )


def _without_query(span: Span, scope: dict[str, Any]) -> None:
    """The query may hold `env_vars`, whose values are nobody's business."""
    for name, value in dict(getattr(span, "attributes", None) or {}).items():
        if name == "url.query":
            span.set_attribute(name, "")
        elif name.startswith(("http.", "url.")) and isinstance(value, str):
            span.set_attribute(name, value.partition("?")[0])


@contextlib.contextmanager
def _listen(host: str, port: int) -> Iterator[socket.socket]:
    """A bound socket, taken first: a port that is in use is no reason to touch the database."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.setblocking(False)
        yield listener
