"""`ClusterDriver` for Kubernetes: takes placements, watches pods, tells their fate.

The cluster's objects are the whole record. What a pod says is read by `core.observe`; this module
decides only when to look, what to order, and in which order things are told. A finalizer keeps
every pod until its outcome is settled, so a pod that is deleted, evicted or preempted while no
bridge runs is found by the next one, with its exit code, just as Kubernetes Jobs do it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import structlog

from cairn_bridge.cluster import (
    AttemptKey,
    ByteStream,
    ClusterError,
    ExecStream,
    Phase,
    Reporter,
)
from cairn_bridge.drivers.kubernetes.api import Api, ApiError, Document
from cairn_bridge.drivers.kubernetes.attempts import Attempt, Gang, Register
from cairn_bridge.drivers.kubernetes.core import names
from cairn_bridge.drivers.kubernetes.core.gang import minimum
from cairn_bridge.drivers.kubernetes.core.inventory import Use, node_info
from cairn_bridge.drivers.kubernetes.core.observe import (
    Sight,
    Trouble,
    Verdict,
    group_waits_for,
    look,
)
from cairn_bridge.drivers.kubernetes.core.outcome import ending_of, gone_ending
from cairn_bridge.drivers.kubernetes.core.site import Site
from cairn_bridge.drivers.kubernetes.nodes import Nodes
from cairn_bridge.drivers.kubernetes.passes import Passes
from cairn_bridge.drivers.kubernetes.placing import Placer
from cairn_bridge.drivers.kubernetes.preparing import prepare
from cairn_bridge.drivers.kubernetes.streams import PodExec, PodPort
from cairn_bridge.drivers.kubernetes.telling import Teller
from cairn_bridge.drivers.kubernetes.watch import Follower
from cairn_common.events import FinishReason, GroupPlacement, NodeInfo
from cairn_common.security import PassIssuer
from cairn_common.spec.features import Feature

FEATURES: Final = frozenset(
    {
        Feature.GPU,
        Feature.HOST_NETWORK,
        Feature.NODES_EXCLUDED,
        Feature.PLATFORM,
        Feature.PRIVILEGED,
        Feature.TOPOLOGY,
        Feature.VOLUME_MOUNTS,
    }
)
"""What pods can do, where their platform lets them."""

_BEFORE: Final = "the attempt was settled before"


@dataclass(frozen=True, slots=True)
class Patience:
    """How long what may pass by itself is waited for, in seconds.

    Args:
        image: for an image that cannot be pulled.
        start: for a container that cannot be made.
        node: for a node that is not heard of.
        orphan: for half-made groups, which nobody may ever complete.
    """

    image: float = 300.0
    start: float = 60.0
    node: float = 300.0
    orphan: float = 600.0


class KubernetesDriver:
    """One cluster, or one namespace of it.

    Args:
        connect: opens the connection to the API server.
        site: what is the same for every group.
        patience: see `Patience`.
        issuer: gives tasks credentials for NATS; without one they get none.
    """

    def __init__(
        self,
        connect: Callable[[], Coroutine[Any, Any, Api]],
        site: Site,
        *,
        patience: Patience | None = None,
        issuer: PassIssuer | None = None,
    ) -> None:
        self.name = site.cluster
        self.features = FEATURES
        self._connect = connect
        self._site = site
        self._patience = patience or Patience()
        self._issuer = issuer
        self._register = Register()
        self._followers: list[asyncio.Task[None]] = []
        self._api: Api
        self._placer: Placer
        self._teller: Teller
        self._nodes: Nodes
        self.group_follower: Follower
        self.pod_follower: Follower
        self._say = structlog.get_logger(__name__).bind(cluster=site.cluster)

    # --- life ---

    async def start(self, reporter: Reporter) -> None:
        """See `ClusterDriver`. Raises ClusterError or ApiError when the cluster refuses."""
        self._api = await self._connect()
        site = self._site
        passes = None
        if self._issuer is not None:
            passes = Passes(self._api, site, self._issuer, self._register)
        self._placer = Placer(self._api, site, passes)
        self._teller = Teller(
            self._api, self._placer.pods, reporter, helpers=site.runtime_image is not None
        )
        self._nodes = Nodes(self._api, self._patience.node, self._lose_node)
        await prepare(self._api, site)
        selector = names.selector(site.cluster)
        self.group_follower = Follower(
            self._api,
            self._placer.pod_groups,
            self._groups_listed,
            self._group_changed,
            labelSelector=selector,
        )
        self.pod_follower = Follower(
            self._api,
            self._placer.pods,
            self._pods_listed,
            self._pod_changed,
            labelSelector=selector,
        )
        # Groups first: they say which placements are whole.
        for follower in (self.group_follower, self._nodes.follower, self.pod_follower):
            task = asyncio.create_task(follower.run())
            self._followers.append(task)
            await _until(follower.listed, task)
        if passes is not None:
            self._teller.spawn(passes.renew_for_ever())
        for gang in list(self._register.gangs.values()):
            self._mind_litter(gang)

    async def close(self) -> None:
        """See `ClusterDriver`."""
        for task in self._followers:
            task.cancel()
        await asyncio.gather(*self._followers, return_exceptions=True)
        self._followers.clear()
        if not hasattr(self, "_teller"):
            return
        self._nodes.close()
        await self._teller.close()
        for attempt in self._register.all():
            attempt.stop_clocks()
            if attempt.log is not None:
                await attempt.log.close()
        for gang in self._register.gangs.values():
            if gang.sweep is not None:
                gang.sweep.cancel()
        await self._api.close()

    def _check(self) -> None:
        """A watch that has failed for good leaves the driver blind: begin anew."""
        for task in self._followers:
            if task.done() and not task.cancelled() and (error := task.exception()):
                raise ClusterError(f"{self.name} cannot be watched: {error!r}") from error

    # --- what the watches say ---

    def _groups_listed(self, items: list[Document]) -> None:
        present = {self._note_group(item).uuid for item in items}
        for gang in list(self._register.gangs.values()):
            if gang.uuid not in present and gang.pod_group is not None:
                self._group_gone(gang)

    def _group_changed(self, kind: str, item: Document) -> None:
        uuid = item["metadata"]["labels"][names.GROUP]
        if kind == "DELETED":
            gang = self._register.gangs.get(uuid)
            if gang is not None and gang.pod_group == item["metadata"]["uid"]:
                self._group_gone(gang)
            return
        gang = self._note_group(item)
        self._teller.spawn(self._teller.waits_for(gang))

    def _note_group(self, item: Document) -> Gang:
        metadata = item["metadata"]
        gang = self._register.gang(metadata["labels"][names.GROUP])
        if gang.pod_group != metadata["uid"]:
            gang.minima = _minima(item)
        gang.pod_group = metadata["uid"]
        gang.waits_for = group_waits_for(item)
        marks = [each for each in metadata["annotations"] if each.startswith(names.PLACED)]
        gang.placed.update(each.removeprefix(names.PLACED) for each in marks)
        if not gang.attempts:
            self._mind_litter(gang)
        return gang

    def _group_gone(self, gang: Gang) -> None:
        """Deleting the parent deletes all; no garbage collector does it, see `manifests`."""
        gang.pod_group = None
        gang.placed.clear()
        orphaned = [each for each in gang.attempts.values() if each.live]
        if not orphaned:
            return
        self._say.warning("kubernetes.group_deleted", group=gang.uuid, pods=len(orphaned))
        words = "its PodGroup was deleted, and not by Cairn"
        for attempt in orphaned:
            self._teller.spawn(self._end(attempt, FinishReason.BACKEND_ERROR, words))

    def _pods_listed(self, items: list[Document]) -> None:
        first = not self.pod_follower.listed.is_set()
        present: set[str] = set()
        for item in items:
            present.add(item["metadata"]["name"])
            attempt = self._note_pod(item)
            if first and attempt is not None and attempt.gang.whole(attempt.sight.placement):
                # An end is told again, since nobody knows whether it was; less than that is not.
                attempt.told = Phase.ACCEPTED if not attempt.live else attempt.phase
                if attempt.phase is Phase.STARTED:
                    self._teller.follow_log(attempt)
                self._teller.advance(attempt)
        for name in self._register.pods():
            attempt = self._register.of_pod(name)
            if name not in present and attempt is not None and not attempt.pod_gone:
                self._pod_gone(attempt, None)

    def _pod_changed(self, kind: str, item: Document) -> None:
        if kind == "DELETED":
            attempt = self._register.of_pod(item["metadata"]["name"])
            if attempt is not None and attempt.sight.uid == item["metadata"]["uid"]:
                self._pod_gone(attempt, item)
            return
        self._note_pod(item)

    def _note_pod(self, item: Document) -> Attempt | None:
        sight = look(item)
        if sight is None or self._register.was_settled(sight.key):
            return None
        attempt = self._register.note(sight)
        if attempt.log is not None and sight.command_over:
            attempt.log.command_over()
        if attempt.phase is Phase.FINISHED:
            if attempt.ending is None:
                attempt.ending = ending_of(item)
                self._ended(attempt)
        else:
            self._mind(attempt)
        if attempt.sight.waits_for and attempt.gang.waits_for is None:
            self._teller.spawn(self._teller.waits_for(attempt.gang))
        self._teller.advance(attempt)
        return attempt

    def _pod_gone(self, attempt: Attempt, last: Document | None) -> None:
        """A pod vanished before its attempt was settled: somebody took the finalizer away."""
        attempt.pod_gone = True
        if attempt.told is None and not attempt.gang.whole(attempt.sight.placement):
            self._register.drop(attempt)  # of a placement that failed: nobody knows of it
            self._mind_litter(attempt.gang)
            return
        if attempt.phase is not Phase.FINISHED:
            attempt.phase = Phase.FINISHED
            attempt.ending = gone_ending(last)
            self._ended(attempt)
        self._teller.advance(attempt)

    def _ended(self, attempt: Attempt) -> None:
        attempt.stop_clocks()
        gang = attempt.gang
        if not gang.adjusting and any(each.live for each in gang.attempts.values()):
            gang.adjusting = True
            self._teller.spawn(self._adjust(gang))

    async def _adjust(self, gang: Gang) -> None:
        """Lets a gang go on with those who are left, see `core.gang`."""
        try:
            async with gang.lock:
                gang.adjusting = False
                minima = minimum(gang.members())
                if gang.pod_group is not None and sum(minima.values()) < sum(gang.minima.values()):
                    await self._placer.set_minimum(gang, minima)
        finally:
            gang.adjusting = False

    # --- clocks ---

    def _mind(self, attempt: Attempt) -> None:
        """Keeps the clocks of an attempt that has not ended."""
        loop = asyncio.get_running_loop()
        trouble, sight = attempt.sight.trouble, attempt.sight
        if trouble is None:
            if attempt.patience is not None:
                attempt.patience.cancel()
                attempt.patience = None
        elif attempt.patience is None:
            patience = self._patience
            wait = patience.image if trouble.reason is FinishReason.IMAGE_PULL else patience.start
            attempt.patience = loop.call_later(
                0 if trouble.hopeless else wait, self._give_up, attempt
            )
        if attempt.phase is Phase.STARTED and attempt.start_clock is not None:
            attempt.start_clock.cancel()
            attempt.start_clock = None
        elif (
            attempt.phase is Phase.SCHEDULED
            and sight.start_timeout is not None
            and attempt.start_clock is None
        ):
            since = (datetime.now(UTC) - sight.at).total_seconds()
            attempt.start_clock = loop.call_later(
                max(0.0, sight.start_timeout - since), self._start_timed_out, attempt
            )

    def _give_up(self, attempt: Attempt) -> None:
        trouble: Trouble | None = attempt.sight.trouble
        if trouble is not None and attempt.live:
            self._teller.spawn(self._end(attempt, trouble.reason, trouble.message))

    def _start_timed_out(self, attempt: Attempt) -> None:
        if attempt.phase is Phase.SCHEDULED:
            words = f"the command did not start within {attempt.sight.start_timeout:g} s"
            if attempt.sight.trouble is not None:
                words += f": {attempt.sight.trouble.message}"
            self._teller.spawn(self._end(attempt, FinishReason.START_TIMEOUT, words))

    def _lose_node(self, node: str, words: str) -> None:
        for attempt in self._register.on_node(node):
            self._teller.spawn(self._end(attempt, FinishReason.NODE_LOST, words, ended=True))

    def _mind_litter(self, gang: Gang) -> None:
        """A group that is half-made for long is removed: its pods, and a PodGroup without pods."""
        if gang.sweep is None:
            loop = asyncio.get_running_loop()
            gang.sweep = loop.call_later(self._patience.orphan, self._sweep, gang)

    def _sweep(self, gang: Gang) -> None:
        gang.sweep = None
        self._teller.spawn(self._remove_litter(gang))

    async def _remove_litter(self, gang: Gang) -> None:
        async with gang.lock:
            half = [each for each in gang.attempts.values() if each.told is None]
            if half:
                self._say.warning("kubernetes.half_made", group=gang.uuid, pods=len(half))
                await self._placer.remove_pods(each.sight.pod for each in half)
                for attempt in half:
                    self._register.drop(attempt)
            await self._remove_if_empty(gang)

    # --- orders ---

    async def place(self, placement: GroupPlacement, traceparent: str | None) -> None:
        """See `ClusterDriver`."""
        self._check()
        placement = await self._without_barred(placement)
        if not placement.tasks:
            return
        gang = self._register.gang(placement.group_uuid)
        async with gang.lock:
            keys = [
                AttemptKey(placement.workflow, task.index, task.attempt, task.name)
                for task in placement.tasks
            ]
            known = [attempt for key in keys if (attempt := self._register.get(key))]
            if len(known) < len(keys) or any(
                not gang.whole(each.sight.placement) for each in known
            ):
                self._mind_litter(gang)
                try:
                    sights = await self._placer.place(gang, placement, traceparent)
                except Exception:
                    await self._forget_half(gang)
                    raise
                known = [self._noted(sight) for sight in sights]
        again = [each for each in known if each.told is not None]
        await self._teller.accepted(known)
        # Whoever places twice may not have heard what became of the first time.
        await self._teller.phases(again)

    async def _forget_half(self, gang: Gang) -> None:
        """Nothing of a placement that failed is left, or it will be swept."""
        for attempt in list(gang.attempts.values()):
            if attempt.told is None and not gang.whole(attempt.sight.placement):
                self._register.drop(attempt)
        try:
            await self._remove_if_empty(gang)
        except Exception as error:
            self._say.warning("kubernetes.left_behind", group=gang.uuid, error=str(error))

    def _noted(self, sight: Sight) -> Attempt:
        """What the watch may have seen already, and further than the answer to our request."""
        return self._register.get(sight.key) or self._register.note(sight)

    async def _without_barred(self, placement: GroupPlacement) -> GroupPlacement:
        """Tasks that were stopped or settled before are not run; the engine hears of it."""
        wanted = []
        for task in placement.tasks:
            key = AttemptKey(placement.workflow, task.index, task.attempt, task.name)
            if self._register.was_settled(key):
                await self._teller.never_ran(key, FinishReason.NODE_LOST, _BEFORE)
            elif (cause := self._register.barred(key)) is not None:
                await self._teller.never_ran(key, FinishReason.STOPPED, cause)
            else:
                wanted.append(task)
        if len(wanted) == len(placement.tasks):
            return placement
        return placement.model_copy(update={"tasks": wanted})

    async def stop(self, keys: Iterable[AttemptKey], cause: str, grace_seconds: float) -> None:
        """See `ClusterDriver`."""
        self._check()
        ended: list[Attempt] = []
        ends: list[Coroutine[Any, Any, None]] = []
        for key in keys:
            attempt = self._register.get(key)
            if attempt is None:
                self._register.bar(key, cause)
                self._teller.spawn(self._teller.never_ran(key, FinishReason.STOPPED, cause))
            elif attempt.live:
                grace = max(1, math.ceil(grace_seconds))
                ends.append(self._end(attempt, FinishReason.STOPPED, cause, grace))
            else:
                ended.append(attempt)
        await asyncio.gather(*ends)
        if ended:
            self._teller.spawn(self._teller.phases(ended))

    async def _end(
        self,
        attempt: Attempt,
        reason: FinishReason,
        words: str,
        grace: int | None = None,
        *,
        ended: bool = False,
    ) -> None:
        """Ends an attempt, and has its pod remember why; the first verdict stays."""
        verdict = attempt.sight.verdict
        if verdict is None or (ended and not verdict.ended):
            at = datetime.now(UTC).isoformat(timespec="seconds")
            verdict = (
                Verdict(reason, words, at, ended)
                if verdict is None
                else verdict._replace(ended=ended)
            )
        pod = attempt.sight.pod
        marked = await self._placer.order_end(attempt.key, pod, verdict.encode(), grace)
        if marked is None and attempt.live:
            self._pod_gone(attempt, None)
        if attempt.told is None:  # of a half-made group: nobody was told that it is here
            await self._teller.accepted([attempt])

    async def settle(self, keys: Iterable[AttemptKey]) -> None:
        """See `ClusterDriver`. Attempts that have not ended stay."""
        by_gang: dict[str, list[Attempt]] = {}
        for key in keys:
            attempt = self._register.get(key)
            if attempt is None:
                continue
            if attempt.live:
                self._say.warning("kubernetes.settled_too_early", task=key)
                continue
            by_gang.setdefault(attempt.gang.uuid, []).append(attempt)
        await asyncio.gather(*(self._settle(attempts) for attempts in by_gang.values()))

    async def _settle(self, attempts: Sequence[Attempt]) -> None:
        gang = attempts[0].gang
        for attempt in attempts:
            if attempt.teller is not None:  # its end is just being told
                await asyncio.wait([attempt.teller])
        async with gang.lock:
            await self._placer.remove_pods(each.sight.pod for each in attempts if not each.pod_gone)
            for attempt in attempts:
                self._register.settle(attempt)
            await self._remove_if_empty(gang)

    async def _remove_if_empty(self, gang: Gang) -> None:
        if gang.attempts:
            return
        if gang.sweep is not None:
            gang.sweep.cancel()
            gang.sweep = None
        if gang.pod_group is not None:
            await self._placer.remove_group(gang)
        self._register.gangs.pop(gang.uuid, None)

    # --- telling again ---

    async def report_all(self) -> None:
        """See `ClusterDriver`."""
        everything = [each for each in self._register.all() if each.told is not None]
        for attempt in everything:
            if attempt.log is not None:
                attempt.log.rewind(0)
        ended = [each for each in everything if each.told is Phase.FINISHED]
        for start in range(0, len(ended), 64):
            some = ended[start : start + 64]
            await asyncio.gather(*(self._teller.log_again(each, 0) for each in some))
        await self._teller.phases(everything)

    def known(self) -> frozenset[AttemptKey]:
        """See `ClusterDriver`."""
        return frozenset(each.key for each in self._register.all())

    async def resend_log(self, key: AttemptKey, from_seq: int) -> None:
        """See `ClusterDriver`."""
        attempt = self._register.get(key)
        if attempt is not None:
            await self._teller.log_again(attempt, from_seq)

    # --- looking ---

    async def inventory(self) -> list[NodeInfo]:
        """See `ClusterDriver`."""
        self._check()
        uses: dict[str, list[Use]] = {}
        for attempt in self._register.all():
            if attempt.live and attempt.sight.node is not None:
                uses.setdefault(attempt.sight.node, []).append(attempt.sight.use)
        return [
            node_info(node, uses.get(name, ()), self._site)
            for name, node in sorted(self._nodes.present.items())
        ]

    async def exec(self, key: AttemptKey, command: Sequence[str]) -> ExecStream:
        """See `ClusterDriver`."""
        pod = self._running(key)
        try:
            return await PodExec.start(self._api, self._placer.pods, pod, command)
        except ApiError as error:
            raise LookupError(f"task {key.name} of {key.workflow}: {error}") from error

    async def port_forward(self, key: AttemptKey, port: int) -> ByteStream:
        """See `ClusterDriver`."""
        pod = self._running(key)
        try:
            return await PodPort.connect(self._api, self._placer.pods, pod, port)
        except ApiError as error:
            raise LookupError(f"task {key.name} of {key.workflow}: {error}") from error

    def _running(self, key: AttemptKey) -> str:
        attempt = self._register.get(key)
        if attempt is None or attempt.phase is not Phase.STARTED:
            raise LookupError(f"task {key.name} of {key.workflow} is not running")
        return attempt.sight.pod


def _minima(pod_group: Document) -> dict[str | None, int]:
    spec = pod_group["spec"]
    leaves = [each for each in spec.get("subGroups") or () if "minMember" in each]
    minima: dict[str | None, int] = {each["name"]: each["minMember"] for each in leaves}
    return minima or {None: spec.get("minMember", 1)}


async def _until(event: asyncio.Event, task: asyncio.Task[None]) -> None:
    """Until an event; what its task fails with is raised."""
    waiting = asyncio.create_task(event.wait())
    try:
        await asyncio.wait({waiting, task}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
    finally:
        waiting.cancel()
