"""Having shims started for the members of a gang."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence

import structlog

from cairn_bridge.drivers.local.attempt import Attempt
from cairn_bridge.drivers.local.briefing import Local, brief
from cairn_bridge.drivers.local.gang import Gang
from cairn_bridge.drivers.local.house import House
from cairn_bridge.drivers.local.launcher import Launcher
from cairn_bridge.drivers.local.shims import BACKEND_ERROR
from cairn_common.events import FinishReason
from cairn_runtime.room import Ending

log = structlog.get_logger(__name__)


def start_shims(
    gang: Gang, members: Sequence[Attempt], local: Local, house: House, launcher: Launcher
) -> list[socket.socket | None]:
    """Starts one for each; what cannot be started has no connection. Blocks for a moment."""
    return [_start(gang, member, local, house, launcher) for member in members]


def _start(
    gang: Gang, member: Attempt, local: Local, house: House, launcher: Launcher
) -> socket.socket | None:
    workflow, wait = gang.terms.workflow, gang.terms.barrier
    try:
        if member.task is None:
            raise LookupError("its placement is gone")
        task = brief(member.room, workflow, member.task, gang.traceparent, local, wait=wait)
        house.furnish(member.room, task)
        return launcher.launch(member.room.path)
    except OSError as error:  # its end will say that no process could be started
        log.error("local_cluster.launch_failed", task=member.key, error=str(error))
    except Exception as error:
        log.exception("local_cluster.launch_failed", task=member.key)
        member.ending = broken(error)
    return None


def broken(error: Exception) -> Ending:
    """The end of an attempt about which the driver itself has failed."""
    words = f"the local cluster could not handle the task: {type(error).__name__}: {error}"
    return Ending(FinishReason.BACKEND_ERROR, BACKEND_ERROR, words[:2000], None, time.time())
