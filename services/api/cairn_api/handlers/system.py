"""The system itself: version, health, readiness, the catalogue of events."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter
from fastapi.responses import JSONResponse, RedirectResponse
from nats.errors import Error as NatsError

from cairn_api.core.pools import VersionAnswer
from cairn_api.core.versions import CONTRACT, own_version
from cairn_api.handlers.context import Context, Ctx
from cairn_api.store import NotStorableError, UnavailableError
from cairn_common.asyncapi import asyncapi_document
from cairn_common.requests import ATTEMPTS_SUBJECT, AttemptsRequest

router = APIRouter(tags=["Misc API"])

_PATIENCE = 2.0


@router.get("/api/version")
@router.get("/client/version")
async def get_version() -> VersionAnswer:
    """The version of the contract that this API keeps; `hash` names the software."""
    major, minor, revision = map(str, CONTRACT)
    return VersionAnswer(major=major, minor=minor, revision=revision, hash=f"cairn-{own_version()}")


@router.get("/workflows/{name}", include_in_schema=False)
async def overview(name: str) -> RedirectResponse:
    """Where `overview` links lead until there is a web page: to the facts themselves."""
    return RedirectResponse(f"/api/workflow/{quote(name)}")


@router.get("/health")
async def health() -> dict[str, str]:
    """The process answers. Whether it can work is another question: see /api/ready."""
    return {"status": "OK"}


@router.get(
    "/api/ready",
    responses={503: {"description": "Something is missing; the answer names it."}},
)
@router.get("/health/ready", include_in_schema=False)
async def ready(context: Ctx) -> JSONResponse:
    """Whether workflows can be submitted and run: database, NATS and an engine are there."""
    database, nats, engine = await asyncio.gather(
        _database(context), _nats(context), _engine(context)
    )
    checks = {"database": database, "nats": nats, "engine": engine}
    fine = all(check == "OK" for check in checks.values())
    return JSONResponse(
        {"status": "OK" if fine else "NOT READY", **checks}, status_code=200 if fine else 503
    )


async def _database(context: Context) -> str:
    try:
        async with asyncio.timeout(_PATIENCE):
            await context.writer.check()
    except (UnavailableError, NotStorableError, TimeoutError) as error:
        return f"does not answer: {error}"
    return "OK"


async def _nats(context: Context) -> str:
    if not context.bus.client.is_connected:
        return "not connected"
    try:
        async with asyncio.timeout(_PATIENCE):
            await context.bus.jetstream.account_info()
    except (NatsError, TimeoutError) as error:
        return f"JetStream does not answer: {error}"
    return "OK"


async def _engine(context: Context) -> str:
    """Asks for the attempts in a cluster that does not exist: an engine that works says none."""
    question = AttemptsRequest(cluster="").model_dump_json().encode()
    try:
        await context.bus.client.request(
            ATTEMPTS_SUBJECT,
            question,
            timeout=_PATIENCE,
            headers={"content-type": "application/json"},
        )
    except (NatsError, TimeoutError):
        return "no engine answers"
    return "OK"


@router.get("/api/asyncapi")
async def get_asyncapi() -> dict[str, Any]:
    """The events that anybody may subscribe to on NATS, as an AsyncAPI 3 document."""
    return asyncapi_document()
