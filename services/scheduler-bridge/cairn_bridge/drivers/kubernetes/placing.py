"""Making a group's objects, and removing them again.

The order makes every crash harmless: first the PodGroup, which owns Secrets and Service; then
those; then the pods; last, for placements of several pods, a mark on the PodGroup that all are
there. Whoever repeats a placement finds what is there and makes the rest. Without the mark
nothing of it counts as accepted, and KAI starts nothing either, since pods are missing.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import Any, Final

import structlog

from cairn_bridge.cluster import AttemptKey, NotNowError, PlacementError
from cairn_bridge.drivers.kubernetes.api import Api, ApiError, Document, Kind, kind_of
from cairn_bridge.drivers.kubernetes.attempts import Gang
from cairn_bridge.drivers.kubernetes.core import manifests, names
from cairn_bridge.drivers.kubernetes.core.gang import Member, minimum, shrunk
from cairn_bridge.drivers.kubernetes.core.observe import Sight, look
from cairn_bridge.drivers.kubernetes.core.quota import exceeds_quota, never_fits
from cairn_bridge.drivers.kubernetes.core.site import Site
from cairn_bridge.drivers.kubernetes.passes import Passes
from cairn_common.events import GroupPlacement
from cairn_common.telemetry import attempt_traceparent

log = structlog.get_logger(__name__)

_LARGE: Final = 100
"""Pods of a placement that is made alone."""
_REPLACE_TRIES: Final = 20
_REPLACE_SECONDS: Final = 0.25


class Placer:
    """Makes and removes the objects of groups."""

    def __init__(self, api: Api, site: Site, passes: Passes | None = None) -> None:
        self._api = api
        self._site = site
        self._passes = passes
        self._large = asyncio.Lock()
        self.pods = Kind("v1", "pods", site.namespace)
        self.pod_groups = Kind(manifests.POD_GROUPS, "podgroups", site.namespace)

    async def place(
        self, gang: Gang, placement: GroupPlacement, traceparent: str | None
    ) -> list[Sight]:
        """Makes whatever of a placement is not there; the caller holds the gang's lock.

        Raises:
            PlacementError: the cluster can never run it; nothing of it is left.
            NotNowError: a quota has no room for it at present; nothing of it is left.
        """
        if len(placement.tasks) < _LARGE:
            return await self._place(gang, placement, traceparent)
        # One alone keeps all requests busy; the documents of many would only take memory.
        async with self._large:
            return await self._place(gang, placement, traceparent)

    async def _place(
        self, gang: Gang, placement: GroupPlacement, traceparent: str | None
    ) -> list[Sight]:
        traces: dict[int, str] = {}
        if traceparent is not None:
            traces = {
                task.index: attempt_traceparent(traceparent, task.uuid, task.attempt)
                for task in placement.tasks
            }
        wanted, pod_group = await self._pod_group(gang, placement, traces)
        gang.pod_group = pod_group["metadata"]["uid"]
        await self._set_minimum(gang, pod_group, wanted)
        await _all(self._owned(document, pod_group) for document in wanted.owned)
        made: list[str] = []
        try:
            sights = await _all(self._pod(pod, made) for pod in wanted.pods.values())
        except Exception as error:
            await self._undo(made)
            raise _refusal(error, len(wanted.pods)) from error
        if len(wanted.pods) > 1:
            mark = {"metadata": {"annotations": {f"{names.PLACED}{wanted.digest}": "true"}}}
            if await self._api.patch(self.pod_groups, pod_group["metadata"]["name"], mark) is None:
                raise RuntimeError("the PodGroup vanished while its pods were made")
            gang.placed.add(wanted.digest)
        return sights

    async def _pod_group(
        self, gang: Gang, placement: GroupPlacement, traces: dict[int, str]
    ) -> tuple[manifests.Manifests, Document]:
        passes = None if self._passes is None else self._passes.issue(placement)
        if gang.pod_group is None:
            wanted = manifests.build(self._site, placement, traces, passes=passes)
            made = await self._create_or_refuse(wanted.pod_group)
            if made is not None:
                return wanted, made
        name = names.group_name(placement.group_uuid)
        for _ in range(_REPLACE_TRIES):
            present = await self._api.get(self.pod_groups, name)
            if present is None:  # it was removed a moment ago
                wanted = manifests.build(self._site, placement, traces, passes=passes)
                present = await self._create_or_refuse(wanted.pod_group)
                if present is not None:
                    return wanted, present
            elif "deletionTimestamp" not in present["metadata"]:
                return manifests.build(self._site, placement, traces, present, passes), present
            await asyncio.sleep(_REPLACE_SECONDS)
        raise RuntimeError(f"PodGroup {name} is being deleted and does not vanish")

    async def _create_or_refuse(self, document: Document) -> Document | None:
        try:
            return await self._api.create(document)
        except ApiError as error:
            raise _refusal(error, 1) from error

    async def _set_minimum(
        self, gang: Gang, pod_group: Document, wanted: manifests.Manifests
    ) -> None:
        """Pods that join a group which was there before change what its gang is."""
        spec = pod_group["spec"]
        leaves = [each for each in spec.get("subGroups") or () if "minMember" in each]
        gang.minima = {each["name"]: each["minMember"] for each in leaves} or {
            None: spec.get("minMember", 1)
        }
        joining = [
            Member(pod["metadata"]["labels"].get(names.KAI_SUBGROUP), bound=False)
            for key, pod in wanted.pods.items()
            if not any(each.key == key for each in gang.attempts.values())
        ]
        if joining:
            await self.set_minimum(gang, minimum([*gang.members(), *joining]), pod_group)

    async def set_minimum(
        self, gang: Gang, minima: dict[str | None, int], pod_group: Document | None = None
    ) -> None:
        """Tells the scheduler how many pods of each sub-group must run."""
        if minima == gang.minima or not minima:
            return
        name = names.group_name(gang.uuid)
        if None not in minima:
            pod_group = pod_group or await self._api.get(self.pod_groups, name)
            if pod_group is None:
                return
            recorded = pod_group["metadata"]["annotations"].get(names.SUBGROUPS, "[]")
            spec: dict[str, Any] = {"subGroups": shrunk(json.loads(recorded), minima)}
        else:
            spec = {"minMember": minima[None]}
        if await self._api.patch(self.pod_groups, name, {"spec": spec}) is not None:
            gang.minima = minima

    async def _owned(self, document: Document, owner: Document) -> None:
        """Makes an object that belongs to the PodGroup, in place of one of a former PodGroup."""
        wanted = manifests.owned_by(document, owner)
        kind, name = kind_of(document), document["metadata"]["name"]
        for _ in range(_REPLACE_TRIES):
            try:
                if await self._api.create(wanted) is not None:
                    return
            except ApiError as error:
                raise _refusal(error, 1) from error
            present = await self._api.get(kind, name)
            if present is not None:
                if manifests.belongs_to(present, owner):
                    return
                await self._api.delete(kind, name, uid=present["metadata"]["uid"])
            await asyncio.sleep(_REPLACE_SECONDS)
        raise RuntimeError(f"{kind.plural} {name} of a former group does not vanish")

    async def _undo(self, made: list[str]) -> None:
        """Leaves no part of a gang; what cannot be removed now is swept later."""
        try:
            await self.remove_pods(made)
        except Exception as error:
            log.warning("kubernetes.left_behind", pods=len(made), error=str(error))

    async def _pod(self, pod: Document, made: list[str]) -> Sight:
        name = pod["metadata"]["name"]
        document = {**pod, "metadata": {**pod["metadata"], "namespace": self._site.namespace}}
        present = await self._api.create(document)
        if present is None:
            present = await self._api.get(self.pods, name)
        else:
            made.append(name)
        sight = None if present is None else look(present)
        if sight is None:
            raise RuntimeError(f"pod {name} vanished, or is somebody else's")
        return sight

    # --- removing ---

    async def remove_pods(self, pods: Iterable[str]) -> None:
        """Deletes pods for good, whatever still holds them."""
        await _all(self._remove_pod(name) for name in pods)

    async def _remove_pod(self, name: str) -> None:
        free = {"metadata": {"finalizers": None}}
        if await self._api.patch(self.pods, name, free) is not None:
            await self._api.delete(self.pods, name, grace=0)

    async def remove_group(self, gang: Gang) -> None:
        """Deletes a group's PodGroup, and with it all that it owns."""
        await self._api.delete(self.pod_groups, names.group_name(gang.uuid))
        gang.pod_group = None
        gang.placed.clear()
        gang.minima = {}

    async def open_barrier(self, pod: str) -> None:
        """Lets a pod start that waits for the others of its group."""
        word = {"metadata": {"annotations": {names.BARRIER: names.OPEN}}}
        await self._api.patch(self.pods, pod, word)

    async def order_end(
        self, key: AttemptKey, pod: str, verdict: str, grace: int
    ) -> Document | None:
        """Has a pod end, and remember why; None if it is gone."""
        mark = {"metadata": {"annotations": {names.VERDICT: verdict}}}
        marked = await self._api.patch(self.pods, pod, mark)
        if marked is not None and "deletionTimestamp" not in marked["metadata"]:
            await self._api.delete(self.pods, pod, grace=grace)
        log.info("kubernetes.ending", task=key, verdict=verdict)
        return marked


async def _all(work: Iterable[Any]) -> list[Any]:
    """All results; when one fails, the others are awaited, so that nothing is made afterwards."""
    results = await asyncio.gather(*work, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return list(results)


def _refusal(error: Exception, pods: int) -> Exception:
    """What the API server's refusal means for a placement."""
    if not isinstance(error, ApiError):
        return error
    if error.status == 403 and exceeds_quota(error.message):
        if never_fits(error.message, pods):
            return PlacementError(f"the namespace's quota can never hold it: {error.message}")
        return NotNowError(error.message)
    if error.status in {400, 403, 413, 422}:
        return PlacementError(error.message)
    return error
