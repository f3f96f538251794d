"""`ClusterDriver` for the machine itself: takes placements, starts them in turn, tells their fate.

What a placement needs to survive is on the disk in `record` before it is accepted; what runs is
followed by `attempt` and told in its directory. So a bridge that starts reads the record, looks
into the directories, and knows: attempts whose shim lives are followed again, those that were
accepted and not launched stand in line again, and those whose shim has gone without an ending
were lost.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import structlog

from cairn_bridge.cluster import (
    AttemptKey,
    ByteStream,
    ExecStream,
    Identity,
    Phase,
    PlacementError,
    Reporter,
    keys_of,
)
from cairn_bridge.drivers.local import shims
from cairn_bridge.drivers.local.admission import Admission, Slots
from cairn_bridge.drivers.local.attempt import Attempt
from cairn_bridge.drivers.local.briefing import PATH, Local
from cairn_bridge.drivers.local.execution import LocalExec
from cairn_bridge.drivers.local.gang import Gang, Terms
from cairn_bridge.drivers.local.house import House
from cairn_bridge.drivers.local.launcher import Launcher
from cairn_bridge.drivers.local.ports import LocalPort
from cairn_bridge.drivers.local.record import Record, Remembered, Taken
from cairn_bridge.drivers.local.roll import Roll, need
from cairn_bridge.drivers.local.starting import broken, start_shims
from cairn_bridge.drivers.local.teller import Teller
from cairn_bridge.underway import UnderWay
from cairn_common.events import FinishReason, GroupPlacement, NodeInfo, TaskPlacement
from cairn_common.spec.features import Feature
from cairn_runtime.room import NAMESPACES, NO_ISOLATION, Ending, Stop

LOG_LIMIT = 256 << 20
_THREADS, _BROOMS = 8, 2
_LAUNCHES_AT_ONCE, _REMOVALS_AT_ONCE = 50, 20  # of one call in a thread

_Result = TypeVar("_Result")


class LocalDriver:
    """The local cluster.

    Args:
        root: the driver's own folder; one driver at a time.
        store: the folder in which tasks leave their outputs for each other.
        name: the cluster's name.
        cpus: how many slots there are, each for one core that a task asks for; by default four
            for each core and at least eight, because most local tasks wait more than they compute.
        memory: bytes that tasks may ask for together; all of the machine's by default.
        gpus: how many GPUs tasks may ask for together. They are counted, not fenced off.
        isolation: "namespaces" or "none"; by default the better one that the kernel allows.
        log_limit: bytes of log kept for an attempt; what exceeds it is dropped and counted.
        path: the PATH of tasks, on which this machine's programs are found.
        lifeline: descriptor of a pipe; when its other end closes, everything vanishes at once.
    """

    def __init__(
        self,
        root: Path,
        store: Path,
        *,
        name: str = "local",
        cpus: int | None = None,
        memory: int | None = None,
        gpus: int = 0,
        isolation: str | None = None,
        log_limit: int = LOG_LIMIT,
        path: str = PATH,
        lifeline: int | None = None,
    ) -> None:
        self.name = name
        # One node: whoever excludes another one excludes nothing.
        self.features = frozenset(
            {Feature.NODES_EXCLUDED, Feature.CHECKPOINT, *([Feature.GPU] if gpus else ())}
        )
        self.isolation = isolation or NO_ISOLATION
        self._forced = isolation is not None
        self._house = House(root.absolute(), store.absolute())
        self._node = socket.gethostname()
        self._path = path
        self._log_limit = log_limit
        self._admission = Admission(
            Slots(
                cpus=cpus or max(8, 4 * (os.cpu_count() or 1)),
                memory=memory or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
                gpus=gpus,
            )
        )
        self._record = Record(self._house.record)
        self._launcher = Launcher(self._house.errors, lifeline)
        self._executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="local-cluster")
        # Removing thousands of directories must not hold up a launch.
        self._broom = ThreadPoolExecutor(_BROOMS, thread_name_prefix="local-removal")
        self._roll = Roll()
        self._under_way = UnderWay()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._teller: Teller
        self._local: Local
        self._say = structlog.get_logger().bind(cluster=name)

    # --- life ---

    async def start(self, reporter: Reporter) -> None:
        """See `ClusterDriver`. Raises RuntimeError when another driver has the folder."""
        self._teller = Teller(reporter, self._record, self._executor, self._node)
        await self._in_thread(self._house.open)
        refusal = "asked for"
        if not self._forced:
            refusal = await self._in_thread(self._house.probe, self._launcher)
            self.isolation = NO_ISOLATION if refusal else NAMESPACES
        if self.isolation == NO_ISOLATION:
            self._say.warning("local_cluster.no_isolation", reason=refusal)
        self._local = Local(
            store=self._house.store,
            tools=self._house.tools,
            path=self._path,
            isolation=self.isolation,
            log_limit=self._log_limit,
            hidden=(self._house.root, self._house.store),
        )
        await self._recover(*await self._record.open())
        self._admit()

    async def close(self) -> None:
        """See `ClusterDriver`."""
        for gang in self._roll.gangs.values():
            gang.stop_clock()
        going = list(self._tasks)
        for task in going:
            task.cancel()
        await asyncio.gather(*going, return_exceptions=True)
        for attempt in self._roll.all():
            attempt.disconnect()
        await self._record.close()
        await self._in_thread(self._launcher.close)
        self._executor.shutdown()
        self._broom.shutdown()
        self._house.close()

    # --- after a restart ---

    async def _recover(
        self, placements: list[Taken], remembered: list[Remembered], settled: list[Identity]
    ) -> None:
        attempts = self._roll.restore(placements, remembered, settled, self._house.room)
        found = await asyncio.gather(
            *(
                self._in_thread(self._house.look, item, attempt.room)
                for item, attempt in zip(remembered, attempts, strict=True)
            )
        )
        for attempt, (launched, connection) in zip(attempts, found, strict=True):
            if launched:
                self._resume(attempt, connection)
        for gang in self._roll.gangs.values():
            if gang.waiting():
                self._admission.join(gang.number, gang.need(), gang.terms.priority)
        rooms = {attempt.room.path for attempt in attempts}
        await self._in_thread(self._house.sweep, rooms)

    def _resume(self, attempt: Attempt, connection: socket.socket | None) -> None:
        """Goes on with an attempt that an earlier bridge launched."""
        gang = self._roll.gangs.get(attempt.gang)
        if gang is not None:
            gang.scheduled.set()
        attempt.task = None
        if connection is None:
            attempt.phase = Phase.FINISHED
            self._attend(attempt, self._teller.recall if attempt.reported else self._finish)
            return
        attempt.phase = Phase.SCHEDULED
        if attempt.room.started.exists():
            attempt.phase = Phase.STARTED
            if gang is not None:
                gang.started()
        self._admission.take(attempt.need)
        attempt.holds_slots = True
        attempt.connect(connection)
        self._attend(attempt, self._follow)

    # --- taking ---

    async def place(self, placement: GroupPlacement, traceparent: str | None) -> None:
        """See `ClusterDriver`."""
        fresh: dict[AttemptKey, TaskPlacement] = {}
        again: list[AttemptKey] = []
        for task, key in zip(placement.tasks, keys_of(placement), strict=True):
            if key in self._roll or key in self._under_way:
                again.append(key)
            elif self._roll.was_settled(key):
                self._spawn(self._teller.settled_before(key))
            else:
                fresh[key] = task
        if fresh:
            asked = sum((need(task) for task in fresh.values()), Slots())
            if words := self._admission.refusal(asked, [task.name for task in fresh.values()]):
                raise PlacementError(words)
            await self._take(placement, traceparent, fresh)
        # Whoever places twice may not have heard what became of the first time.
        await self._under_way.over(again)
        known = (self._roll.get(key) for key in again)
        await self._teller.phases([attempt for attempt in known if attempt is not None])

    async def _take(
        self,
        placement: GroupPlacement,
        traceparent: str | None,
        fresh: dict[AttemptKey, TaskPlacement],
    ) -> None:
        keys = tuple(fresh)
        with self._under_way.placing(keys):
            body = placement.model_dump_json().encode()
            number = await self._record.add(body, traceparent, time.time(), keys)
            gang = Gang(number, Terms.of(placement), traceparent)
            self._roll.gangs[number] = gang
            for key, task in fresh.items():
                self._roll.note(key, self._house.room(key), task, number)
        await self._teller.fact(Phase.ACCEPTED, keys, datetime.now(UTC))
        if gang.waiting():  # and not all stopped meanwhile
            self._admission.join(number, gang.need(), placement.priority)
            self._admit()

    # --- starting ---

    def _admit(self) -> None:
        for number in self._admission.admit(time.monotonic()):
            gang = self._roll.gangs[number]
            members = gang.waiting()
            for member in members:
                member.holds_slots = True
                member.reach(Phase.SCHEDULED)
            self._spawn(self._launch_or_give_up(gang, members))

    async def _launch_or_give_up(self, gang: Gang, members: list[Attempt]) -> None:
        try:
            await self._launch(gang, members)
        except Exception as error:
            gang.scheduled.set()
            for member in members:
                self._spawn(self._give_up(member, error))

    async def _launch(self, gang: Gang, members: list[Attempt]) -> None:
        keys = tuple(member.key for member in members)
        self._record.launched(keys, self._house.boot)
        gang.start_clock()
        launching = [
            self._in_thread(start_shims, gang, some, self._local, self._house, self._launcher)
            for some in _pieces(members, _LAUNCHES_AT_ONCE)
        ]
        connections = [each for some in await asyncio.gather(*launching) for each in some]
        for member, connection in zip(members, connections, strict=True):
            member.task = None
            if connection is not None:
                member.connect(connection)
            self._attend(member, self._follow)
        await self._teller.fact(Phase.SCHEDULED, keys, members[0].at)
        gang.scheduled.set()

    # --- following ---

    async def _follow(self, attempt: Attempt) -> None:
        """From the launch, or from where an earlier bridge left it, to the reported end."""
        gang = self._roll.gangs[attempt.gang]
        log = self._spawn(self._teller.follow_log(attempt))
        telling: list[asyncio.Task[None]] = []

        def heard(letter: str) -> None:
            if letter == "R":
                gang.became_ready(attempt)
            elif letter == "S" and attempt.phase is Phase.SCHEDULED:
                attempt.reach(Phase.STARTED)
                telling.append(self._spawn(self._teller.started(attempt, gang)))

        while True:
            await attempt.hear(heard)
            # It may be that another shim, which an earlier bridge had launched, has the attempt.
            connection = await self._in_thread(shims.connect, attempt.room)
            if connection is None:
                break
            attempt.connect(connection)
        if attempt.ending is None:
            attempt.ending = await self._in_thread(shims.read_ending, attempt.room)
        self._leave(attempt)
        attempt.end_log()
        lines = await log
        await asyncio.gather(*telling)
        await gang.scheduled.wait()
        await self._teller.end(attempt, lines)

    def _leave(self, attempt: Attempt) -> None:
        """Frees what an ended attempt held, and lets its gang know."""
        if gang := self._roll.gangs.get(attempt.gang):
            gang.ended(attempt)
        if attempt.holds_slots:
            attempt.holds_slots = False
            self._admission.release(attempt.need)
            self._admit()

    async def _finish(self, attempt: Attempt) -> None:
        """Tells the end of an attempt of which nothing runs."""
        if attempt.ending is None:
            attempt.ending = await self._in_thread(shims.read_ending, attempt.room)
        self._leave(attempt)
        await self._teller.end(attempt, await self._teller.log(attempt))

    def _attend(
        self, attempt: Attempt, work: Callable[[Attempt], Coroutine[Any, Any, None]]
    ) -> None:
        """Does what is to be done about one attempt; if that fails, it ends and no other."""

        async def attend() -> None:
            try:
                await work(attempt)
            except Exception as error:
                await self._give_up(attempt, error)

        self._spawn(attend())

    async def _give_up(self, attempt: Attempt, error: Exception) -> None:
        """Ends an attempt that the driver itself has failed about."""
        self._say.error("local_cluster.gave_up", task=attempt.key, exc_info=error)
        ending = attempt.ending or broken(error)
        attempt.order_stop(Stop(0.0, ending.message or "", FinishReason.BACKEND_ERROR))
        attempt.disconnect()
        attempt.judge(ending)
        self._leave(attempt)
        attempt.end_log()
        await self._teller.ends_of_unstarted([attempt])

    # --- orders ---

    async def stop(self, keys: Iterable[AttemptKey], cause: str, grace_seconds: float) -> None:
        """See `ClusterDriver`."""
        keys = list(keys)
        await self._under_way.over(keys)
        order = Stop(grace_seconds, cause)
        waiting: list[Attempt] = []
        ended: list[Attempt] = []
        for key in keys:
            # One that is unknown is remembered, so that a placement which this order has
            # overtaken does not run.
            attempt = self._roll.get(key) or self._roll.note(key, self._house.room(key), None, None)
            if attempt.phase is Phase.ACCEPTED:
                waiting.append(attempt)
            elif attempt.phase is Phase.FINISHED:
                ended.append(attempt)
            else:
                attempt.order_stop(order)
        if ended:
            self._spawn(self._teller.phases(ended))
        if waiting:
            await self._judge(waiting, cause)

    async def _judge(self, attempts: Sequence[Attempt], cause: str) -> None:
        """Ends attempts that never ran."""
        # All at once and before anything else: one that waits may be launched at any moment.
        ending = Ending(FinishReason.STOPPED, None, cause, None, time.time())
        for attempt in attempts:
            attempt.judge(ending)
        for number in {attempt.gang for attempt in attempts}:
            if gang := self._roll.gangs.get(number):
                self._admission.shrink(number, gang.need())
        for attempt in attempts:
            self._leave(attempt)
        self._admit()
        body = ending.encode()
        await self._record.judge([(attempt.key, body) for attempt in attempts])
        self._spawn(self._teller.ends_of_unstarted(attempts))

    async def settle(self, keys: Iterable[AttemptKey]) -> None:
        """See `ClusterDriver`. Attempts that have not ended stay."""
        ended: list[Attempt] = []
        for key in keys:
            attempt = self._roll.get(key)
            if attempt is None:
                continue
            if attempt.ending is None:
                self._say.warning("local_cluster.settled_too_early", task=key)
                continue
            ended.append(attempt)
        # Parted before anything is awaited: meanwhile others are told.
        late = [attempt for attempt in ended if not attempt.told.is_set()]
        await self._forget([attempt for attempt in ended if attempt.told.is_set()])
        for attempt in late:
            await attempt.told.wait()
        await self._forget(late)

    async def _forget(self, ended: Sequence[Attempt]) -> None:
        if not ended:
            return
        await self._record.forget([attempt.key for attempt in ended])
        self._roll.forget(ended)
        run = asyncio.get_running_loop().run_in_executor
        await asyncio.gather(
            *(
                run(self._broom, self._house.remove, [attempt.room.path for attempt in some])
                for some in _pieces(ended, _REMOVALS_AT_ONCE)
            )
        )

    # --- telling again ---

    async def report_all(self) -> None:
        """See `ClusterDriver`."""
        everything = self._roll.all()
        going = [attempt for attempt in everything if attempt.ending is None]
        ended = [attempt for attempt in everything if attempt.ending is not None]
        for attempt in going:
            attempt.rewind(0)
        await self._teller.phases(going)
        await asyncio.gather(*(self._teller.end_again(attempt) for attempt in ended))

    def known(self) -> frozenset[AttemptKey]:
        """See `ClusterDriver`."""
        return frozenset(attempt.key for attempt in self._roll.all())

    async def resend_log(self, key: AttemptKey, from_seq: int) -> None:
        """See `ClusterDriver`."""
        attempt = self._roll.get(key)
        if attempt is None:
            return
        if attempt.ending is None:
            attempt.rewind(from_seq)
        else:
            await attempt.told.wait()
            await self._teller.log(attempt, from_seq)

    # --- looking ---

    async def inventory(self) -> list[NodeInfo]:
        """See `ClusterDriver`."""
        has, taken = self._admission.capacity, self._admission.taken
        storage = await self._in_thread(shutil.disk_usage, self._house.root)
        return [
            NodeInfo(
                name=self._node,
                cpu=has.cpus,
                gpu=has.gpus,
                memory=has.memory,
                storage=storage.total,
                used_cpu=taken.cpus,
                used_gpu=taken.gpus,
                used_memory=taken.memory,
            )
        ]

    async def exec(self, key: AttemptKey, command: Sequence[str]) -> ExecStream:
        """See `ClusterDriver`. Raises LookupError when the attempt is not running."""
        attempt = self._roll.get(key)
        if attempt is None or attempt.phase is not Phase.STARTED:
            raise LookupError(f"task {key.name} of {key.workflow} is not running")
        connection = await self._in_thread(shims.connect, attempt.room)
        if connection is None:
            raise LookupError(f"task {key.name} of {key.workflow} has just ended")
        return await LocalExec.start(connection, command)

    async def port_forward(self, key: AttemptKey, port: int) -> ByteStream:
        """See `ClusterDriver`. Tasks share this machine's network."""
        attempt = self._roll.get(key)
        if attempt is None or attempt.phase is not Phase.STARTED:
            raise LookupError(f"task {key.name} of {key.workflow} is not running")
        return await LocalPort.connect(port)

    # --- helpers ---

    def _spawn(self, work: Coroutine[Any, Any, _Result]) -> asyncio.Task[_Result]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self._say.error("local_cluster.failed", exc_info=error)

    async def _in_thread(self, work: Callable[..., _Result], *arguments: Any) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work, *arguments)


def _pieces(members: Sequence[Attempt], size: int) -> list[Sequence[Attempt]]:
    return [members[start : start + size] for start in range(0, len(members), size)]
