"""Workflows: list, look at, cancel, tag."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.responses import PlainTextResponse

from cairn_api.core.answers import (
    CancelAnswer,
    ListAnswer,
    ListOrder,
    Priority,
    WorkflowAnswer,
    json_of,
    schema_of,
)
from cairn_api.core.errors import ApiError, no_workflow, not_yet
from cairn_api.core.labels import parse_selector
from cairn_api.core.model import Snapshot
from cairn_api.core.present import list_answer, workflow_answer
from cairn_api.handlers.context import (
    Ctx,
    LinksOf,
    Traceparent,
    User,
    WorkflowId,
    check_page,
)
from cairn_api.handlers.submitting import REFUSED, SOURCE
from cairn_api.store import WorkflowFilter
from cairn_common.events import WorkflowCancel, encode
from cairn_common.status import WorkflowStatus

router = APIRouter(tags=["Workflow API"])

_MANY_TASKS = 1000
"""Answers about more tasks than this are put together in a thread."""
_LONGEST_TAG = 128
_LONGEST_MESSAGE = 4096


def utc(at: datetime | None) -> datetime | None:
    """A time of a request; without an offset it is UTC."""
    return at.replace(tzinfo=UTC) if at is not None and at.tzinfo is None else at


@router.get("/api/workflow", response_class=Response, responses=schema_of(ListAnswer) | REFUSED)
async def list_workflows(
    context: Ctx,
    links: LinksOf,
    user: User,
    users: Annotated[list[str] | None, Query(description="Whose; the caller's own.")] = None,
    name: Annotated[str | None, Query(description="A part of the id.")] = None,
    statuses: Annotated[list[WorkflowStatus] | None, Query()] = None,
    offset: int = 0,
    limit: Annotated[int, Query(description="At most 1000.")] = 20,
    order: Annotated[
        ListOrder, Query(description="By time of submission, within the page.")
    ] = ListOrder.ASC,
    all_users: bool = False,
    pools: Annotated[list[str] | None, Query()] = None,
    all_pools: bool = False,
    submitted_before: datetime | None = None,
    submitted_after: datetime | None = None,
    tags: Annotated[list[str] | None, Query(description="One of these.")] = None,
    app: Annotated[str | None, Query(description="Not executed yet.")] = None,
    priority: Annotated[list[Priority] | None, Query()] = None,
    label: Annotated[
        list[str] | None,
        Query(
            description="`key=value`, with `*` for any text and `(a|b)` for alternatives. "
            "Repeat it: all must match.",
            examples=[["team=(vision|planning)*"]],
        ),
    ] = None,
    no_label: Annotated[list[str] | None, Query(description="Keys that must be absent.")] = None,
) -> Response:
    """A page of workflows: the newest after the offset."""
    check_page(limit, offset)
    if app is not None:
        raise not_yet("Listing by app")
    wanted = WorkflowFilter(
        users=() if all_users else users or [user],
        name=name,
        statuses=[status.value for status in statuses or ()],
        pools=() if all_pools else pools or (),
        submitted_after=utc(submitted_after),
        submitted_before=utc(submitted_before),
        tags=tags or (),
        priorities=[item.value for item in priority or ()],
        labels=[parse_selector(text) for text in label or ()],
        no_labels=no_label or (),
        limit=limit,
        offset=offset,
    )
    workflows, more = await context.reader.list_workflows(wanted)
    if order is ListOrder.ASC:
        workflows.reverse()
    answer = list_answer(workflows, links, datetime.now(UTC), more=more)
    return Response(json_of(answer), media_type="application/json")


@router.get(
    "/api/workflow/{name}", response_class=Response, responses=schema_of(WorkflowAnswer) | REFUSED
)
async def get_workflow(
    context: Ctx,
    links: LinksOf,
    workflow: WorkflowId,
    skip_groups: Annotated[bool, Query(description="Leave the groups out.")] = False,
    verbose: Annotated[
        bool, Query(description="Spec and template as texts, not as addresses.")
    ] = False,
) -> Response:
    """A workflow with its groups, and their tasks with all attempts."""
    if skip_groups:
        found = await context.reader.workflow(workflow)
        snapshot = Snapshot(found) if found else None
    else:
        snapshot = await context.reader.snapshot(workflow)
    if snapshot is None:
        raise no_workflow(workflow)
    texts = await context.reader.texts(workflow) if verbose else None

    def build() -> bytes:
        return json_of(
            workflow_answer(
                snapshot,
                links,
                datetime.now(UTC),
                rendered=texts.rendered if texts else None,
                template=texts.template or "" if texts else None,
            )
        )

    few = len(snapshot.tasks) <= _MANY_TASKS
    body = build() if few else await asyncio.to_thread(build)
    return Response(body, media_type="application/json")


@router.get("/api/workflow/{name}/spec", response_class=PlainTextResponse, responses=REFUSED)
async def get_workflow_spec(
    context: Ctx,
    workflow: WorkflowId,
    use_template: Annotated[
        bool, Query(description="The text before its templates were filled in.")
    ] = False,
) -> PlainTextResponse:
    """The text of a workflow."""
    texts = await context.reader.texts(workflow)
    if texts is None:
        raise no_workflow(workflow)
    template = texts.template if use_template else None
    return PlainTextResponse(template or texts.rendered)


@router.post("/api/workflow/{name}/cancel", responses=REFUSED)
async def cancel_workflow(
    context: Ctx,
    user: User,
    traceparent: Traceparent,
    workflow: WorkflowId,
    message: Annotated[str | None, Query(description="Why; shown to others.")] = None,
    force: Annotated[bool, Query(description="Kill at once, without a grace period.")] = False,
) -> CancelAnswer:
    """Ask for a workflow to be canceled. The answer comes when the request is stored."""
    if message is not None and (len(message) > _LONGEST_MESSAGE or "\0" in message):
        raise ApiError(f"A message has at most {_LONGEST_MESSAGE} characters.", workflow=workflow)
    found = await context.reader.workflow(workflow)
    if found is None:
        raise no_workflow(workflow)
    if found.status.final:
        raise ApiError(
            f"Workflow {workflow} has already finished with status {found.status}.",
            workflow=workflow,
        )
    event = WorkflowCancel(workflow=workflow, user=user, message=message, force=force)
    envelope = encode(event, source=SOURCE, traceparent=traceparent)
    await context.writer.request_cancel(workflow, envelope, force=force)
    context.outgoing.send(envelope)
    return CancelAnswer(name=workflow)


@router.post("/api/workflow/{name}/tag", responses=REFUSED)
async def tag_workflow(
    context: Ctx,
    workflow: WorkflowId,
    add: Annotated[list[str] | None, Query()] = None,
    remove: Annotated[list[str] | None, Query()] = None,
) -> dict[str, list[str]]:
    """Add and remove tags; answers those that the workflow has then."""
    for tag in add or ():
        if not tag or len(tag) > _LONGEST_TAG:
            raise ApiError(f"A tag has 1 to {_LONGEST_TAG} characters.", workflow=workflow)
    tags = await context.writer.tag(workflow, add or (), remove or ())
    if tags is None:
        raise no_workflow(workflow)
    return {"tags": tags}


@router.get("/api/tag", tags=["Misc API"])
async def get_tags(context: Ctx) -> dict[str, list[str]]:
    """All tags in use."""
    return {"tags": await context.reader.tags()}
