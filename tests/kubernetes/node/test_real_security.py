"""Rights, as the containers themselves see them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from driver_harness import World
from real_harness import run, script, text

from cairn_bridge.drivers.kubernetes.core import names

pytestmark = pytest.mark.simulator

LOOK = """
import ctypes, json, os, pathlib
lines = pathlib.Path("/proc/self/status").read_text().splitlines()
status = dict(line.split(":\\t", 1) for line in lines)
def writes(path):
    try:
        pathlib.Path(path, "trial").touch()
    except OSError as error:
        return error.strerror
def reads(pid):
    try:
        return bool(pathlib.Path("/proc", pid, "environ").read_bytes())
    except OSError:
        return False
others = [pid for pid in os.listdir("/proc") if pid.isdigit() and int(pid) not in {1, os.getpid()}]
libc = ctypes.CDLL(None, use_errno=True)
NEW_USER_NAMESPACE = 0x10000000
print(json.dumps({
    "user": os.getuid(),
    "capabilities": int(status["CapEff"], 16),
    "may gain": int(status["CapBnd"], 16),
    "no new privileges": status["NoNewPrivs"] == "1",
    "seccomp": status["Seccomp"],
    "token": os.path.exists("/var/run/secrets/kubernetes.io"),
    "root": writes("/"),
    "data": writes("/osmo/data"),
    "unshare": os.strerror(ctypes.get_errno()) if libc.unshare(NEW_USER_NAMESPACE) else None,
    "others": len(others),
    "opened": [pid for pid in others if reads(pid)],
}))
"""
_FILTERED = "2"
_DAC_OVERRIDE = 1 << 1
_SYS_ADMIN = 1 << 21


def seen(line: str) -> dict[str, Any]:
    """What `LOOK` found."""
    found = json.loads(line)
    assert isinstance(found, dict)
    return found


async def test_a_task_has_few_rights(world: World) -> None:
    async with world.driver() as (driver, told):
        group = script(world, "", command=["python3", "-c", LOOK])
        key, _ = await run(driver, told, group)
        (line,) = text(told, key)
        found = seen(line)
        assert found["no new privileges"]
        assert found["seccomp"] == _FILTERED
        assert not found["token"]
        assert not found["may gain"] & _SYS_ADMIN
        assert found["unshare"] == "Operation not permitted"
        # It sees the sidecar, and nothing of what that was given.
        assert found["others"] == 1
        assert not found["opened"]
        # Its own root is its own; what it shares with the helpers is only its two folders.
        assert found["root"] is None
        assert found["data"] is None


async def test_a_helper_may_read_what_is_the_tasks_and_nothing_else(world: World) -> None:
    looks = {"name": names.FETCH_CONTAINER, "command": ["python3", "-c", LOOK]}
    pools = world.site.pools.model_copy(update={"template": {"initContainers": [looks]}})
    async with world.driver(site=replace(world.site, pools=pools)) as (driver, told):
        key, _ = await run(driver, told, script(world, "true"))
        assert seen(text(told, key)[0]) == {
            "user": 0,
            "capabilities": _DAC_OVERRIDE,
            "may gain": _DAC_OVERRIDE,
            "no new privileges": True,
            "seccomp": _FILTERED,
            "token": False,
            "root": "Read-only file system",
            "data": None,
            "unshare": "Operation not permitted",
            "others": 0,
            "opened": [],
        }
