"""Tasks over all workflows."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from cairn_api.core.answers import (
    ListOrder,
    ListTaskAnswer,
    Priority,
    TaskEntry,
    TaskSumAnswer,
    json_of,
)
from cairn_api.core.errors import no_task, no_workflow
from cairn_api.core.present import sums_answer, task_entry, task_list_answer
from cairn_api.handlers.context import Ctx, LinksOf, User, WorkflowId, check_page
from cairn_api.handlers.submitting import REFUSED
from cairn_api.handlers.workflows import utc
from cairn_api.store import TaskFilter
from cairn_common.status import TaskStatus

router = APIRouter(tags=["Workflow API"])
_ANSWERS: dict[int | str, dict[str, Any]] = {200: {"model": ListTaskAnswer | TaskSumAnswer}}


@router.get(
    "/api/task",
    response_class=Response,
    responses=_ANSWERS | REFUSED,
)
async def list_tasks(
    context: Ctx,
    links: LinksOf,
    user: User,
    workflow_id: Annotated[str | None, Query(description="A part of the workflow's id.")] = None,
    statuses: Annotated[list[TaskStatus] | None, Query()] = None,
    users: Annotated[list[str] | None, Query(description="Whose; the caller's own.")] = None,
    all_users: bool = False,
    pools: Annotated[list[str] | None, Query()] = None,
    all_pools: bool = False,
    nodes: Annotated[list[str] | None, Query()] = None,
    started_after: datetime | None = None,
    started_before: datetime | None = None,
    offset: int = 0,
    limit: Annotated[int, Query(description="At most 1000.")] = 20,
    order: ListOrder = ListOrder.ASC,
    summary: Annotated[
        bool, Query(description="What they ask for, by user, pool and priority.")
    ] = False,
    aggregate_by_workflow: Annotated[
        bool, Query(description="What they ask for, by workflow.")
    ] = False,
    priority: Annotated[list[Priority] | None, Query()] = None,
) -> Response:
    """A page of attempts, those of the newest workflows; or sums of what they ask for."""
    check_page(limit, offset)
    wanted = TaskFilter(
        workflow=workflow_id,
        users=() if all_users else users or [user],
        statuses=[status.value for status in statuses or ()],
        pools=() if all_pools else pools or (),
        nodes=nodes or (),
        started_after=utc(started_after),
        started_before=utc(started_before),
        priorities=[item.value for item in priority or ()],
        limit=limit,
        offset=offset,
    )
    if summary or aggregate_by_workflow:
        sums = await context.reader.sum_tasks(wanted, by_workflow=not summary)
        return Response(json_of(sums_answer(sums)), media_type="application/json")
    tasks = await context.reader.list_tasks(wanted)
    if order is ListOrder.ASC:
        tasks.reverse()
    answer = task_list_answer(tasks, links, datetime.now(UTC))
    return Response(json_of(answer), media_type="application/json")


@router.get("/api/workflow/{name}/task/{task_name}", responses=REFUSED)
async def get_workflow_task(context: Ctx, workflow: WorkflowId, task_name: str) -> TaskEntry:
    """The newest attempt of one task."""
    listed = await context.reader.task(workflow, task_name)
    if listed is None:
        if not await context.reader.exists(workflow):
            raise no_workflow(workflow)
        raise no_task(workflow, task_name)
    return task_entry(listed)
