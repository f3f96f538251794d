"""Clusters: list, look at, drain, resume, remove. The engine owns their state and is asked."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Path, Query
from nats.errors import Error as NatsError

from cairn_api.core.clusters import (
    ClusterAnswer,
    ClustersAnswer,
    cluster_answer,
    cluster_entry,
)
from cairn_api.core.errors import ApiError, unavailable
from cairn_api.handlers.context import Context, Ctx
from cairn_api.handlers.submitting import REFUSED
from cairn_common.requests import CLUSTER_SUBJECT, ClusterAction, ClusterReply, ClusterRequest

router = APIRouter(prefix="/api/clusters", tags=["Clusters"], responses=REFUSED)

_ANSWER_SECONDS = 10.0
Name = Annotated[str, Path(description="The cluster's name.", max_length=253)]


@router.get("")
async def list_clusters(context: Ctx) -> ClustersAnswer:
    """The clusters that have registered, with what they have and what of it is in use."""
    now = datetime.now(UTC)
    known = await context.reader.clusters()
    return ClustersAnswer(clusters=[cluster_entry(each, context.inventory, now) for each in known])


@router.get("/{name}")
async def get_cluster(context: Ctx, name: Name) -> ClusterAnswer:
    """One of them with the tasks that are open there."""
    known = {each.name: each for each in await context.reader.clusters()}
    if name not in known:
        raise _unknown(name)
    tasks = await context.reader.open_tasks_in(name)
    return cluster_answer(known[name], tasks, context.inventory, datetime.now(UTC))


@router.post("/{name}/drain")
async def drain_cluster(context: Ctx, name: Name) -> ClusterAnswer:
    """Place nothing new there. What is queued there moves if it can, what runs ends."""
    await _order(context, name, ClusterAction.DRAIN)
    return await get_cluster(context, name)


@router.post("/{name}/resume")
async def resume_cluster(context: Ctx, name: Name) -> ClusterAnswer:
    """Let a draining cluster take work again."""
    await _order(context, name, ClusterAction.RESUME)
    return await get_cluster(context, name)


@router.delete("/{name}")
async def remove_cluster(
    context: Ctx,
    name: Name,
    force: Annotated[bool, Query(description="Even if tasks are open: they are lost.")] = False,
) -> None:
    """Forget a cluster. Its bridge registers it anew if it still runs."""
    await _order(context, name, ClusterAction.REMOVE, force=force)


async def _order(
    context: Context, name: str, action: ClusterAction, *, force: bool = False
) -> None:
    request = ClusterRequest(cluster=name, action=action, force=force)
    try:
        message = await context.bus.client.request(
            CLUSTER_SUBJECT, request.model_dump_json().encode(), timeout=_ANSWER_SECONDS
        )
    except NatsError as error:
        raise unavailable("No engine answers.") from error
    reply = ClusterReply.model_validate_json(message.data)
    if not reply.known:
        raise _unknown(name)
    if reply.open_attempts:
        raise ApiError(
            f"{reply.open_attempts} tasks are open in cluster {name}. Drain it and wait until they"
            " have ended, or remove it with force: what runs there is lost then.",
            "USAGE",
        )


def _unknown(name: str) -> ApiError:
    return ApiError(f"Cluster {name[:253]} is not found.", "NOTFOUND")
