"""Following a collection: list it once, then hear of every change.

A list gives the state at a resource version; a watch from that version on gives what happened
since. A watch that ends is taken up again where it was, bookmarks keep that place fresh where
little happens, and where the server has forgotten it (410 Gone) the collection is listed anew.
Whoever follows is told of a list page by page, since ten thousand pods as documents would take
hundreds of megabytes, and at its end which objects there are, to find out what is gone; nothing
is polled.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Set
from contextlib import closing
from typing import Any, Final

import aiohttp
import orjson
import structlog

from cairn_bridge.drivers.kubernetes.api import Api, ApiError, Document, Kind
from cairn_common.process import give_back_memory

log = structlog.get_logger(__name__)

LISTED: Final = "LISTED"
_PAGE: Final = "500"
_WATCH_SECONDS: Final = (240.0, 360.0)
_SILENT_SECONDS: Final = 400.0
_CHUNK: Final = 1 << 18
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 10.0


class Gone(Exception):  # noqa: N818 - the API's word for it
    """The server no longer knows what happened since a resource version."""


class Follower:
    """Follows one collection.

    Args:
        api: the API server.
        kind: the collection.
        on_change: called with `ADDED`, `MODIFIED` or `DELETED` and the object, and with `LISTED`
            and each object of a list.
        on_listing: called before a list is asked for: what is made from then on may not be in it.
        on_listed: called with the uids of all objects when a list has come to its end, first and
            whenever the collection was listed anew. None may block: what they leave to do they
            leave to tasks.
        query: selectors, as the API takes them.
    """

    def __init__(
        self,
        api: Api,
        kind: Kind,
        on_change: Callable[[str, Document], None],
        on_listed: Callable[[Set[str]], None],
        on_listing: Callable[[], None] = lambda: None,
        **query: str,
    ) -> None:
        self._api = api
        self._kind = kind
        self._on_change = on_change
        self._on_listed = on_listed
        self._on_listing = on_listing
        self._query = query
        self._version = ""
        self.listed = asyncio.Event()
        self.lists = 0

    async def run(self) -> None:
        """Follow until canceled. Raises ApiError when the server forbids it."""
        pause = _FIRST_PAUSE
        while True:
            try:
                if not self._version:
                    await self._list()
                began = asyncio.get_running_loop().time()
                await self._watch()
                # A watch that ends at once again and again must not become a loop of requests.
                if asyncio.get_running_loop().time() - began > 1.0:
                    pause = _FIRST_PAUSE
            except Gone:
                self._version = ""
                log.info("kubernetes.list_again", collection=self._kind.plural)
            except ApiError as error:
                if error.status in {401, 403, 404}:
                    raise
                log.warning("kubernetes.watch", collection=self._kind.plural, error=str(error))
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                log.info("kubernetes.watch", collection=self._kind.plural, error=repr(error))
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
            pause = min(pause * 2, _LONGEST_PAUSE)

    def forget_place(self, version: str) -> None:
        """Take up the next watch from another version, or list anew if it is empty."""
        self._version = version

    async def _list(self) -> None:
        self._on_listing()
        present: set[str] = set()
        query = {**self._query, "limit": _PAGE}
        while True:
            page = await self._api.page(self._kind, **query)
            for item in page["items"]:
                present.add(item["metadata"]["uid"])
                self._on_change(LISTED, item)
            metadata = page["metadata"]
            if not metadata.get("continue"):
                break
            query["continue"] = metadata["continue"]
        del page
        if len(present) > int(_PAGE):
            give_back_memory()
        self._version = metadata["resourceVersion"]
        self._on_listed(present)
        self.lists += 1
        self.listed.set()

    async def _watch(self) -> None:
        query = {
            **self._query,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(int(random.uniform(*_WATCH_SECONDS))),  # noqa: S311
        }
        try:
            response = await self._api.open(self._kind.path, query, _SILENT_SECONDS)
            with closing(response):
                async for line in lines_of(response.content):
                    self._take(orjson.loads(line))
        except ApiError as error:
            if error.status == 410:
                raise Gone from error
            raise

    def _take(self, event: dict[str, Any]) -> None:
        kind, document = event["type"], event["object"]
        if kind == "ERROR":
            if document.get("code") == 410:
                raise Gone
            raise ApiError(
                document.get("code", 500), document.get("reason", ""), document.get("message", "")
            )
        self._version = document["metadata"]["resourceVersion"]
        if kind != "BOOKMARK":
            self._on_change(kind, document)


async def lines_of(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Whole lines, however long; aiohttp's own iteration bounds them."""
    rest = b""
    async for chunk in content.iter_chunked(_CHUNK):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line:
                yield line
    if rest:
        yield rest
