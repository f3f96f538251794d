"""How a service runs as a process: logs, traces, uvloop, signals, readiness."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import signal
from typing import Protocol

import structlog
import uvloop

from cairn_common.readiness import notify_ready
from cairn_common.settings import ServiceSettings
from cairn_common.telemetry import configure_logs, configure_tracing, shutdown_tracing

log = structlog.get_logger(__name__)


class Service(Protocol):
    """What `run_service` runs."""

    @property
    def ready(self) -> asyncio.Event:
        """Set once the service does its work."""

    async def run(self) -> None:
        """Works until canceled, then tidies up."""


def run_service(name: str, settings: ServiceSettings, service: Service) -> None:
    """Run a service until SIGTERM or SIGINT; a failure ends the process with its traceback."""
    _collect_rarely()
    configure_logs(name, form=settings.log_format, level=settings.log_level)
    configure_tracing(name, settings.otlp_endpoint)
    try:
        uvloop.run(_run(name, service))
    finally:
        shutdown_tracing()


def _collect_rarely() -> None:
    """Services make many objects that live long and hardly any cycles, so that the collector's
    defaults would walk the same heap again and again: up to a fifth of an engine's time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def give_back_memory() -> None:
    """After something unusually large: the C library keeps what was freed unless it is told to
    return it (`malloc_trim(3)`, of glibc)."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


async def _run(name: str, service: Service) -> None:
    work = asyncio.create_task(service.run(), name=name)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, work.cancel)
    announce = asyncio.create_task(_announce(name, service))
    try:
        await work
    except asyncio.CancelledError:
        log.info("stopped")
    finally:
        announce.cancel()


async def _announce(name: str, service: Service) -> None:
    await service.ready.wait()
    log.info("ready")
    notify_ready()
