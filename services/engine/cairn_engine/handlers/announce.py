"""From effects of the core to events on the wire.

What one batch decides about one workflow is said together, in messages of bounded size: the
groups that it offers to a cluster, the attempts that it stops, the attempts that it settles.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

from cairn_common.events import (
    AttemptRef,
    Envelope,
    Event,
    FinishReason,
    TaskFinished,
    TaskOutcome,
    TaskReady,
    TaskSettled,
    TaskStop,
    WorkflowChanged,
    WorkflowFinished,
    encode,
    event_headers,
)
from cairn_common.events.subjects import token
from cairn_engine.core import Ledger, Workflow
from cairn_engine.core.inputs import Announce, Effect, Place, Settle, Stop
from cairn_engine.core.plan import complete_body, sources_of
from cairn_engine.store import Store

SOURCE = "/engine"
_MOST_GROUPS = 100  # in one message
_MOST_BYTES = 256 * 1024
_A_TASK = 1024  # bytes of a body that was never stored, about
_MOST_ATTEMPTS = 5000

Attempts = list[tuple[int, str, int]]
GroupKey = tuple[str, int]


class Announcer:
    """Makes envelopes; event ids are unique per process and cheap."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._prefix = secrets.token_hex(8)
        self._numbers = itertools.count()

    def _id(self) -> str:
        return f"{self._prefix}-{next(self._numbers)}"

    async def envelopes(
        self,
        ledger: Ledger,
        effects: Iterable[Effect],
        now: datetime,
        bodies: Mapping[GroupKey, dict[str, Any]],
    ) -> list[Envelope]:
        """All that the effects ask to say, except settlements: placements before stops.

        `bodies` are those of groups that are not stored yet.
        """
        places: dict[tuple[str, str], list[Place]] = {}
        stops: dict[tuple[str, str, str, float], Attempts] = {}
        announced: list[Announce] = []
        for effect in effects:
            match effect:
                case Place():
                    places.setdefault((effect.workflow, effect.cluster), []).append(effect)
                case Stop():
                    key = (effect.workflow, effect.cluster, effect.cause, effect.grace_seconds)
                    stops.setdefault(key, []).extend(effect.attempts)
                case Announce():
                    announced.append(effect)
        envelopes: list[Envelope] = []
        if places:
            envelopes += await self._placements(ledger, places, now, bodies)
        for (name, cluster, cause, grace), attempts in stops.items():
            for some in _slices(attempts):
                stop = TaskStop(
                    cluster=cluster,
                    workflow=name,
                    attempts=_refs(some),
                    cause=cause,
                    grace_seconds=grace,
                )
                envelopes.append(self._say(ledger.workflows[name], stop, now))
        for change in announced:
            envelopes += self._status(ledger.workflows[change.workflow], change, now)
        return envelopes

    def submitted(self, workflow: Workflow, now: datetime) -> Envelope:
        """The announcement that the engine has a new workflow."""
        event = WorkflowChanged(workflow=workflow.id, status=workflow.status.value, at=now)
        return self._say(workflow, event, now)

    def settlements(
        self, settled: Mapping[tuple[str, str], Attempts], now: datetime
    ) -> list[Envelope]:
        """What clusters may forget: attempts by workflow and cluster."""
        return [
            encode(
                TaskSettled(cluster=cluster, workflow=workflow, attempts=_refs(some)),
                source=SOURCE,
                event_id=self._id(),
                time=now,
            )
            for (workflow, cluster), attempts in settled.items()
            for some in _slices(attempts)
        ]

    def _status(self, workflow: Workflow, change: Announce, now: datetime) -> list[Envelope]:
        changed = WorkflowChanged(
            workflow=workflow.id,
            status=change.status.value,
            previous=change.previous.value,
            cause=change.cause,
            at=now,
        )
        envelopes = [self._say(workflow, changed, now)]
        if change.status.final:
            finished = WorkflowFinished(
                workflow=workflow.id,
                status=change.status.value,
                cause=change.cause,
                submitted_at=workflow.submitted_at,
                started_at=workflow.started_at,
                at=now,
                tasks_completed=workflow.tasks_completed,
                tasks_failed=workflow.tasks_failed,
            )
            envelopes.append(self._say(workflow, finished, now))
        return envelopes

    def _say(self, workflow: Workflow, event: Event, now: datetime) -> Envelope:
        return encode(
            event,
            source=SOURCE,
            event_id=self._id(),
            traceparent=workflow.traceparent,
            time=now,
        )

    async def _placements(
        self,
        ledger: Ledger,
        places: Mapping[tuple[str, str], list[Place]],
        now: datetime,
        new: Mapping[GroupKey, dict[str, Any]],
    ) -> list[Envelope]:
        """Stored bodies, completed with what was open until now."""
        stored = await self._store.load_bodies(
            (place.workflow, place.group)
            for some in places.values()
            for place in some
            if (place.workflow, place.group) not in new
        )
        bodies = {**new, **{key: orjson.loads(text) for key, text in stored.items()}}
        completed = await self._store.load_completed_attempts(
            ledger,
            (
                (workflow, index)
                for (workflow, _group), body in bodies.items()
                for index in sources_of(body)
            ),
        )
        envelopes: list[Envelope] = []
        for (name, cluster), some in places.items():
            together: list[dict[str, Any]] = []
            size = 0
            for place in some:
                key = (place.workflow, place.group)
                length = len(stored.get(key, "")) or _A_TASK * len(bodies[key]["tasks"])
                if together and (size + length > _MOST_BYTES or len(together) >= _MOST_GROUPS):
                    envelopes.append(self._ready(ledger.workflows[name], cluster, together, now))
                    together, size = [], 0
                limits = {
                    index: ledger.tasks[name, index, attempt].max_retries
                    for index, attempt in place.attempts
                    if attempt
                }
                together.append(complete_body(bodies[key], dict(place.attempts), completed, limits))
                size += length
            envelopes.append(self._ready(ledger.workflows[name], cluster, together, now))
        return envelopes

    def _ready(
        self, workflow: Workflow, cluster: str, placements: Sequence[Any], now: datetime
    ) -> Envelope:
        """A `TaskReady`, put together from stored JSON without a detour through models."""
        headers = event_headers(
            TaskReady.type,
            about=workflow.id,
            source=SOURCE,
            event_id=self._id(),
            traceparent=workflow.traceparent,
            time=now,
        )
        body = {
            "cluster": cluster,
            "workflow": workflow.id,
            "placements": placements,
            "traceparent": workflow.traceparent,
        }
        subject = f"{TaskReady.type}.{token(cluster)}.{token(workflow.id)}"
        return Envelope(subject, headers, orjson.dumps(body))


