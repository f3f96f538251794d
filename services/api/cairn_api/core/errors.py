"""What the API says when it refuses, in the reference's form (CONTRACT A.5).

Nearly every refusal is HTTP 400 with `message`, `error_code` and `workflow_id`; the client
branches on the code, not on the status.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


class ErrorAnswer(BaseModel):
    """The body of a refusal."""

    message: str
    error_code: str
    workflow_id: str | None = None
    problems: list[dict[str, Any]] | None = Field(
        default=None, description="Of a refused workflow file: each problem with its place."
    )


class ApiError(Exception):
    """A refusal; `str()` is what the user reads.

    Args:
        message: what is wrong and, where there is one, the way out.
        code: the reference's error code, such as USER, USAGE, DATABASE, RESOURCE.
        status: the HTTP status.
        workflow: the workflow that it is about.
    """

    def __init__(
        self, message: str, code: str = "USER", *, status: int = 400, workflow: str | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.workflow = workflow

    def answer(self) -> ErrorAnswer:
        """The body of the refusal."""
        return ErrorAnswer(message=str(self), error_code=self.code, workflow_id=self.workflow)


def no_workflow(workflow: str) -> ApiError:
    """No workflow has this id."""
    return ApiError(f"Workflow {workflow} is not found.", "DATABASE", workflow=workflow)


def no_task(workflow: str, task: str) -> ApiError:
    """The workflow has no task of this name."""
    return ApiError(
        f"Task {task} of workflow {workflow} is not found.", "DATABASE", workflow=workflow
    )


def not_yet(what: str) -> ApiError:
    """A request that the contract knows and this installation does not execute yet."""
    return ApiError(f"{what} is not executed by this installation yet.", "USAGE")


def unavailable(what: str) -> ApiError:
    """Something that the API needs is away for the moment; the same request may succeed later."""
    return ApiError(f"{what} Try again in a moment.", "UNAVAILABLE", status=503)
