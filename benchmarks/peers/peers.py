"""The other systems: how each is installed, configured, started and driven.

All get the PostgreSQL that Cairn gets: the same programs, the same settings, durable commits, over
the same kind of socket. Each has a database cluster of its own, and nothing else runs meanwhile.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg

from benchmarks.harness import running_servers
from benchmarks.peers.environments import (
    environment_of,
    python_for,
    server_version,
    temporal_programs,
    version_of,
)
from benchmarks.peers.model import PeerMissingError, System
from benchmarks.peers.workers.work import Measured, Work, end

WORKERS = Path(__file__).parent / "workers"
_PATIENCE = 120.0
"""Seconds that a server gets to start."""
_LIMIT = 1800.0
"""Seconds that a driver gets for all of its work."""

STATE = "PostgreSQL, each commit synced"

TEMPORAL = System(
    "Temporal",
    f"server {server_version()}, Python SDK {version_of('temporal', 'temporalio')}",
    "an async function in a worker process",
    STATE,
    "server (all four services in one process), 1 worker, PostgreSQL",
)
DBOS = System(
    "DBOS",
    version_of("dbos", "dbos"),
    "an async function in the process that submits",
    STATE,
    "1 application process (a library, no server), PostgreSQL",
)
PREFECT = System(
    "Prefect, in process",
    version_of("prefect", "prefect"),
    "an async function in the process that submits",
    STATE + "; task runs reach it a little later, as events",
    "server, 1 process that runs the flows, PostgreSQL",
)
PREFECT_POOL = System(
    "Prefect, process pool",
    version_of("prefect", "prefect"),
    "an async function in the process of its flow run (a process for each workflow)",
    STATE + "; task runs reach it a little later, as events",
    "server, process worker, PostgreSQL",
)


def run_temporal(work: Work, home: Path) -> Measured:
    """The server with PostgreSQL for state and visibility; worker and client in Python."""
    programs, python = temporal_programs(), python_for("temporal")
    with running_servers(home) as settings, ExitStack() as stack:
        sockets, user = _database(settings["CAIRN_DATABASE_URL"])
        environment = environment_of({"TEMPORAL_VERSION_CHECK_DISABLED": "1"})
        for database, schema in (("temporal", "temporal"), ("temporal_visibility", "visibility")):
            asyncio.run(_create_database(settings["CAIRN_DATABASE_URL"], database))
            for step in (
                ("setup-schema", "-v", "0.0"),
                ("update-schema", "--schema-name", f"postgresql/v12/{schema}"),
            ):
                _once(
                    environment,
                    *(programs / "sql", "--plugin", "postgres12_pgx", "--endpoint", "localhost"),
                    *("--port", "5432", "--user", user, "--database", database),
                    *("--connect-attributes", f"host={sockets}", *step),
                )
        ports = _free_ports(10)
        configuration = home / "temporal.json"  # YAML, as every JSON is
        configuration.write_text(json.dumps(_temporal_settings(sockets, user, ports, home)))
        server = (programs / "server", "--config-file", configuration, "--allow-no-auth", "start")
        stack.enter_context(_process(home / "temporal.log", environment, *server))
        driver = (python, WORKERS / "temporal_driver.py", f"127.0.0.1:{ports[0]}", "client")
        return _drive(environment, work, home / "driver.log", *driver)


def run_dbos(work: Work, home: Path) -> Measured:
    """A library in the application's process, with PostgreSQL."""
    python = python_for("dbos")
    with running_servers(home) as settings:
        url = settings["CAIRN_DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://")
        return _drive(
            environment_of({}), work, home / "driver.log", python, WORKERS / "dbos_driver.py", url
        )


def run_prefect(work: Work, home: Path) -> Measured:
    """Flows called in the process that wants them."""
    return _prefect(work, home, "in-process")


def run_prefect_pool(work: Work, home: Path) -> Measured:
    """Flow runs asked for through the API, started by a process worker."""
    return _prefect(work, home, "process-pool")


def _prefect(work: Work, home: Path, way: str) -> Measured:
    python = python_for("prefect")
    with running_servers(home) as settings, ExitStack() as stack:
        url = settings["CAIRN_DATABASE_URL"].replace("postgresql://", "postgresql+asyncpg://")
        (port,) = _free_ports(1)
        api = f"http://127.0.0.1:{port}/api"
        environment = environment_of(
            {
                "PREFECT_HOME": str(home / "prefect"),
                "PREFECT_API_DATABASE_CONNECTION_URL": url,
                "PREFECT_API_URL": api,
                "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
                "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
                "PREFECT_SERVER_UI_ENABLED": "false",
                "PREFECT_TELEMETRY_ENABLE_RESOURCE_METRICS": "false",
                "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
                # Logs of flow runs are not sent to the server: less work than Cairn's for its own.
                "PREFECT_LOGGING_TO_API_ENABLED": "false",
                "PREFECT_LOGGING_LEVEL": "WARNING",
                "PREFECT_WORKER_QUERY_SECONDS": "1",
            }
        )
        command = (python, "-m", "prefect", "server", "start", "--host", "127.0.0.1")
        server = _process(home / "prefect.log", environment, *command, "--port", str(port))
        stack.enter_context(server)
        _wait_for_http(f"{api}/health")
        return _drive(
            environment, work, home / "driver.log", python, WORKERS / "prefect_driver.py", way
        )


