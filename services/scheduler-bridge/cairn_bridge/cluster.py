"""What the bridge asks of a cluster, whatever the cluster is.

A driver turns placements into running attempts and reports what happens to them. It keeps its
own durable record (Kubernetes objects, or files for the local cluster), so that a bridge which
is killed at any moment finds every attempt again. Three rules make that enough:

- `place` returns once the placement would survive a crash; placing twice is placing once.
- Facts about an attempt are reported in order and may be reported again; nothing is forgotten
  before `settle`.
- `report_all` says again everything that the driver knows: after a restart, or when the bus
  was emptied.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, Protocol

from cairn_common.events import FinishReason, GroupPlacement, LogLine, NodeInfo
from cairn_common.spec.features import Feature

BARRIER_FAILED: Final = 2024
"""Exit code of the user guide: a task of the group ended before all were ready."""


@dataclass(frozen=True, slots=True, order=True)
class AttemptKey:
    """One attempt of one task of one workflow; what facts and orders are about."""

    workflow: str
    index: int
    attempt: int
    name: str = ""


Identity = tuple[str, int, int]
"""Workflow, task index, attempt."""


def identity(key: AttemptKey) -> Identity:
    """What tells an attempt from all others; its name does not."""
    return key.workflow, key.index, key.attempt


def keys_of(placement: GroupPlacement) -> list[AttemptKey]:
    """The attempts of a placement, in the order of its tasks."""
    return [
        AttemptKey(placement.workflow, task.index, task.attempt, task.name)
        for task in placement.tasks
    ]


class Phase(StrEnum):
    """How far an attempt has come in its cluster."""

    ACCEPTED = "accepted"
    SCHEDULED = "scheduled"
    STARTED = "started"
    FINISHED = "finished"


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that happened to attempts of one workflow, at one moment."""

    phase: Phase
    keys: tuple[AttemptKey, ...]
    at: datetime
    node: str | None = None
    outcome: Outcome | None = None  # with FINISHED, which then has one key
    message: str | None = None  # with ACCEPTED and SCHEDULED: what they wait for
    accepted_at: datetime | None = None  # if this was not said in a fact of its own
    scheduled_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended. `exit_code` as the shell reports it, 128 + signal."""

    reason: FinishReason
    exit_code: int | None = None
    message: str | None = None
    started_at: datetime | None = None
    log_lines: int = 0
    restarts: int = 0


class Reporter(Protocol):
    """Where a driver says what happens; the bridge implements it."""

    async def fact(self, fact: Fact) -> None:
        """Returns once the fact is on the bus; raises nothing that the driver must handle."""

    async def log(self, key: AttemptKey, lines: Sequence[LogLine], *, final: bool) -> None:
        """Returns once the lines are on the bus. Slow is back-pressure: read no further."""


class ByteStream(Protocol):
    """Bytes in and out, each direction as fast as its reader takes them."""

    async def write(self, data: bytes) -> None:
        """Sends; returns when more may be sent. Empty bytes end this direction."""

    def read(self) -> AsyncIterator[bytes]:
        """What comes, until the other side ends it."""

    async def close(self) -> None:
        """Ends both directions."""


class ExecStream(Protocol):
    """A program's bytes in and out, attached to a running attempt."""

    async def write(self, data: bytes) -> None:
        """Sends to the program's input; empty bytes close it."""

    def read(self) -> AsyncIterator[bytes]:
        """The program's output until it ends."""

    async def wait(self) -> int:
        """The program's exit code."""


class ClusterDriver(Protocol):
    """One cluster. All methods are safe to call again after a crash.

    `features` are those parts of the workflow language that it executes and not every cluster
    does; what it leaves out is refused at submission.
    """

    name: str
    features: frozenset[Feature]

    async def start(self, reporter: Reporter) -> None:
        """Finds what is there from before and begins to watch it. Reports nothing twice
        unless asked by `report_all`."""

    async def close(self) -> None:
        """Stops watching. What runs goes on running."""

    async def place(self, placement: GroupPlacement, traceparent: str | None) -> None:
        """Takes a gang into the cluster's queue; durable when it returns.

        Raises:
            PlacementError: the cluster can never run it; the message says why.
            NotNowError: it may later; offered again, it is tried again.
        """

    async def stop(self, keys: Iterable[AttemptKey], cause: str, grace_seconds: float) -> None:
        """Ends attempts; each then reports FINISHED. Unknown keys report FINISHED too, and do not
        run if they are placed later. For those that are just being placed it waits.

        Durable when it returns; it does not wait for the reports.
        """

    async def settle(self, keys: Iterable[AttemptKey]) -> None:
        """Forgets finished attempts and removes what they left in the cluster."""

    async def report_all(self) -> None:
        """Reports the present phase of every attempt that is not settled, logs included."""

    def known(self) -> frozenset[AttemptKey]:
        """The attempts that the driver has a record of (`name` filled in)."""

    async def resend_log(self, key: AttemptKey, from_seq: int) -> None:
        """Reports the log of an unsettled attempt again, from a line's number on."""

    async def inventory(self) -> list[NodeInfo]:
        """The nodes with what they have and what of it is in use."""

    async def exec(self, key: AttemptKey, command: Sequence[str]) -> ExecStream:
        """Starts a program beside a running attempt, seeing what the attempt sees.

        Raises:
            LookupError: the attempt is not running.
        """

    async def port_forward(self, key: AttemptKey, port: int) -> ByteStream:
        """Connects to a TCP port of a running attempt.

        Raises:
            LookupError: the attempt is not running, or does not listen there.
        """


class PlacementError(Exception):
    """The cluster can never run this placement."""


class NotNowError(Exception):
    """The cluster has no room to take this placement at present, and left nothing of it.

    The engine offers it again; the message says what is in the way.
    """


class ClusterError(Exception):
    """The cluster cannot be driven at present, which is the fault of no attempt: begin anew."""
