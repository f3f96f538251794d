"""The application: its routes, its doors, and how failures are answered."""

from __future__ import annotations

import structlog
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from cairn_api.core.errors import ApiError, ErrorAnswer, unavailable
from cairn_api.core.versions import own_version
from cairn_api.handlers import (
    deadletters,
    operating,
    pools,
    streaming,
    submitting,
    system,
    tasks,
    workflows,
)
from cairn_api.handlers.context import Context
from cairn_api.handlers.doors import Doors, refusal
from cairn_api.store import EngineMissingError, NotStorableError, UnavailableError
from cairn_common.spec import SpecError

log = structlog.get_logger(__name__)

DESCRIPTION = """\
Submit workflows, follow them, and see what they run on.

The paths, parameters and JSON are those of NVIDIA OSMO 6.4; `watch`, `ready`, `asyncapi`,
`clusters` and `dead-letters` are additions. A refusal is HTTP 400 with `message` and `error_code`.
"""


def make_app(context: Context) -> FastAPI:
    """The application on a context."""
    settings = context.settings
    app = FastAPI(
        title="Cairn",
        version=own_version(),
        description=DESCRIPTION,
        # The pages of /docs would load their scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/openapi.json",
    )
    app.state.context = context
    for module in (submitting, workflows, streaming, tasks, pools, operating, deadletters, system):
        app.include_router(module.router)
    app.add_middleware(Doors, hosts=settings.allowed_hosts, most_bytes=settings.max_body_bytes)
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(SpecError, _spec_error)
    app.add_exception_handler(UnavailableError, _unavailable)
    app.add_exception_handler(EngineMissingError, _engine_missing)
    app.add_exception_handler(NotStorableError, _not_storable)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unexpected)
    return app


async def _api_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ApiError)
    return refusal(error)


async def _spec_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, SpecError)
    answer = ErrorAnswer(
        message=str(error),
        error_code=error.code.value,
        problems=[problem.to_dict() for problem in error.problems],
    )
    return JSONResponse(answer.model_dump(), status_code=400)


async def _unavailable(request: Request, error: Exception) -> JSONResponse:
    log.warning("database unavailable", error=str(error), path=request.url.path)
    return refusal(unavailable("The database does not answer."))


async def _engine_missing(request: Request, error: Exception) -> JSONResponse:
    return refusal(unavailable("The engine has not started on this database yet."))


async def _not_storable(request: Request, error: Exception) -> JSONResponse:
    return refusal(ApiError("The request holds a value that cannot be stored.", "USAGE"))


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    code = "NOTFOUND" if error.status_code == 404 else "USAGE"
    answer = ErrorAnswer(message=str(error.detail), error_code=code)
    return JSONResponse(
        answer.model_dump(exclude={"problems"}),
        status_code=error.status_code,
        headers=error.headers,
    )


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    # The traceback is logged by the server, to which the exception goes on from here.
    answer = ErrorAnswer(
        message="Internal server error: see the log of the API.", error_code="SERVER"
    )
    return JSONResponse(answer.model_dump(exclude={"problems"}), status_code=500)
