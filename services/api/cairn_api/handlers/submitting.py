"""Submitting workflows: read, judged, stored, announced."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Body, Query
from opentelemetry.trace import SpanKind

from cairn_api.core.answers import Priority, SubmitAnswer, TemplateSpec
from cairn_api.core.errors import ApiError, ErrorAnswer, no_workflow, not_yet
from cairn_api.core.labels import parse_labels
from cairn_api.core.present import Links
from cairn_api.core.submission import (
    Accepted,
    accept,
    only_local_files_missing,
    parse_environment,
)
from cairn_api.handlers.context import (
    Context,
    Ctx,
    LinksOf,
    Traceparent,
    User,
    is_workflow_id,
)
from cairn_api.store import NewSubmission
from cairn_common.events import Envelope, WorkflowSubmitted, encode
from cairn_common.spec import LoadedWorkflow, SpecError, WorkflowSpec
from cairn_common.status import WorkflowStatus
from cairn_common.telemetry import annotate_span, message_attributes, start_span

SOURCE = "/api"
_LARGE = 64 * 1024
"""Texts above this are judged in a thread, so that other requests go on."""

T = TypeVar("T")
router = APIRouter(tags=["Pool API"])
REFUSED: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorAnswer, "description": "Refused; the message says why."}
}


@router.post("/api/pool/{pool_name}/workflow", responses=REFUSED)
async def submit_workflow(
    context: Ctx,
    links: LinksOf,
    user: User,
    traceparent: Traceparent,
    pool_name: str,
    template_spec: Annotated[TemplateSpec | None, Body()] = None,
    workflow_id: Annotated[
        str | None, Query(description="Submit this earlier workflow again.")
    ] = None,
    app_uuid: Annotated[str | None, Query(description="Not executed yet.")] = None,
    app_version: Annotated[int | None, Query(description="Not executed yet.")] = None,
    dry_run: Annotated[
        bool, Query(description="Only fill in the templates and answer the text.")
    ] = False,
    validation_only: Annotated[bool, Query(description="Check everything, run nothing.")] = False,
    priority: Priority = Priority.NORMAL,
    env_vars: Annotated[list[str] | None, Query(description="`NAME=value` for every task.")] = None,
    label: Annotated[
        list[str] | None, Query(description="`key=value`; wins over the file.")
    ] = None,
) -> SubmitAnswer:
    """Check a workflow and submit it.

    The answer comes when the workflow is stored: from then on it will run, whatever fails.
    """
    if app_uuid is not None or app_version is not None:
        raise not_yet("Submitting an app")
    context.check_pool(pool_name)
    labels = parse_labels(label or ())
    environment = env_vars or []
    if dry_run:
        if template_spec is None:
            raise ApiError("A dry run needs a workflow file.", "USAGE")
        return await _dry_run(context, template_spec, environment)
    if template_spec is not None and workflow_id is None:
        _check_text(template_spec.uploaded_templated_spec)
        loaded = await _load(context, template_spec, environment)
        template = template_spec.uploaded_templated_spec
        more_environment = {}
    elif template_spec is None and workflow_id is not None:
        loaded = await _load_again(context, workflow_id)
        template = None
        more_environment = parse_environment(environment)
    else:
        raise ApiError("Submit either a workflow file or workflow_id, one of the two.", "USAGE")
    accepted = await _accept(
        context,
        loaded,
        pool_name,
        labels=labels,
        environment=more_environment,
        template=template,
        priority=priority.value,
    )
    if validation_only:
        return SubmitAnswer(
            name=accepted.name,
            logs="Workflow validation succeeded.",
            warnings=list(accepted.warnings),
        )
    return await _submit(
        context,
        links,
        NewSubmission(
            accepted,
            uuid.uuid4().hex,
            user,
            pool_name,
            priority.value,
            traceparent,
            datetime.now(UTC),
            workflow_id,
        ),
    )


@router.post("/api/pool/{pool_name}/workflow/{workflow_id}/restart", responses=REFUSED)
async def restart_workflow(
    context: Ctx,
    links: LinksOf,
    user: User,
    traceparent: Traceparent,
    pool_name: str,
    workflow_id: str,
) -> SubmitAnswer:
    """Run what did not complete of an ended workflow, as a new workflow.

    Groups that completed are taken over with their outputs; all others run anew.
    """
    context.check_pool(pool_name)
    earlier = await context.reader.workflow(workflow_id) if is_workflow_id(workflow_id) else None
    if earlier is None:
        raise no_workflow(workflow_id[:100])
    if not earlier.status.final:
        raise ApiError(
            f"Workflow {workflow_id} is {earlier.status}: only an ended workflow can be restarted."
            " Cancel it first.",
            workflow=workflow_id,
        )
    if earlier.status is WorkflowStatus.COMPLETED:
        raise ApiError(
            f"Workflow {workflow_id} completed: nothing of it has failed."
            " Submit it again to run all of it.",
            workflow=workflow_id,
        )
    loaded = await _load_again(context, workflow_id)
    accepted = await _accept(context, loaded, pool_name, priority=earlier.priority)
    return await _submit(
        context,
        links,
        NewSubmission(
            accepted,
            uuid.uuid4().hex,
            user,
            pool_name,
            earlier.priority,
            traceparent,
            datetime.now(UTC),
            workflow_id,
            restarts=workflow_id,
        ),
    )


async def _accept(
    context: Context,
    loaded: LoadedWorkflow,
    pool: str,
    *,
    labels: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
    template: str | None = None,
    priority: str = "NORMAL",
) -> Accepted:
    """Judge a readable workflow by what this installation and the pool's clusters have."""
    await context.clusters.known(pool, context.settings.inventory_patience)
    return await _judge(
        lambda: accept(
            loaded,
            pool=pool,
            features=frozenset(context.settings.features),
            sites=context.inventory.sites(pool),
            labels=labels or {},
            environment=environment or {},
            template=template,
            priority=priority,
        ),
        len(loaded.rendered),
    )


