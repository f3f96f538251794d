"""Pools, nodes and profiles."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query

from cairn_api.core.errors import ApiError
from cairn_api.core.nodes import node_sets, pool_minimal, resources_of, sum_of
from cairn_api.core.pools import (
    PoolQuotaAnswer,
    PoolsAnswer,
    ProfileAnswer,
    ResourcesAnswer,
    UserProfile,
)
from cairn_api.handlers.context import Context, Ctx, User
from cairn_api.handlers.submitting import REFUSED

router = APIRouter()
Pools = Annotated[list[str] | None, Query(description="Only these.")]


def _chosen(context: Context, pools: list[str] | None, *, every: bool = False) -> list[str]:
    known = context.inventory.pools
    return known if every or not pools else [pool for pool in known if pool in set(pools)]


@router.get("/api/pool", tags=["Pool API"])
async def get_pools(context: Ctx, all_pools: bool = True, pools: Pools = None) -> PoolsAnswer:
    """The pools, with their platforms and whether their clusters are there."""
    now = datetime.now(UTC)
    chosen = _chosen(context, pools)
    return PoolsAnswer(pools={pool: pool_minimal(context.inventory, pool, now) for pool in chosen})


@router.get("/api/pool_quota", tags=["Pool API"])
async def get_pool_quotas(
    context: Ctx, all_pools: bool = True, pools: Pools = None
) -> PoolQuotaAnswer:
    """The use of the pools. Pools that share nodes are one node set."""
    chosen = _chosen(context, pools)
    return PoolQuotaAnswer(
        node_sets=node_sets(context.inventory, chosen, datetime.now(UTC)),
        resource_sum=sum_of(context.inventory, chosen),
    )


@router.get("/api/resources", tags=["Resource API"])
async def get_resources(
    context: Ctx,
    pools: Pools = None,
    platforms: Annotated[list[str] | None, Query(description="Only these.")] = None,
    all_pools: bool = False,
    concise: Annotated[bool, Query(description="Not executed yet: always in full.")] = False,
) -> ResourcesAnswer:
    """The nodes of the pools: what they have and what of it is in use."""
    chosen = _chosen(context, pools, every=all_pools)
    return ResourcesAnswer(resources=resources_of(context.inventory, chosen, platforms))


@router.get("/api/resources/{name}", tags=["Resource API"], responses=REFUSED)
async def get_one_resource(context: Ctx, name: str) -> ResourcesAnswer:
    """One node."""
    found = [
        resource
        for resource in resources_of(context.inventory, context.inventory.pools)
        if resource.hostname == name
    ]
    if not found:
        raise ApiError(f"Resource {name[:253]} is not found.", "NOTFOUND")
    return ResourcesAnswer(resources=found)


@router.get("/api/profile/settings", tags=["Profile API"])
async def get_profile(context: Ctx, user: User) -> ProfileAnswer:
    """The caller's profile. Who chose no pool has the installation's default."""
    profile = await context.reader.profile(user)
    return ProfileAnswer(
        profile=profile.model_copy(
            update={
                "pool": profile.pool or context.settings.default_pool,
                "email_notification": bool(profile.email_notification),
                "slack_notification": bool(profile.slack_notification),
            }
        ),
        roles=["osmo-admin", "osmo-user"],
        pools=context.inventory.pools,
    )


@router.post("/api/profile/settings", tags=["Profile API"], responses=REFUSED)
async def set_profile(
    context: Ctx, user: User, profile: UserProfile, set_default_backend: bool = False
) -> None:
    """Change the caller's profile; what is not given stays."""
    if profile.pool is not None:
        context.check_pool(profile.pool)
    changes = profile.model_dump(exclude_none=True, exclude={"username"})
    await context.writer.save_profile(user, changes)