def _temporal_settings(
    sockets: str, user: str, ports: Sequence[int], home: Path
) -> Mapping[str, object]:
    """The server's configuration: all services in one process, on loopback, four history shards."""

    def store(database: str, connections: int) -> Mapping[str, object]:
        return {
            "sql": {
                "pluginName": "postgres12_pgx",
                "databaseName": database,
                "connectAddr": "localhost:5432",
                "connectProtocol": "tcp",
                "connectAttributes": {"host": sockets},
                "user": user,
                "maxConns": connections,
                "maxIdleConns": connections,
                "maxConnLifetime": "1h",
            }
        }

    def service(index: int) -> Mapping[str, object]:
        rpc = {
            "grpcPort": ports[2 * index],
            "membershipPort": ports[2 * index + 1],
            "bindOnLocalHost": True,
        }
        return {"rpc": rpc}

    dynamic = home / "dynamic.yaml"
    dynamic.write_text("{}\n")
    return {
        "log": {"stdout": True, "level": "warn"},
        "persistence": {
            "defaultStore": "default",
            "visibilityStore": "visibility",
            "numHistoryShards": 4,
            "datastores": {
                "default": store("temporal", 20),
                "visibility": store("temporal_visibility", 5),
            },
        },
        "global": {"membership": {"maxJoinDuration": "30s", "broadcastAddress": "127.0.0.1"}},
        "services": {
            name: service(index)
            for index, name in enumerate(("frontend", "matching", "history", "worker"))
        },
        "clusterMetadata": {
            "enableGlobalNamespace": False,
            "failoverVersionIncrement": 10,
            "masterClusterName": "active",
            "currentClusterName": "active",
            "clusterInformation": {
                "active": {
                    "enabled": True,
                    "initialFailoverVersion": 1,
                    "rpcName": "frontend",
                    "rpcAddress": f"127.0.0.1:{ports[0]}",
                }
            },
        },
        "dcRedirectionPolicy": {"policy": "noop"},
        "dynamicConfigClient": {"filepath": str(dynamic), "pollInterval": "60s"},
    }


def _database(url: str) -> tuple[str, str]:
    """The folder of the database's socket, and its user."""
    parts = urlsplit(url)
    return parse_qs(parts.query)["host"][0], parts.username or ""


async def _create_database(url: str, name: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(f'CREATE DATABASE "{name}"')
    finally:
        await connection.close()


def _once(environment: dict[str, str], *command: str | Path) -> None:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PeerMissingError(
            f"{Path(command[0]).name} fails: {(done.stderr or done.stdout)[-500:]}"
        )


@contextmanager
def _process(
    log: Path, environment: dict[str, str], *command: str | Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A server, ended at the end."""
    with log.open("wb") as out:
        running = subprocess.Popen(command, env=environment, stdout=out, stderr=out, cwd=log.parent)
        try:
            yield running
        finally:
            end(running)


def _drive(environment: dict[str, str], work: Work, log: Path, *command: str | Path) -> Measured:
    """Run a driver; what its last line tells."""
    try:
        with log.open("wb") as errors:
            done = subprocess.run(
                (*command, json.dumps(asdict(work))),
                env=environment,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=log.parent,
                timeout=_LIMIT,
                check=False,
            )
    except subprocess.TimeoutExpired as error:
        raise PeerMissingError(f"its work was not done after {_LIMIT:,.0f} s") from error
    if done.returncode:
        raise PeerMissingError(f"its driver fails: {log.read_text(errors='replace')[-2000:]}")
    return Measured(**json.loads(done.stdout.decode().strip().splitlines()[-1]))


def _wait_for_http(url: str) -> None:
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError as error:
            if time.monotonic() > until:
                raise PeerMissingError(f"its server does not answer: {error}") from error
            time.sleep(0.2)


def _free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago, all different.

    They are below 32768: Temporal stores its own as signed numbers of 16 bits.
    """
    found: list[socket.socket] = []
    try:
        for port in random.sample(range(20_000, 32_768), 1_000):
            one = socket.socket()
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                one.close()
                continue
            found.append(one)
            if len(found) == count:
                return [one.getsockname()[1] for one in found]
        raise PeerMissingError("no free ports")
    finally:
        for one in found:
            one.close()
