"""What a standalone system consists of: two servers and the services, each as a `Part`.

A further service is one line in `SERVICES`. Every service is `python -m <module>` and gets the same
settings in its environment (see `service_settings`); it says that it is ready with
`cairn_common.readiness.notify_ready()` and ends on SIGTERM.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from cairn_standalone import nats, notify, postgres
from cairn_standalone.core import Rule
from cairn_standalone.home import Home, HomeError, Memory, choose_port, port_is_free
from cairn_standalone.process import Program


@dataclass(frozen=True, slots=True)
class Service:
    """One of Cairn's services."""

    name: str
    module: str


SERVICES = (
    Service("api", "cairn_api"),
    Service("engine", "cairn_engine"),
    Service("scheduler-bridge", "cairn_bridge"),
    Service("log-relay", "cairn_logs"),
)
_ENGINE = "engine"


def services(engines: int = 1) -> tuple[Service, ...]:
    """All services, with as many engines as are wanted: `engine`, `engine-2`, and so on.

    Engines share the work; more than one is for a machine of many cores, or to have another take
    over within seconds when one dies.
    """
    more = [Service(f"{_ENGINE}-{number}", "cairn_engine") for number in range(2, engines + 1)]
    return tuple(
        each
        for service in SERVICES
        for each in ((service, *more) if service.name == _ENGINE else (service,))
    )


@dataclass(slots=True)
class Surroundings:
    """What the parts of one run share."""

    home: Home
    memory: Memory
    sockets: Path
    lifeline: int
    """The read end of the lifeline: at its end of file the supervisor is gone."""
    api_port_given: bool = False
    """Somebody asked for this very port, so no other will do."""
    nats_monitor_port: int | None = None

    @property
    def api_url(self) -> str:
        """Where people and programs reach the system."""
        return f"http://127.0.0.1:{self.memory.api_port}"

    def replace_ports(self, *, nats_port: int | None = None, api_port: int | None = None) -> None:
        """Take another port, and remember it, because the chosen one was taken by somebody."""
        self.memory = replace(
            self.memory,
            nats_port=nats_port or self.memory.nats_port,
            api_port=api_port or self.memory.api_port,
        )
        self.home.remember(self.memory)


class Part(ABC):
    """One process of the system: how it stands to the others, what to run, when it is ready."""

    rule: Rule

    @abstractmethod
    async def prepare(self, stack: ExitStack) -> Program:
        """What must be there before each start. `stack` is closed when the start is over.

        Raises:
            HomeError: starting cannot work; trying again does not help.
            OSError: something failed that may work the next time.
        """

    @abstractmethod
    async def wait_until_ready(self) -> None:
        """Return when the process can be used; called once after each `prepare`."""

    async def wait_until_sick(self) -> str:
        """Return why, when the ready process cannot work any more and a new start may mend it.

        By default never: a process that cannot work is expected to end.
        """
        never: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        return await never


class Nats(Part):
    """nats-server with JetStream."""

    def __init__(self, around: Surroundings) -> None:
        self.rule = Rule("nats")
        self._around = around
        self._name = f"cairn-{secrets.token_hex(4)}"
        self._known = False

    async def prepare(self, stack: ExitStack) -> Program:
        if not port_is_free(self._around.memory.nats_port):
            if self._known:
                raise OSError(f"port {self._around.memory.nats_port} on 127.0.0.1 is in use")
            self._around.replace_ports(nats_port=choose_port(0))
        home, memory = self._around.home, self._around.memory
        home.nats.mkdir(mode=0o700, exist_ok=True)  # somebody may have wiped it to get room
        configuration = home.run / "nats.conf"
        nats.write_configuration(
            configuration,
            home.nats,
            memory.nats_port,
            memory.nats_password,
            self._name,
            self._around.nats_monitor_port,
        )
        command = (str(nats.find_program()), "-c", str(configuration))
        return Program(command, os.environ, home.nats)

    async def wait_until_ready(self) -> None:
        await nats.wait_until_ready(self._around.memory.nats_port, self._name)
        # From now on the services hold its address: it has to come back at the same.
        self._known = True

    async def wait_until_sick(self) -> str:
        memory = self._around.memory
        return await nats.wait_until_sick(
            memory.nats_port, memory.nats_password, self._around.home.nats
        )


class Postgres(Part):
    """PostgreSQL."""

    def __init__(self, around: Surroundings) -> None:
        # After nats for one known order; nothing hangs on it.
        # Its last checkpoint can take a while on a slow disk.
        self.rule = Rule("postgres", stops_after=("nats",), grace=30.0)
        self._around = around
        self._cluster = postgres.Cluster(around.home)

    async def prepare(self, stack: ExitStack) -> Program:
        return await self._cluster.prepare(self._around.sockets)

    async def wait_until_ready(self) -> None:
        await self._cluster.wait_until_ready(self._around.sockets)


class PythonService(Part):
    """A service of Cairn's."""

    def __init__(self, service: Service, around: Surroundings) -> None:
        self.rule = Rule(service.name, needs=("nats", "postgres"))
        self._service = service
        self._around = around
        self._notify = around.sockets / f"n-{service.name}"
        self._receiver: notify.Receiver | None = None
        self._known = False

    async def prepare(self, stack: ExitStack) -> Program:
        around = self._around
        if self._service.name == "api" and not port_is_free(around.memory.api_port):
            if self._known or around.api_port_given:
                raise OSError(f"port {around.memory.api_port} on 127.0.0.1 is in use")
            around.replace_ports(api_port=choose_port(0))
        self._receiver = stack.enter_context(notify.listening(self._notify))
        return Program(
            # -P: a file nats.py in the working directory must not become the module of that name.
            (sys.executable, "-P", "-m", self._service.module),
            {**os.environ, **service_settings(around), "NOTIFY_SOCKET": str(self._notify)},
            around.home.root,
            keep_fds=(around.lifeline,),
        )

    async def wait_until_ready(self) -> None:
        if self._receiver is None:
            raise RuntimeError("waited for readiness before a start")
        await notify.wait_until_ready(self._receiver)
        self._known = True


def service_settings(around: Surroundings) -> dict[str, str]:
    """The environment that tells a service where everything is."""
    memory = around.memory
    return {
        "CAIRN_HOME": str(around.home.root),
        "CAIRN_NATS_URL": nats.url(memory.nats_port, memory.nats_password),
        "CAIRN_DATABASE_URL": postgres.dsn(around.sockets),
        "CAIRN_STORE_URL": around.home.store.as_uri(),
        "CAIRN_API_HOST": "127.0.0.1",
        "CAIRN_API_PORT": str(memory.api_port),
        "CAIRN_CLUSTER": "local",
        "CAIRN_LIFELINE_FD": str(around.lifeline),
        # A log file is read by people here; who wants JSON says so.
        "CAIRN_LOG_FORMAT": os.environ.get("CAIRN_LOG_FORMAT", "pretty"),
        "PYTHONUNBUFFERED": "1",
    }


def table(around: Surroundings, services: Sequence[Service] = SERVICES) -> tuple[Part, ...]:
    """All parts, each after those that it needs.

    Raises:
        HomeError: this machine cannot run them.
    """
    if sys.platform != "linux":
        raise HomeError("standalone mode needs Linux: it relies on namespaces and death signals")
    return (
        Nats(around),
        Postgres(around),
        *(PythonService(service, around) for service in services),
    )
