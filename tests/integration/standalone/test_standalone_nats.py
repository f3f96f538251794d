"""A nats-server whose disk was full: the server itself, on a small disk."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import nats as client
import pytest
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js import JetStreamContext

from cairn_standalone import nats
from cairn_standalone.home import choose_port


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 64 MiB."""
    folder = tmp_path / "nats"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m,mode=0700", "cairn-test", folder]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(
            f"a disk that fills up has to be mounted, which is refused: {done.stderr.strip()}"
        )
    yield folder
    subprocess.run(["umount", folder], check=True)


async def _publish_much(jetstream: JetStreamContext) -> None:
    for _ in range(100):
        await jetstream.publish("s.a", b"x" * 10_000, timeout=1)


async def test_a_server_whose_disk_was_full_is_sick_once_there_is_room(
    small_disk: Path, tmp_path: Path
) -> None:
    port = choose_port(0)
    configuration = tmp_path / "nats.conf"
    nats.write_configuration(configuration, small_disk, port, "secret", "test", None)
    process = subprocess.Popen(
        [nats.find_program(), "-c", configuration], stderr=subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(60):
            await nats.wait_until_ready(port, "test")
            watch = asyncio.create_task(nats.wait_until_sick(port, "secret", small_disk))
            connection = await client.connect(nats.url(port, "secret"))
            jetstream = connection.jetstream()
            await jetstream.add_stream(name="S", subjects=["s.>"])
            await jetstream.publish("s.a", b"fits")
            ballast = small_disk / "ballast"
            with ballast.open("wb") as file:
                free = os.statvfs(small_disk)
                os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize)
            with pytest.raises(NatsTimeoutError):
                await _publish_much(jetstream)
            await asyncio.sleep(8)
            assert not watch.done(), "without room a new start has no point"
            ballast.unlink()
            with pytest.raises(NatsTimeoutError):  # although there is room: hence the new start
                await jetstream.publish("s.a", b"fits", timeout=1)
            assert "no space left on device" in await watch
            await connection.close()
    finally:
        process.terminate()
        process.wait()
