"""What the core is told, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias

from cairn_common.events import FinishReason
from cairn_common.status import TaskStatus, WorkflowStatus
from cairn_engine.core.model import Task

# --- facts about one attempt: they need the attempt, its group and its workflow ---------------


@dataclass(frozen=True, slots=True)
class TaskInput:
    """A fact about one attempt, and the cluster's time of it."""

    workflow: str
    index: int
    attempt: int
    at: datetime


@dataclass(frozen=True, slots=True)
class Accepted(TaskInput):
    """The cluster has it in its queue; `message` says what it waits for there."""

    message: str | None = None


@dataclass(frozen=True, slots=True)
class Held(TaskInput):
    """Its cluster cannot take it at present, and why."""

    message: str = ""


@dataclass(frozen=True, slots=True)
class Scheduled(TaskInput):
    """It has a node; `message` says what keeps it from starting."""

    node: str | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True)
class Started(TaskInput):
    """The user's command runs. `accepted_at` and `scheduled_at` if these were no facts before."""

    node: str | None = None
    accepted_at: datetime | None = None
    scheduled_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Finished(TaskInput):
    """It has ended."""

    reason: FinishReason = FinishReason.EXITED
    exit_code: int | None = None
    message: str | None = None
    node: str | None = None
    started_at: datetime | None = None
    log_lines: int = 0
    restarts: int = 0
    accepted_at: datetime | None = None
    scheduled_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Archived(TaskInput):
    """Its whole log lies in the archive."""


# --- about one group: they need the group, all its tasks, and the workflow ---------------------


@dataclass(frozen=True, slots=True)
class GroupInput:
    """Something about one group."""

    workflow: str
    group: int


@dataclass(frozen=True, slots=True)
class Offer(GroupInput):
    """Its inputs are there: place it."""


@dataclass(frozen=True, slots=True)
class Wake(GroupInput):
    """One more of its upstream groups has completed."""


@dataclass(frozen=True, slots=True)
class Block(GroupInput):
    """One of its upstream groups has failed."""

    cause: str = ""


@dataclass(frozen=True, slots=True)
class Due(GroupInput):
    """A clock of the group may have rung."""


@dataclass(frozen=True, slots=True)
class Relocate(GroupInput):
    """Something of it may be queued where it should not stay."""


@dataclass(frozen=True, slots=True)
class Lose(GroupInput):
    """Something of it may be on a node of a cluster that is lost."""


@dataclass(frozen=True, slots=True)
class EndGroup(GroupInput):
    """Its end is decided; what still runs is stopped."""

    verdict: TaskStatus = TaskStatus.FAILED
    message: str = ""


@dataclass(frozen=True, slots=True)
class RestartGroup(GroupInput):
    """All its tasks are to start again, because one of them is."""

    message: str = ""


# --- about a workflow --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """Somebody wants the workflow to end."""

    workflow: str
    user: str
    message: str | None = None
    force: bool = False


@dataclass(frozen=True, slots=True)
class CancelPage:
    """Cancel the open groups from `first` on; needs a page of them, with their tasks."""

    workflow: str
    first: int = 0


FollowUp: TypeAlias = Offer | Wake | Block | EndGroup | RestartGroup | CancelPage
Input: TypeAlias = (
    Accepted
    | Held
    | Scheduled
    | Started
    | Finished
    | Archived
    | FollowUp
    | Due
    | Relocate
    | Lose
    | CancelRequested
)

# --- effects -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Place:
    """Tell the cluster to run these attempts (task index, attempt) of a group."""

    workflow: str
    cluster: str
    group: int
    attempts: tuple[tuple[int, int], ...]
    offer: int


@dataclass(frozen=True, slots=True)
class Stop:
    """Tell the cluster to end these attempts (task index, task name, attempt)."""

    workflow: str
    cluster: str
    attempts: tuple[tuple[int, str, int], ...]
    cause: str
    grace_seconds: float


@dataclass(frozen=True, slots=True)
class Settle:
    """Tell the cluster that it may forget these attempts."""

    workflow: str
    cluster: str
    attempts: tuple[tuple[int, str, int], ...]


@dataclass(frozen=True, slots=True)
class Announce:
    """Tell everybody that the workflow's status has changed."""

    workflow: str
    status: WorkflowStatus
    previous: WorkflowStatus
    cause: str | None


@dataclass(frozen=True, slots=True)
class Anomaly:
    """An input that cannot be: recorded with the story of its entity, and without effect."""

    workflow: str
    what: str
    story: str
    fact: TaskInput | None = None


Effect: TypeAlias = Place | Stop | Settle | Announce | Anomaly


@dataclass(slots=True)
class Decision:
    """What follows from inputs, in order, and the attempts that have ended by it."""

    effects: list[Effect] = field(default_factory=list)
    follow_ups: list[FollowUp] = field(default_factory=list)
    ended: list[Task] = field(default_factory=list)
