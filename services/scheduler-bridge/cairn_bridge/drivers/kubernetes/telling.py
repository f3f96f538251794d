"""Says to the reporter what is known of attempts: in order, and again when asked.

One task per attempt tells one phase after the other, each when the last one is on the bus. The
end comes last: first the whole log, then how it ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import aiohttp
import structlog

from cairn_bridge.cluster import AttemptKey, Fact, Outcome, Phase, Reporter
from cairn_bridge.drivers.kubernetes.api import Api, ApiError, Kind
from cairn_bridge.drivers.kubernetes.attempts import ORDER, Attempt, Gang
from cairn_bridge.drivers.kubernetes.core import names
from cairn_bridge.drivers.kubernetes.core.observe import moment
from cairn_bridge.drivers.kubernetes.core.outcome import with_event
from cairn_bridge.drivers.kubernetes.logs import Gates, LogFollower
from cairn_bridge.drivers.kubernetes.masks import Masks
from cairn_common.events import FinishReason, LogLine

log = structlog.get_logger(__name__)

_LOGS_FOLLOWED, _LOGS_READ = 512, 64
_AT_ONCE: Final = 256
_EVENT_PAUSES: Final = (0.0, 0.5, 1.5)
"""How long the event that explains a deletion may lag behind it."""
_EVENT_SLACK: Final = timedelta(seconds=30)
_LOST_LINES_AT_ONCE: Final = 500
_WORDS_SECONDS: Final = 5.0
"""Between two tellings of what a group waits for: KAI counts aloud while it places a large one."""


class Teller:
    """Tells facts and logs of attempts."""

    def __init__(self, api: Api, pods: Kind, reporter: Reporter, *, helpers: bool) -> None:
        self._api = api
        self._pods = pods
        self._reporter = reporter
        self._helpers = helpers
        self._masks = Masks(api, pods.namespace)
        self._gates = Gates(_LOGS_FOLLOWED, _LOGS_READ)
        self._going: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Tells no more."""
        self._gates.close()
        going = list(self._going)
        for task in going:
            task.cancel()
        await asyncio.gather(*going, return_exceptions=True)

    # --- one attempt ---

    def advance(self, attempt: Attempt) -> None:
        """Tells what is new about an attempt, if its acceptance was told."""
        if attempt.told is None or attempt.told is attempt.phase or attempt.teller is not None:
            return
        attempt.teller = self.spawn(self._advance(attempt))

    async def _advance(self, attempt: Attempt) -> None:
        try:
            while attempt.told is not attempt.phase:
                assert attempt.told is not None
                phase = _next(attempt)
                if phase is Phase.FINISHED:
                    await self._end(attempt)
                else:
                    if phase is Phase.STARTED:
                        self.follow_log(attempt)
                    await self._phase(phase, [attempt])
                attempt.told = phase
        finally:
            attempt.teller = None

    def follow_log(self, attempt: Attempt) -> None:
        """Begins to bring a running attempt's log."""
        if attempt.log is None:
            attempt.log = self._follower(attempt)
            if attempt.sight.command_over:
                attempt.log.command_over()
            attempt.log.start()

    async def _phase(self, phase: Phase, attempts: Sequence[Attempt]) -> None:
        first = attempts[0]
        at = first.sight.at
        if phase is not first.phase:  # it has gone on meanwhile; the pod no longer says when
            at = first.sight.started_at or at
        keys = tuple(each.key for each in attempts)
        node = None if phase is Phase.ACCEPTED else first.sight.node
        await self._reporter.fact(Fact(phase, keys, at, node))

    async def _end(self, attempt: Attempt) -> None:
        ending = attempt.ending
        assert ending is not None
        outcome = ending.outcome
        if ending.doubtful:
            outcome = await self._explained(attempt, outcome)
        lines = await self._finish_log(attempt)
        attempt.outcome = Outcome(
            outcome.reason,
            exit_code=outcome.exit_code,
            message=await self._masked(attempt, outcome.message),
            started_at=outcome.started_at,
            log_lines=lines,
        )
        await self._reporter.fact(
            Fact(Phase.FINISHED, (attempt.key,), ending.at, attempt.sight.node, attempt.outcome)
        )

    async def _masked(self, attempt: Attempt, words: str | None) -> str | None:
        """The last words of a container may be the end of its log."""
        if not words:
            return words
        try:
            mask = await self._masks.of(attempt.sight.secrets)
        except (ApiError, aiohttp.ClientError, TimeoutError, OSError) as error:
            log.warning("kubernetes.words_withheld", task=attempt.key, error=repr(error))
            return "its last words are withheld: which secrets to mask in them cannot be read"
        return mask(words)

    async def _finish_log(self, attempt: Attempt) -> int:
        if attempt.log is None and (attempt.sight.node is None or attempt.pod_gone):
            await self._reporter.log(attempt.key, [], final=True)
            return 0
        if attempt.log is None:
            attempt.log = self._follower(attempt)
        try:
            return await attempt.log.finish()
        except Exception:  # the end must be told all the same
            log.exception("kubernetes.log_lost", task=attempt.key)
            await self._reporter.log(attempt.key, [], final=True)
            return 0
        finally:
            attempt.log = None

    def _follower(self, attempt: Attempt) -> LogFollower:
        return LogFollower(
            self._api,
            self._pods,
            attempt.sight.pod,
            attempt.key,
            helpers=self._helpers,
            mask=lambda: self._masks.of(attempt.sight.secrets),
            reporter=self._reporter,
            gates=self._gates,
        )

    async def _explained(self, attempt: Attempt, outcome: Outcome) -> Outcome:
        """Who deleted the pod: KAI says so in an event about the PodGroup, and nowhere else."""
        gang = names.group_name(attempt.gang.uuid)
        selector = f"involvedObject.kind=PodGroup,involvedObject.name={gang},reason=Evict"
        events = Kind("v1", "events", self._pods.namespace)
        since = attempt.ending.at - _EVENT_SLACK if attempt.ending else datetime.now(UTC)
        for pause in _EVENT_PAUSES:
            await asyncio.sleep(pause)
            try:
                page = await self._api.page(events, fieldSelector=selector)
            except ApiError as error:
                log.warning("kubernetes.events", error=str(error))
                return outcome
            fresh = [each for each in page["items"] if _event_time(each) >= since]
            if fresh:
                return with_event(outcome, max(fresh, key=_event_time))
        return outcome

    # --- several ---

    async def accepted(self, attempts: Sequence[Attempt]) -> None:
        """A placement is whole: what is known of its attempts may be told."""
        fresh = [each for each in attempts if each.told is None]
        if fresh:
            keys = tuple(each.key for each in fresh)
            at = min(each.sight.at for each in fresh) if len(fresh) == 1 else datetime.now(UTC)
            await self._reporter.fact(Fact(Phase.ACCEPTED, keys, at))
        for attempt in fresh:
            attempt.told = Phase.ACCEPTED
            self.advance(attempt)

    async def phases(self, attempts: Iterable[Attempt]) -> None:
        """How far each is, again; an end that is about to be told is not told twice."""
        together: dict[tuple[str, Phase, str | None], list[Attempt]] = {}
        ended: list[Attempt] = []
        for attempt in attempts:
            if attempt.told is None:
                continue
            if attempt.told is Phase.FINISHED:
                ended.append(attempt)
            else:
                place = attempt.key.workflow, attempt.told, attempt.sight.node
                together.setdefault(place, []).append(attempt)
        for (_, phase, _), members in together.items():
            await self._phase(phase, members)
        for start in range(0, len(ended), _AT_ONCE):
            await asyncio.gather(*map(self._end_again, ended[start : start + _AT_ONCE]))

    async def _end_again(self, attempt: Attempt) -> None:
        assert attempt.ending is not None
        await self._reporter.fact(
            Fact(
                Phase.FINISHED,
                (attempt.key,),
                attempt.ending.at,
                attempt.sight.node,
                attempt.outcome,
            )
        )

    def mind_words(self, gang: Gang) -> None:
        """Say why the scheduler has not placed a group, whenever that changes, and not too often.

        A group's pods all say why they wait, most of them the same and one after the other.
        """
        if gang.words is None:
            loop = asyncio.get_running_loop()
            wait = max(0.0, gang.words_from - loop.time())
            gang.words = loop.call_later(wait, self._say_words, gang)

    async def _waits_for(self, gang: Gang) -> None:
        waiting = [
            each
            for each in gang.attempts.values()
            if each.phase is Phase.ACCEPTED and each.told is Phase.ACCEPTED
        ]
        words = gang.waits_for or next(
            (each.sight.waits_for for each in waiting if each.sight.waits_for), None
        )
        if not waiting or words is None or words == gang.told_waits_for:
            return
        gang.words_from = asyncio.get_running_loop().time() + _WORDS_SECONDS
        gang.told_waits_for = words
        keys = tuple(each.key for each in waiting)
        await self._reporter.fact(
            Fact(Phase.ACCEPTED, keys, datetime.now(UTC), message=words[:2000])
        )

    def _say_words(self, gang: Gang) -> None:
        gang.words = None
        self.spawn(self._waits_for(gang))

    async def starting(self, attempt: Attempt) -> None:
        """What keeps a task from starting that has a node."""
        if attempt.told is Phase.SCHEDULED and attempt.phase is Phase.SCHEDULED:
            words, node = attempt.told_words, attempt.sight.node
            await self._reporter.fact(
                Fact(Phase.SCHEDULED, (attempt.key,), datetime.now(UTC), node, message=words)
            )

    # --- logs again ---

    async def log_again(self, attempt: Attempt, from_seq: int) -> None:
        """The log of an attempt from a line on: as it goes on, or whole if it has ended."""
        if attempt.log is not None:
            attempt.log.rewind(from_seq)
            return
        if attempt.told is not Phase.FINISHED or attempt.outcome is None:
            return
        wanted = attempt.outcome.log_lines
        lines = 0
        if wanted:
            follower = self._follower(attempt)
            follower.rewind(from_seq)
            lines = await follower.finish()
        else:
            await self._reporter.log(attempt.key, [], final=True)
        if lines < wanted:
            await self._lost_lines(attempt.key, max(lines, from_seq), wanted)

    async def _lost_lines(self, key: AttemptKey, from_seq: int, until: int) -> None:
        """Stand-ins for lines that the node no longer has, so that nobody waits for them."""
        now = datetime.now(UTC)
        text = "(this line is lost: the node no longer has the log)"
        for start in range(from_seq, until, _LOST_LINES_AT_ONCE):
            end = min(start + _LOST_LINES_AT_ONCE, until)
            lines = [
                LogLine(seq=seq, at=now, stream="cairn", text=text) for seq in range(start, end)
            ]
            await self._reporter.log(key, lines, final=end == until)

    # --- without a pod ---

    async def never_ran(self, key: AttemptKey, reason: FinishReason, message: str) -> None:
        """The end of an attempt that has no pod."""
        await self._reporter.log(key, [], final=True)
        outcome = Outcome(reason, message=message)
        await self._reporter.fact(Fact(Phase.FINISHED, (key,), datetime.now(UTC), outcome=outcome))

    # --- tasks ---

    def spawn(self, work: Any) -> asyncio.Task[None]:
        """A task that ends with the teller at the latest, and whose failure is logged."""
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._going.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._going.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("kubernetes.failed", exc_info=error)


def _next(attempt: Attempt) -> Phase:
    """The phase to tell next; SCHEDULED is told also when a node and a start come together."""
    assert attempt.told is not None
    if attempt.phase is Phase.FINISHED:
        return Phase.FINISHED
    return tuple(Phase)[ORDER[attempt.told] + 1]


def _event_time(event: Mapping[str, Any]) -> datetime:
    series = event.get("series") or {}
    text = (
        series.get("lastObservedTime")
        or event.get("lastTimestamp")
        or event.get("eventTime")
        or event["metadata"]["creationTimestamp"]
    )
    return moment(text) or datetime.now(UTC)
