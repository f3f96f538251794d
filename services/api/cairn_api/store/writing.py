"""What the API writes: submissions, hand-overs, tags and profiles."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import and_, delete, func, insert, or_, select, text, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlmodel import col

from cairn_api.core.submission import Accepted
from cairn_api.store.database import session_of
from cairn_api.store.tables import (
    HandoverRow,
    ProfileRow,
    SubmissionRow,
    TaskRequestRow,
    WorkflowNumber,
    WorkflowView,
)
from cairn_common.events import Envelope

SUBMITTED = "submitted"
CANCEL = "cancel"
KILL = "kill"
"""A forced cancel: one that is not forced may have been noted before."""

_INSERT_PAGE = 5000


@dataclass(frozen=True, slots=True)
class NewSubmission:
    """A submission before it has a number."""

    accepted: Accepted
    uuid: str
    user: str
    pool: str
    priority: str
    traceparent: str
    submitted_at: datetime
    parent: str | None = None
    restarts: str | None = None


@dataclass(frozen=True, slots=True)
class Handover:
    """An event to be sent again, and how often it was."""

    envelope: Envelope
    tries: int


class Writer:
    """Writes the schema `api`.

    Args:
        engine: the connection pool.
        patience: after how long a hand-over is due to be sent again.
    """

    def __init__(self, engine: AsyncEngine, patience: timedelta) -> None:
        self._engine = engine
        self._patience = patience

    async def submit(
        self, new: NewSubmission, announce: Callable[[str], Envelope]
    ) -> tuple[str, Envelope]:
        """Give the workflow its id and store it together with its announcement.

        The number's row is locked until the commit, so it is taken last before the inserts: the
        submissions of one name wait for each other as briefly as can be.
        """
        accepted = new.accepted
        async with session_of(self._engine) as session:
            number = await session.scalar(
                postgresql.insert(WorkflowNumber)
                .values(name=accepted.name, last=1)
                .on_conflict_do_update(
                    index_elements=[col(WorkflowNumber.name)],
                    set_={"last": col(WorkflowNumber.last) + 1},
                )
                .returning(col(WorkflowNumber.last))
            )
            workflow = f"{accepted.name}-{number}"
            envelope = announce(workflow)
            await session.execute(insert(SubmissionRow).values(**_submission(workflow, new)))
            await self._hand_over(session, workflow, SUBMITTED, envelope)
            requests = [
                {"workflow": workflow, "task": task, **_request(request)}
                for task, request in accepted.other_requests.items()
            ]
            for start in range(0, len(requests), _INSERT_PAGE):
                await session.execute(
                    insert(TaskRequestRow), requests[start : start + _INSERT_PAGE]
                )
        return workflow, envelope

    async def request_cancel(self, workflow: str, envelope: Envelope, *, force: bool) -> None:
        """Store the request to cancel, to be repeated until the engine has it."""
        async with session_of(self._engine) as session:
            await self._hand_over(session, workflow, KILL if force else CANCEL, envelope)

    async def _hand_over(
        self, session: AsyncSession, workflow: str, kind: str, envelope: Envelope
    ) -> None:
        await session.execute(
            insert(HandoverRow).values(
                workflow=workflow,
                kind=kind,
                subject=envelope.subject,
                headers=envelope.headers,
                body=envelope.body.decode(),
                due_at=func.now() + self._patience,
            )
        )

    async def forget_taken(self, final: Collection[str]) -> int:
        """Delete the due hand-overs that the engine has taken note of.

        Args:
            final: the statuses in which a workflow has ended.
        """
        ended = col(WorkflowView.status).in_(final)
        taken = or_(
            col(HandoverRow.kind) == SUBMITTED,
            ended,
            and_(col(HandoverRow.kind) == CANCEL, col(WorkflowView.cancel_by).is_not(None)),
        )
        async with session_of(self._engine) as session:
            result = await session.execute(
                delete(HandoverRow).where(
                    col(HandoverRow.due_at) <= func.now(),
                    col(HandoverRow.workflow) == col(WorkflowView.id),
                    taken,
                )
            )
        return int(getattr(result, "rowcount", 0))

    async def take_due(self, limit: int, longest: timedelta) -> list[Handover]:
        """The hand-overs that are due, the longest due first, each put off to its next time.

        Each time twice as late, up to `longest`. Another API process takes others.
        """
        due = (
            select(col(HandoverRow.id))
            .where(col(HandoverRow.due_at) <= func.now())
            .order_by(col(HandoverRow.due_at))
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        tries = col(HandoverRow.tries) + 1
        wait = func.least(self._patience * func.power(2.0, func.least(tries, 16)), longest)
        async with session_of(self._engine) as session:
            rows = await session.execute(
                update(HandoverRow)
                .where(col(HandoverRow.id).in_(due))
                .values(tries=tries, due_at=func.now() + wait)
                .returning(
                    col(HandoverRow.subject),
                    col(HandoverRow.headers),
                    col(HandoverRow.body),
                    col(HandoverRow.tries),
                )
            )
            return [
                Handover(Envelope(subject, headers, body.encode()), tried)
                for subject, headers, body, tried in rows
            ]

    async def tag(
        self, workflow: str, add: Sequence[str], remove: Sequence[str]
    ) -> list[str] | None:
        """Add and remove tags; the tags that it has then, or None if there is no such workflow."""
        async with session_of(self._engine) as session:
            row = await session.get(SubmissionRow, workflow, with_for_update=True)
            if row is None:
                return None
            row.tags = sorted((set(row.tags) | set(add)) - set(remove))
            return row.tags

    async def save_profile(self, user: str, changes: dict[str, Any]) -> None:
        """Change what is given of a user's profile."""
        if not changes:
            return
        async with session_of(self._engine) as session:
            await session.execute(
                postgresql.insert(ProfileRow)
                .values(user_name=user, **changes)
                .on_conflict_do_update(index_elements=[col(ProfileRow.user_name)], set_=changes)
            )

    async def check(self) -> None:
        """Returns if the database answers."""
        async with session_of(self._engine) as session:
            await session.execute(text("SELECT 1"))


def _submission(workflow: str, new: NewSubmission) -> dict[str, Any]:
    accepted = new.accepted
    return {
        "workflow": workflow,
        "uuid": new.uuid,
        "name": accepted.name,
        "user_name": new.user,
        "pool": new.pool,
        "priority": new.priority,
        "labels": dict(accepted.labels),
        "traceparent": new.traceparent,
        "submitted_at": new.submitted_at,
        "spec": accepted.spec,
        "rendered": accepted.rendered,
        "template": accepted.template,
        "parent": new.parent,
        "restarts": new.restarts,
        "warnings": list(accepted.warnings),
        "tags": [],
        **_request(accepted.request),
    }


def _request(request: Any) -> dict[str, int]:
    return {
        "cpu": request.cpu,
        "gpu": request.gpu,
        "memory": request.memory,
        "storage": request.storage,
    }
