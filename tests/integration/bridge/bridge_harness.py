"""A bridge with a cluster that only remembers, and a test that plays the engine."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from nats.aio.msg import Msg

from cairn_bridge.cluster import (
    AttemptKey,
    ByteStream,
    ExecStream,
    Fact,
    NotNowError,
    Outcome,
    Phase,
    Reporter,
    keys_of,
)
from cairn_bridge.service import BridgeService
from cairn_bridge.settings import BridgeSettings
from cairn_common.events import (
    AttemptRef,
    FinishReason,
    GroupPlacement,
    NodeInfo,
    TaskFinished,
    TaskPlacement,
    TaskReady,
    TaskSettled,
    TaskStop,
    decode,
    encode,
)
from cairn_common.events.subjects import PLACEMENTS
from cairn_common.messaging import Bus, Publisher, connect_bus, ensure_streams
from cairn_common.requests import ATTEMPTS_SUBJECT, AttemptsReply, AttemptsRequest, KnownAttempt
from cairn_common.spec.features import Feature
from servers import Servers


class RecordingDriver:
    """Does what it is told at once, and remembers each call."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.features = frozenset({Feature.GPU})
        self.reporter: Reporter
        self.attempts: set[AttemptKey] = set()
        self.calls: list[tuple[str, int]] = []
        self.resent: list[tuple[AttemptKey, int]] = []
        self.may_settle = asyncio.Event()
        self.may_settle.set()
        self.may_place = asyncio.Event()
        self.slow_for: set[str] = set()
        self.broken_for: set[str] = set()
        self.no_room_for: set[str] = set()

    def count(self, name: str) -> int:
        """How often a method was called."""
        return sum(1 for called, _ in self.calls if called == name)

    def keys(self, name: str) -> int:
        """For how many attempts, all calls together."""
        return sum(keys for called, keys in self.calls if called == name)

    async def start(self, reporter: Reporter) -> None:
        self.reporter = reporter

    async def close(self) -> None:
        pass

    async def place(self, placement: GroupPlacement, traceparent: str | None) -> None:
        if placement.workflow in self.broken_for:
            raise RuntimeError("the driver stumbled")
        if placement.workflow in self.no_room_for:
            raise NotNowError("exceeded quota: q")
        if placement.workflow in self.slow_for:
            await self.may_place.wait()
        keys = tuple(keys_of(placement))
        self.calls.append(("place", len(keys)))
        self.attempts.update(keys)
        await self.reporter.fact(Fact(Phase.ACCEPTED, keys, datetime.now(UTC)))

    async def stop(self, keys: Iterable[AttemptKey], cause: str, grace_seconds: float) -> None:
        keys = list(keys)
        self.calls.append(("stop", len(keys)))
        if self.broken_for & {key.workflow for key in keys}:
            raise RuntimeError("the driver stumbled")
        outcome = Outcome(FinishReason.STOPPED, message=cause)
        await asyncio.gather(
            *(
                self.reporter.fact(Fact(Phase.FINISHED, (key,), datetime.now(UTC), None, outcome))
                for key in keys
            )
        )

    async def settle(self, keys: Iterable[AttemptKey]) -> None:
        keys = list(keys)
        self.calls.append(("settle", len(keys)))
        await self.may_settle.wait()
        self.attempts.difference_update(keys)

    async def report_all(self) -> None:
        self.calls.append(("report_all", 0))

    def known(self) -> frozenset[AttemptKey]:
        return frozenset(self.attempts)

    async def resend_log(self, key: AttemptKey, from_seq: int) -> None:
        self.resent.append((key, from_seq))

    async def inventory(self) -> list[NodeInfo]:
        return []

    async def exec(self, key: AttemptKey, command: Sequence[str]) -> ExecStream:
        raise LookupError(key)

    async def port_forward(self, key: AttemptKey, port: int) -> ByteStream:
        raise LookupError(key)