async def _submit(context: Context, links: Links, new: NewSubmission) -> SubmitAnswer:
    def announce(workflow: str) -> Envelope:
        event = WorkflowSubmitted(
            workflow=workflow,
            uuid=new.uuid,
            user=new.user,
            pool=new.pool,
            priority=new.priority,
            submitted_at=new.submitted_at,
        )
        return encode(event, source=SOURCE, traceparent=new.traceparent, time=new.submitted_at)

    kind = WorkflowSubmitted.type
    with start_span(f"create {kind}", kind=SpanKind.PRODUCER) as span:
        workflow, envelope = await context.writer.submit(new, announce)
        span.set_attributes(message_attributes("create", kind, envelope.subject, envelope.headers))
    annotate_span({"cairn.workflow": workflow})  # the request's own span: how a trace is found
    context.outgoing.send(envelope)
    return SubmitAnswer(
        name=workflow,
        overview=links.overview(workflow),
        logs=links.of(workflow, "logs"),
        spec=links.of(workflow, "spec"),
        dashboard_url=None,
        warnings=list(new.accepted.warnings),
    )


async def _load(context: Context, given: TemplateSpec, environment: list[str]) -> LoadedWorkflow:
    return await context.loader.load(
        given.file,
        set_variables=given.set_variables,
        set_string_variables=given.set_string_variables,
        env_vars=environment,
        limits=context.limits,
        # Beside an expanded file the client sends the original, which is kept for showing.
        templates=given.uploaded_templated_spec is None,
    )


async def _dry_run(context: Context, given: TemplateSpec, environment: list[str]) -> SubmitAnswer:
    """The text after its templates.

    The client does this before it reads the author's local files, so that those are missing is
    no fault here.
    """
    try:
        loaded = await _load(context, given, environment)
    except SpecError as error:
        if not only_local_files_missing(error):
            raise
        return SubmitAnswer(name="", spec=(error.rendered or given.file).lstrip("\n"))
    return SubmitAnswer(
        name=loaded.spec.name,
        spec=loaded.rendered.lstrip("\n"),
        warnings=list(loaded.warnings),
    )


async def _load_again(context: Context, workflow: str) -> LoadedWorkflow:
    """An earlier submission; it was valid then, so only this installation may refuse it now."""
    texts = await context.reader.texts(workflow) if is_workflow_id(workflow) else None
    if texts is None:
        raise no_workflow(workflow[:100])
    spec = await _judge(lambda: WorkflowSpec.model_validate_json(texts.spec), len(texts.spec))
    return LoadedWorkflow(spec, texts.rendered, texts.template or texts.rendered)


async def _judge(decide: Callable[[], T], size: int) -> T:
    return decide() if size <= _LARGE else await asyncio.to_thread(decide)


def _check_text(text: str | None) -> None:
    if text is not None and "\0" in text:
        raise ApiError("A workflow file holds no NUL characters.", "USAGE")