def gather(settled: dict[tuple[str, str], Attempts], effects: Iterable[Effect]) -> None:
    """Add the attempts that the effects settle, by workflow and cluster."""
    for effect in effects:
        if isinstance(effect, Settle):
            key = (effect.workflow, effect.cluster)
            settled.setdefault(key, []).extend(effect.attempts)


def unplaceable(envelope: Envelope, reason: str) -> TaskFinished | None:
    """The end of the attempts that the bus could not carry; None: it is no placement."""
    if envelope.headers["ce-type"] != TaskReady.type:
        return None
    ready = TaskReady.model_validate_json(envelope.body)
    message = f"the group's placement cannot be sent to its cluster: {reason}"
    return TaskFinished(
        workflow=ready.workflow,
        cluster=ready.cluster,
        at=datetime.now(UTC),
        outcomes=[
            TaskOutcome(
                index=task.index,
                name=task.name,
                attempt=task.attempt,
                reason=FinishReason.UNSCHEDULABLE,
                message=message,
            )
            for placement in ready.placements
            for task in placement.tasks
        ],
    )


def _refs(attempts: Iterable[tuple[int, str, int]]) -> list[AttemptRef]:
    return [AttemptRef(index=i, name=name, attempt=attempt) for i, name, attempt in attempts]


def _slices(attempts: Attempts) -> Iterator[Attempts]:
    for start in range(0, len(attempts), _MOST_ATTEMPTS):
        yield attempts[start : start + _MOST_ATTEMPTS]
