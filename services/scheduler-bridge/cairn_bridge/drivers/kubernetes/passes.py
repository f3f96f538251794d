"""Credentials for NATS: one for each attempt, renewed while it lives.

They are short-lived, so that one that leaks is soon worth nothing. The kubelet brings a renewed
Secret into the pods that mount it, and NATS's clients read the file again when the server ends
their connection because the old one is over.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Final

import structlog

from cairn_bridge.drivers.kubernetes.api import Api, ApiError, Document, Kind
from cairn_bridge.drivers.kubernetes.attempts import Register
from cairn_bridge.drivers.kubernetes.core import manifests, names
from cairn_bridge.drivers.kubernetes.core.site import Site
from cairn_common.events import GroupPlacement
from cairn_common.security import PassIssuer

log = structlog.get_logger(__name__)

_TIMES_IN_A_LIFE: Final = 3
_PAGE: Final = "20"


class Passes:
    """Makes and renews passes.

    Args:
        api: the API server.
        site: the cluster.
        issuer: signs them.
        register: tells which attempts live.
    """

    def __init__(self, api: Api, site: Site, issuer: PassIssuer, register: Register) -> None:
        self._api = api
        self._site = site
        self._issuer = issuer
        self._register = register
        self._secrets = Kind("v1", "secrets", site.namespace)

    def issue(self, placement: GroupPlacement) -> Mapping[str, str]:
        """A pass for each attempt of a placement, by its name."""
        now = time.time()
        passes = (names.pass_name(task.uuid, task.attempt) for task in placement.tasks)
        return {name: self._issuer.issue(name, now) for name in passes}

    async def renew_for_ever(self) -> None:
        """Renew all, several times in the life of a pass, and first of all now: who knows how
        long no bridge was here."""
        while True:
            try:
                await self.renew()
            except Exception as error:
                log.warning("kubernetes.passes_not_renewed", error=repr(error))
            await asyncio.sleep(self._issuer.seconds / _TIMES_IN_A_LIFE)

    async def renew(self) -> None:
        """New passes for all attempts that live."""
        query = {"labelSelector": names.passes_selector(self._site.cluster), "limit": _PAGE}
        while True:
            page = await self._api.page(self._secrets, **query)
            for secret in page["items"]:
                await self._renew(secret)
            if not (rest := page["metadata"].get("continue")):
                return
            query["continue"] = rest

    async def _renew(self, secret: Document) -> None:
        live = [name for name in secret.get("data") or () if self._lives(name)]
        if not live:
            return
        now = time.time()
        fresh = manifests.encoded({name: self._issuer.issue(name, now) for name in live})
        name = secret["metadata"]["name"]
        try:
            await self._api.patch(self._secrets, name, {"data": fresh})
        except ApiError as error:
            log.warning("kubernetes.pass_not_renewed", secret=name, error=str(error))

    def _lives(self, name: str) -> bool:
        attempt = self._register.of_pod(names.pod_of_pass(name))
        return attempt is not None and attempt.live
