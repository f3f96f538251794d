"""Requests that services ask of each other, by NATS request-reply: subjects and models.

Unlike events they are not stored: who asks waits for the answer and asks again if none comes.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Final

from pydantic import BaseModel

from cairn_common.events import LogLine

ATTEMPTS_SUBJECT: Final = "engine.attempts"
WORKFLOWS_SUBJECT: Final = "engine.workflows"
CLUSTER_SUBJECT: Final = "engine.cluster"
LOG_READ_SUBJECT: Final = "logs.read"
LOG_RESEND_SUBJECT: Final = "bridge.log.resend"


class AttemptsRequest(BaseModel):
    """To the engine: which attempts do you believe to be in this cluster? A page of them."""

    cluster: str
    after_workflow: str = ""
    after_index: int = -1


class KnownAttempt(BaseModel):
    """An attempt that a cluster has accepted and that has not ended."""

    workflow: str
    index: int
    attempt: int
    name: str
    status: str


class AttemptsReply(BaseModel):
    """The page; an empty one is the last."""

    attempts: list[KnownAttempt]


class WorkflowsRequest(BaseModel):
    """To the engine: of which of these workflows have you never heard?"""

    workflows: list[str]


class WorkflowsReply(BaseModel):
    """Those that are in no table of the engine's."""

    unknown: list[str]


class ClusterAction(StrEnum):
    """What may be ordered about a cluster."""

    DRAIN = "drain"
    RESUME = "resume"
    REMOVE = "remove"


class ClusterRequest(BaseModel):
    """To the engine: treat this cluster so from now on.

    A cluster that has open attempts is removed only with `force`; those that run are lost then.
    """

    cluster: str
    action: ClusterAction
    force: bool = False


class ClusterReply(BaseModel):
    """The cluster's state now; with `open_attempts` it was not removed because of these."""

    known: bool = True
    state: str | None = None
    open_attempts: int = 0


class LogResendRequest(BaseModel):
    """To all bridges: report an attempt's log again from this line on, whoever has it."""

    workflow: str
    task: str
    index: int
    attempt: int
    from_seq: int


class LogReadRequest(BaseModel):
    """To the log relay: lines of a workflow's log.

    With `last_n_lines` reading begins that many lines before the present end, else at `cursor`
    (0 is the beginning). Where nothing is there yet, the relay answers after `wait_seconds`, or
    as soon as something comes.
    """

    workflow: str
    cursor: int = 0
    last_n_lines: int | None = None
    task: str | None = None
    attempt: int | None = None
    stream: str | None = None
    contains: str | None = None
    wait_seconds: float = 0.0


class LogRecord(LogLine):
    """A line together with whose it is."""

    task: str
    attempt: int


class LogReadReply(BaseModel):
    """A page: go on reading at `cursor`. `complete`: nothing follows, the workflow has ended."""

    records: list[LogRecord]
    cursor: int
    complete: bool
    read_at: datetime
