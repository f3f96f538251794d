"""What the routes work with, and who a request comes from."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Header, Path, Request

from cairn_api.core.errors import ApiError, no_workflow, unavailable
from cairn_api.core.inventory import Inventory
from cairn_api.core.present import Links
from cairn_api.handlers.clusters import ClusterListener
from cairn_api.handlers.listening import Listening
from cairn_api.handlers.logreading import LogFollower, LogReader
from cairn_api.handlers.outgoing import Outgoing
from cairn_api.handlers.watching import Watches
from cairn_api.settings import ApiSettings
from cairn_api.store import Reader, Writer
from cairn_common.messaging import Bus, DeadLetterBox
from cairn_common.spec import Limits, SpecLoader
from cairn_common.telemetry import current_traceparent, new_traceparent

MOST_ENTRIES = 1000
_FARTHEST = 1_000_000_000
_WORKFLOW = re.compile(r"[A-Za-z][A-Za-z0-9_-]*-[1-9][0-9]*")
_LONGEST_ID = 96
_USER = re.compile(r"[\x21-\x7e]{1,255}")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


@dataclass(slots=True)
class Streams:
    """Counts the streams that are open.

    They have a bound, which requests that arrive in one moment may pass by a few.
    """

    most: int
    open: int = 0

    def check(self) -> None:
        """Raises ApiError if one more would be too many."""
        if self.open >= self.most:
            raise unavailable(f"{self.open} streams are open, which is the limit.")


@dataclass(slots=True)
class Context:
    """All that routes use; made once by the service."""

    settings: ApiSettings
    bus: Bus
    reader: Reader
    writer: Writer
    loader: SpecLoader
    outgoing: Outgoing
    inventory: Inventory
    clusters: ClusterListener
    listening: Listening
    watches: Watches
    logs: LogReader
    follower: LogFollower
    streams: Streams
    dead_letters: DeadLetterBox
    closing: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def limits(self) -> Limits:
        """The bounds within which workflow files are read."""
        settings = self.settings
        return Limits(
            max_bytes=settings.max_spec_bytes,
            max_tasks=settings.max_tasks,
            max_exec_timeout=settings.max_exec_timeout,
            max_queue_timeout=settings.max_queue_timeout,
        )

    def check_pool(self, pool: str) -> None:
        """Raises ApiError if there is no such pool."""
        if pool not in self.inventory.pools:
            raise ApiError(f"Pool {pool} not found.", "USER")


def _context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


Ctx = Annotated[Context, Depends(_context)]


def _user(
    context: Ctx,
    x_osmo_user: Annotated[
        str | None, Header(description="Who asks; the local user if unset.")
    ] = None,
) -> str:
    if x_osmo_user is None:
        return context.settings.local_user
    if not _USER.fullmatch(x_osmo_user):
        raise ApiError("x-osmo-user is no user name.", "USER")
    return x_osmo_user


User = Annotated[str, Depends(_user)]


def _workflow(
    name: Annotated[str, Path(description="The workflow's id.", examples=["hello-1"])],
) -> str:
    """The id, if it can be one: it becomes part of subjects and paths."""
    if len(name) > _LONGEST_ID or not _WORKFLOW.fullmatch(name):
        raise no_workflow(name[:_LONGEST_ID])
    return name


WorkflowId = Annotated[str, Depends(_workflow)]


def _links(request: Request) -> Links:
    return Links(str(request.base_url).rstrip("/"))


LinksOf = Annotated[Links, Depends(_links)]


def _traceparent(
    traceparent: Annotated[
        str | None, Header(description="W3C trace context of the caller.")
    ] = None,
) -> str:
    """The span of this request if there is one, else the caller's context, else a new one."""
    current = current_traceparent()
    if current is not None:
        return current
    if traceparent is not None and _TRACEPARENT.fullmatch(traceparent):
        return traceparent
    return new_traceparent()


Traceparent = Annotated[str, Depends(_traceparent)]


def is_workflow_id(text: str) -> bool:
    """Whether the text can be a workflow's id."""
    return len(text) <= _LONGEST_ID and _WORKFLOW.fullmatch(text) is not None


def check_page(limit: int, offset: int) -> None:
    """Raises ApiError for a page that is too large or no page."""
    if limit > MOST_ENTRIES:
        raise ApiError(f"Limit must be less than {MOST_ENTRIES}.", "USAGE")
    if limit < 1 or not 0 <= offset <= _FARTHEST:
        raise ApiError("Limit must be at least 1 and offset at least 0.", "USAGE")
