"""From effects of the core to events on the wire."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import orjson

from cairn_common.events import (
    AttemptRef,
    Envelope,
    Event,
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
from cairn_engine.store import Transaction

SOURCE = "/engine"


class Announcer:
    """Makes envelopes; event ids are unique per process and cheap."""

    def __init__(self) -> None:
        self._prefix = secrets.token_hex(8)
        self._numbers = itertools.count()

    def _id(self) -> str:
        return f"{self._prefix}-{next(self._numbers)}"

    async def envelopes(
        self, transaction: Transaction, ledger: Ledger, effects: Iterable[Effect], now: datetime
    ) -> list[Envelope]:
        """All that the effects ask to say, in the order in which it was decided.

        Stops and settlements of one workflow are gathered into one event each.
        """
        effects = list(effects)
        bodies = await self._bodies(
            transaction, [effect for effect in effects if isinstance(effect, Place)]
        )
        envelopes: list[Envelope] = []
        settled: dict[str, list[AttemptRef]] = {}
        for effect in effects:
            match effect:
                case Place():
                    workflow = ledger.workflows[effect.workflow]
                    envelopes.append(self._ready(workflow, bodies[id(effect)], now))
                case Stop():
                    workflow = ledger.workflows[effect.workflow]
                    stop = TaskStop(
                        cluster=workflow.cluster,
                        workflow=workflow.id,
                        attempts=_refs(effect.attempts),
                        cause=effect.cause,
                        grace_seconds=effect.grace_seconds,
                    )
                    envelopes.append(self._say(workflow, stop, now))
                case Settle():
                    settled.setdefault(effect.workflow, []).extend(_refs(effect.attempts))
                case Announce():
                    workflow = ledger.workflows[effect.workflow]
                    envelopes.extend(self._status(workflow, effect, now))
        for name, attempts in settled.items():
            workflow = ledger.workflows[name]
            event = TaskSettled(cluster=workflow.cluster, workflow=name, attempts=attempts)
            envelopes.append(self._say(workflow, event, now))
        return envelopes

    def submitted(self, workflow: Workflow, now: datetime) -> Envelope:
        """The announcement that the engine has a new workflow."""
        event = WorkflowChanged(workflow=workflow.id, status=workflow.status.value, at=now)
        return self._say(workflow, event, now)

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

    def _ready(self, workflow: Workflow, placement: Mapping[str, Any], now: datetime) -> Envelope:
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
            "cluster": workflow.cluster,
            "workflow": workflow.id,
            "placement": placement,
            "traceparent": workflow.traceparent,
        }
        subject = f"{TaskReady.type}.{token(workflow.cluster)}.{token(workflow.id)}"
        return Envelope(subject, headers, orjson.dumps(body))

    async def _bodies(
        self, transaction: Transaction, places: list[Place]
    ) -> dict[int, dict[str, Any]]:
        """The complete placement of each effect, by the effect's identity."""
        if not places:
            return {}
        stored = await transaction.load_bodies((p.workflow, p.group) for p in places)
        parsed = {key: orjson.loads(text) for key, text in stored.items()}
        completed = await transaction.load_completed_attempts(
            (workflow, index)
            for (workflow, _group), body in parsed.items()
            for index in sources_of(body)
        )
        by_workflow: dict[str, dict[int, int]] = {}
        for (workflow, index), attempt in completed.items():
            by_workflow.setdefault(workflow, {})[index] = attempt
        return {
            id(place): complete_body(
                parsed[place.workflow, place.group],
                dict(place.attempts),
                by_workflow.get(place.workflow, {}),
            )
            for place in places
        }


def _refs(attempts: Iterable[tuple[int, str, int]]) -> list[AttemptRef]:
    return [AttemptRef(index=i, name=name, attempt=attempt) for i, name, attempt in attempts]
