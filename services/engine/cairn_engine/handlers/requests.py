"""What others may ask the engine, by NATS request-reply."""

from __future__ import annotations

from faststream.nats import NatsRouter

from cairn_common.requests import (
    ATTEMPTS_SUBJECT,
    CLUSTER_SUBJECT,
    WORKFLOWS_SUBJECT,
    AttemptsReply,
    AttemptsRequest,
    ClusterReply,
    ClusterRequest,
    KnownAttempt,
    WorkflowsReply,
    WorkflowsRequest,
)
from cairn_engine.handlers.clusters import ClusterKeeper
from cairn_engine.store import Store

_PAGE = 1000


def requests_router(store: Store, keeper: ClusterKeeper) -> NatsRouter:
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

    @router.subscriber(WORKFLOWS_SUBJECT, queue="engine")
    async def workflows(request: WorkflowsRequest) -> WorkflowsReply:
        return WorkflowsReply(unknown=await store.unknown_workflows(request.workflows))

    @router.subscriber(CLUSTER_SUBJECT, queue="engine")
    async def cluster(request: ClusterRequest) -> ClusterReply:
        return await keeper.order(request)

    return router
