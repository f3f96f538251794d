"""What an attempt's end means: its status, its exit code, and whether to try again.

Sources: OSMO user guide, "Exit Codes" and "Exit Actions".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from cairn_common.events import FinishReason
from cairn_common.status import TaskStatus

UPSTREAM_EXIT_CODE: Final = 3000


class Meaning(NamedTuple):
    """The status of a failure, the service's exit code where the command left none, and whether
    it is tried again unless an exit action says otherwise."""

    status: TaskStatus
    exit_code: int | None
    retry: bool


MEANING: Final[dict[FinishReason, Meaning]] = {
    FinishReason.EXITED: Meaning(TaskStatus.FAILED, None, False),
    FinishReason.OUT_OF_MEMORY: Meaning(TaskStatus.FAILED_EVICTED, None, False),
    FinishReason.STOPPED: Meaning(TaskStatus.FAILED_BACKEND_ERROR, None, True),
    FinishReason.EVICTED: Meaning(TaskStatus.FAILED_EVICTED, 3004, False),
    FinishReason.PREEMPTED: Meaning(TaskStatus.FAILED_PREEMPTED, 3006, True),
    FinishReason.NODE_LOST: Meaning(TaskStatus.FAILED_BACKEND_ERROR, 3001, True),
    FinishReason.IMAGE_PULL: Meaning(TaskStatus.FAILED_IMAGE_PULL, 3003, False),
    FinishReason.START_ERROR: Meaning(TaskStatus.FAILED_START_ERROR, 3003, False),
    FinishReason.START_TIMEOUT: Meaning(TaskStatus.FAILED_START_TIMEOUT, 3005, False),
    FinishReason.INPUT_FAILED: Meaning(TaskStatus.FAILED, 2010, False),
    FinishReason.OUTPUT_FAILED: Meaning(TaskStatus.FAILED, 2012, False),
    FinishReason.UNSCHEDULABLE: Meaning(TaskStatus.FAILED_SERVER_ERROR, 3002, False),
    FinishReason.BACKEND_ERROR: Meaning(TaskStatus.FAILED_BACKEND_ERROR, 3001, True),
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """The status an attempt gets; `retry` says that a further attempt is wanted if allowed."""

    status: TaskStatus
    exit_code: int | None
    retry: bool


def judge(
    reason: FinishReason,
    exit_code: int | None,
    exit_actions: list[tuple[str, int, int]] | None,
    *,
    restarts_left: bool = True,
) -> Verdict:
    """Judge an end by its reason, its exit code and the task's `exitActions`.

    The first action that names the code counts: a task's own stand before its pool's. RESTART is
    what a cluster does itself, without a word, as often as it may; an end with such a code means
    that it could not, which a new attempt makes good, or that it did it to the last
    (`restarts_left` is False).
    """
    status, service_code, retry = MEANING[reason]
    code = exit_code if exit_code is not None else service_code
    if reason is FinishReason.EXITED and exit_code == 0:
        status = TaskStatus.COMPLETED
    for action, low, high in exit_actions or ():
        if code is not None and low <= code <= high:
            if action == "COMPLETE":
                return Verdict(TaskStatus.COMPLETED, code, retry=False)
            failed = status if status.failed else TaskStatus.FAILED
            again = action == "RESCHEDULE" or (action == "RESTART" and restarts_left)
            return Verdict(failed, code, retry=again)
    return Verdict(status, code, retry)
