"""What others may ask the engine, by NATS request-reply."""

from __future__ import annotations

from faststream.nats import NatsRouter
from pydantic import BaseModel

from cairn_engine.store import Store

ATTEMPTS_SUBJECT = "engine.attempts"
_PAGE = 1000


class AttemptsRequest(BaseModel):
    """Which attempts does the engine believe to be in this cluster? A page of them."""

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


def requests_router(store: Store) -> NatsRouter:
    """The requests that an engine answers; any engine may answer any."""
    router = NatsRouter()

    @router.subscriber(ATTEMPTS_SUBJECT, queue="engine")
    async def attempts(request: AttemptsRequest) -> AttemptsReply:
        rows = await store.open_attempts(
            request.cluster, (request.after_workflow, request.after_index), _PAGE
        )
        return AttemptsReply(
            attempts=[
                KnownAttempt(workflow=w, index=i, attempt=a, name=name, status=status)
                for w, i, a, name, status in rows
            ]
        )

    return router