class Engine:
    """What the engine says to one cluster, believes of it and hears."""

    def __init__(self, bus: Bus, publisher: Publisher, cluster: str) -> None:
        self.bus = bus
        self.cluster = cluster
        self._publisher = publisher
        self._numbers = itertools.count()
        self.heard: list[Any] = []
        self.believes: list[AttemptKey] = []
        self.before_answer: Callable[[], None] = lambda: None
        self._changed = asyncio.Condition()

    def workflow(self) -> str:
        """A new name."""
        return f"{self.cluster}-{next(self._numbers)}"

    def ready(self, workflow: str, tasks: int = 1) -> TaskReady:
        """An order to place a group."""
        return TaskReady(
            workflow=workflow,
            cluster=self.cluster,
            placements=[
                GroupPlacement(
                    workflow=workflow,
                    workflow_uuid="w",
                    group="g",
                    group_index=0,
                    group_uuid="g",
                    tasks=[
                        TaskPlacement(index=i, name=f"t{i}", uuid="u", image="x", command=["true"])
                        for i in range(tasks)
                    ],
                )
            ],
        )

    def stop(self, workflow: str, index: int = 0) -> TaskStop:
        """An order to stop one task."""
        refs = [AttemptRef(index=index, name=f"t{index}", attempt=0)]
        return TaskStop(
            workflow=workflow, cluster=self.cluster, attempts=refs, cause="c", grace_seconds=0
        )

    def settled(self, workflow: str, index: int = 0) -> TaskSettled:
        """Word that one task was settled."""
        refs = [AttemptRef(index=index, name=f"t{index}", attempt=0)]
        return TaskSettled(workflow=workflow, cluster=self.cluster, attempts=refs)

    async def say(self, *events: Any) -> None:
        """Returns once the bus has them all."""
        await self._publisher.publish([encode(event, source="/test") for event in events])

    async def until(self, condition: Callable[[], bool], seconds: float = 30.0) -> None:
        """Until what was heard makes it true."""
        async with asyncio.timeout(seconds), self._changed:
            await self._changed.wait_for(condition)

    def of(self, kind: type[Any], workflow: str) -> list[Any]:
        """The events of a kind about a workflow that were heard."""
        return [each for each in self.heard if isinstance(each, kind) and each.workflow == workflow]

    async def outcome(self, workflow: str, index: int = 0) -> Any:
        """How an attempt ended."""

        def found() -> list[Any]:
            events = self.of(TaskFinished, workflow)
            return [each for event in events for each in event.outcomes if each.index == index]

        await self.until(lambda: bool(found()))
        return found()[0]

    async def nothing_left(self) -> None:
        """Until the bridge has acknowledged every order."""
        async with asyncio.timeout(20):
            while True:
                info = await self.bus.jetstream.consumer_info(
                    PLACEMENTS.name, f"bridge-{self.cluster}"
                )
                if not info.num_ack_pending and not info.num_pending:
                    return
                await asyncio.sleep(0.05)

    async def listen(self) -> None:
        """Hear facts."""
        for kind in ("accepted", "held", "scheduled", "started", "finished"):
            await self.bus.client.subscribe(f"task.{kind}.>", cb=self._hear)

    async def answer(self) -> None:
        """Answer what a bridge asks."""
        await self.bus.client.subscribe(ATTEMPTS_SUBJECT, cb=self._answer)

    async def _hear(self, message: Msg) -> None:
        event: Any = decode(message.subject, message.headers or {}, message.data)
        if event.cluster == self.cluster:
            async with self._changed:
                self.heard.append(event)
                self._changed.notify_all()

    async def _answer(self, message: Msg) -> None:
        request = AttemptsRequest.model_validate_json(message.data)
        if request.cluster != self.cluster:
            return
        self.before_answer()
        after = (request.after_workflow, request.after_index)
        page = sorted(key for key in self.believes if (key.workflow, key.index) > after)[:2]
        attempts = [
            KnownAttempt(
                workflow=key.workflow, index=key.index, attempt=0, name=key.name, status="RUNNING"
            )
            for key in page
        ]
        await message.respond(AttemptsReply(attempts=attempts).model_dump_json().encode())


@contextlib.asynccontextmanager
async def engine_of_a_cluster(servers: Servers) -> AsyncIterator[Engine]:
    """An engine that hears, and does not answer yet, with a cluster's name of its own."""
    bus = await connect_bus(servers.nats_url, "test")
    publisher = Publisher(bus)
    await ensure_streams(bus.jetstream)
    await publisher.start()
    engine = Engine(bus, publisher, f"c{uuid.uuid4().hex[:8]}")
    await engine.listen()
    try:
        yield engine
    finally:
        await publisher.close()
        await bus.broker.stop()


@contextlib.asynccontextmanager
async def bridge(
    servers: Servers, driver: RecordingDriver, *, unsettled_seconds: float = 60.0, **changes: Any
) -> AsyncIterator[asyncio.Task[None]]:
    """A bridge at work."""
    settings = BridgeSettings(
        nats_url=servers.nats_url,
        cluster=driver.name,
        unsettled_seconds=unsettled_seconds,
        **changes,
    )
    service = BridgeService(settings, lambda _: driver)
    work = asyncio.create_task(service.run())
    ready = asyncio.create_task(service.ready.wait())
    await asyncio.wait([work, ready], timeout=30, return_when=asyncio.FIRST_COMPLETED)
    assert ready.done()
    try:
        yield work
        assert not work.done()
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
