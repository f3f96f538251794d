"""A world for the engine's core: clusters, a bus that misbehaves, a database, a clock; no I/O.

Everything random comes from one seed, so a story can be told again. The bus duplicates, delays,
reorders and drops; clusters fall silent, come back, are drained or removed, and repeat old facts;
engines crash before and after they commit, lose their partition to another one and come back with
what they remembered. What must hold all the same is checked after every step by `check`.

`ledger` is the database: what is committed. Each engine works on a ledger of its own, into which
it loads what it needs and which it trusts as long as it owns the partition.
"""

from __future__ import annotations

import copy
import heapq
import itertools
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cairn_common.events import FinishReason, NodeInfo
from cairn_common.spec.models import WorkflowSpec
from cairn_common.status import TaskStatus, WorkflowStatus
from cairn_engine.core import (
    Accepted,
    Archived,
    CancelPage,
    CancelRequested,
    Clusters,
    Decision,
    Due,
    Finished,
    Held,
    Input,
    Ledger,
    Lose,
    Policy,
    Relocate,
    Scheduled,
    Started,
    State,
    TaskInput,
    conclude,
    decide,
    need_of,
)
from cairn_engine.core.clocks import Clocks
from cairn_engine.core.inputs import Announce, Anomaly, Effect, Place, Settle, Stop
from cairn_engine.core.model import ON_A_NODE
from cairn_engine.core.plan import Plan, make_plan
from cairn_engine.core.transitions import GROUP, TASK, WORKFLOW

SILENT_AFTER = 15.0
LOST_AFTER = 60.0
_WANTED = {"drain": State.DRAINING, "remove": State.REMOVED, "resume": State.ACTIVE}
START = datetime(2026, 1, 1, tzinfo=UTC)
Key = tuple[str, int, int]
PLACED = ON_A_NODE | {TaskStatus.PROCESSING, TaskStatus.SCHEDULING}


@dataclass(frozen=True)
class Chaos:
    """How badly the world behaves; each a probability."""

    duplicate: float = 0.1
    drop: float = 0.05
    abort: float = 0.05
    take_over: float = 0.02
    fail: float = 0.15
    lose_node: float = 0.05
    hold: float = 0.05
    outages: int = 0  # of clusters, and as many drains and removals


@dataclass
class Run:
    """One attempt as its cluster knows it."""

    key: Key
    cluster: str
    phase: str = "accepted"
    stopped: bool = False
    outcome: Finished | None = None


@dataclass(frozen=True)
class Ends:
    """The moment at which an attempt ends by itself, unless it was stopped before."""

    key: Key
    reason: FinishReason
    exit_code: int | None


@dataclass(frozen=True)
class Starts:
    """The moment at which a queued attempt gets its node, unless it was stopped before."""

    key: Key


@dataclass(frozen=True)
class Turn:
    """Something happens to a cluster; `outage` tells which one an event belongs to."""

    cluster: str
    what: str
    outage: int = 0


@dataclass
class World:
    """Two engines, clusters and a clock, driven by a seed.

    The one cluster `sim` has not registered, as before the first announcement; of several all have.
    """

    seed: int
    chaos: Chaos = Chaos()
    policy: Policy = field(default_factory=lambda: Policy(page=3, backoff_base=0.5))
    max_retries: int = 2
    sites: tuple[str, ...] = ("sim",)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.now = START
        self.ledger = Ledger()
        self.memories = [Ledger(), Ledger()]  # of two engines
        self.owner = 0
        self.clocks = Clocks()  # of the owner
        self.queue: list[tuple[datetime, int, Input]] = []
        self.orders: list[tuple[datetime, int, Effect | Ends | Starts | Turn]] = []
        self.numbers = itertools.count()
        self.runs: dict[Key, Run] = {}
        self.started: list[Key] = []
        self.settled: set[Key] = set()
        self.announced: dict[str, list[str]] = {}
        self.seen: dict[object, TaskStatus | WorkflowStatus] = {}
        self.plans: dict[str, Plan] = {}
        self.anomalies: list[Anomaly] = []
        self.story: list[str] = []
        self.clusters = Clusters()
        self.states = dict.fromkeys(self.sites, State.ACTIVE)
        self.down: dict[str, int] = {}  # the outage of each cluster that cannot be heard
        self.silent: set[str] = set()
        self.lost: set[str] = set()
        self.kept: dict[str, list[Effect]] = {}  # what such a cluster has not heard
        self.unsaid: dict[str, list[Input]] = {}  # and what it could not say
        if len(self.sites) > 1:
            self._register()
            for number in range(self.chaos.outages):
                self._plan_trouble(number)

    # --- putting things in -----------------------------------------------------------------

    def submit(self, spec: WorkflowSpec, name: str = "w-1") -> Plan:
        """Store a workflow and offer its roots, as the engine does."""
        plan = make_plan(
            spec,
            workflow=name,
            uuid=f"{name:0>32}",
            user="u",
            pool="default",
            priority="NORMAL",
            cluster=self.sites[0],
            submitted_at=self.now,
            traceparent=None,
            max_retries=self.max_retries,
        )
        self.plans[name] = plan
        self.ledger.workflows[name] = plan.workflow
        for group in plan.groups:
            self.ledger.groups[name, group.index] = group
            self.ledger.mark_whole([(name, group.index)])
        for task in plan.tasks:
            self.ledger.add_task(task)
        self._transaction(list(plan.roots))
        return plan

    def cancel(self, name: str, *, force: bool = False) -> None:
        """Somebody cancels."""
        self._arrive(CancelRequested(name, "u", force=force))

    # --- running ---------------------------------------------------------------------------

    def run(self, limit: int = 20_000) -> None:
        """Go on until every workflow has ended and every attempt is settled."""
        for _ in range(limit):
            if not self.step():
                return
        raise AssertionError("the world did not come to rest:\n" + "\n".join(self.story[-40:]))

    def step(self) -> bool:
        """Let the next thing happen; False if nothing is left to happen."""
        moments = [heap[0][0] for heap in (self.queue, self.orders) if heap]
        if (due := self.clocks.next()) is not None:
            moments.append(due)
        if not moments:
            return self._repeat_unsettled()
        self.now = max(self.now, min(moments))
        if self.orders and self.orders[0][0] <= self.now:
            self._order(heapq.heappop(self.orders)[2])
        elif self.queue and self.queue[0][0] <= self.now:
            self._batch()
        else:
            self._transaction([Due(*key) for key in self.clocks.ring(self.now, 200)])
        self.check()
        return True

    def _batch(self) -> None:
        batch: list[Input] = []
        size = self.random.randint(1, 5)
        while self.queue and self.queue[0][0] <= self.now and len(batch) < size:
            batch.append(heapq.heappop(self.queue)[2])
        self._transaction(batch)
        if self.random.random() < self.chaos.abort:  # a crash before the acknowledgement
            self._change_owner(1 - self.owner)
            self._transaction(batch)

    def _transaction(self, inputs: list[Input]) -> None:
        """Decide a batch, store it, say it; what fails on the way is done again by somebody."""
        if self.random.random() < self.chaos.take_over:
            before = self.owner
            self._change_owner(1 - before)
            # The one that was paused does not know yet. It decides, and finds the fence.
            self._decide(self.memories[before], inputs)
            self.memories[before].forget()
        if self.random.random() < self.chaos.abort:
            self._decide(self.memories[self.owner], inputs)
            self.story.append(f"{self._clock()} crash before commit")
            self._change_owner(self.owner)
        self._publish(self.decide(inputs))

    def decide(self, inputs: list[Input]) -> list[Effect]:
        """The owner decides and commits."""
        memory = self.memories[self.owner]
        effects = self._decide(memory, inputs)
        self._commit(memory)
        return effects

    def _change_owner(self, owner: int) -> None:
        """Who takes a partition remembers nothing of it and reads its clocks."""
        self.owner = owner
        self.memories[owner].forget()
        self.clocks = Clocks()
        for key, group in self.ledger.groups.items():
            if group.due_at is not None:
                self.clocks.set(key, group.due_at)

    def _commit(self, memory: Ledger) -> None:
        for task_key in memory.changed_tasks | memory.new_tasks:
            task = copy.deepcopy(memory.tasks[task_key])
            self.ledger.tasks[task_key] = task
            slot = (task.workflow, task.index)
            self.ledger.current[slot] = max(task.attempt, self.ledger.current[slot])
        for key in memory.changed_groups:
            self.ledger.groups[key] = copy.deepcopy(memory.groups[key])
            self.clocks.set(key, memory.groups[key].due_at)
        for name in memory.changed_workflows:
            self.ledger.workflows[name] = copy.deepcopy(memory.workflows[name])
        memory.drop_settled()
        memory.committed()
        memory.shrink(self.random.choice((0, 3, 100)))

    def _decide(self, memory: Ledger, inputs: list[Input]) -> list[Effect]:
        decision = Decision()
        pending = list(inputs)
        while pending:
            for input_ in pending:
                self._load(memory, input_)
            for input_ in pending:
                line = f"{self._clock()} engine {self.memories.index(memory)}: {input_}"
                if self.story[-1:] != [line]:
                    self.story.append(line)
                decide(memory, input_, self.now, self.policy, decision, self.clusters)
            pending, decision.follow_ups = list(decision.follow_ups), []
        conclude(memory, self.now, decision)
        return decision.effects

    def _load(self, memory: Ledger, input_: Input) -> None:
        """What `BatchHandler` loads for an input."""
        stored = self.ledger
        if isinstance(input_, TaskInput):
            key = (input_.workflow, input_.index, input_.attempt)
            if key not in memory.tasks and key in stored.tasks:
                memory.add_task(copy.deepcopy(stored.tasks[key]))
                self._load_group(memory, (input_.workflow, stored.tasks[key].group))
        elif isinstance(input_, CancelPage):
            memory.pages[input_.workflow] = [
                group.index
                for group in stored.groups.values()
                if group.workflow == input_.workflow
                and group.index >= input_.first
                and group.ended_at is None
            ][: self.policy.page]
            for index in memory.pages[input_.workflow]:
                self._load_whole(memory, (input_.workflow, index))
        elif not isinstance(input_, CancelRequested):
            key = (input_.workflow, input_.group)
            self._load_whole(memory, key)
            if self.clusters.choosing:
                memory.needs[key] = need_of(self.plans[input_.workflow].bodies[input_.group])
        if input_.workflow in stored.workflows.keys() - memory.workflows.keys():
            memory.workflows[input_.workflow] = copy.deepcopy(stored.workflows[input_.workflow])

    def _load_group(self, memory: Ledger, key: tuple[str, int]) -> None:
        if key not in memory.groups:
            memory.groups[key] = copy.deepcopy(self.ledger.groups[key])

    def _load_whole(self, memory: Ledger, key: tuple[str, int]) -> None:
        if key in self.ledger.groups and key not in memory.whole:
            self._load_group(memory, key)
            for task in self.ledger.tasks_of(self.ledger.groups[key]):
                memory.add_task(copy.deepcopy(task))
            memory.mark_whole([key])

    def _clock(self) -> str:
        return f"{(self.now - START).total_seconds():9.3f}"

    # --- the bus ---------------------------------------------------------------------------

    def _publish(self, effects: list[Effect]) -> None:
        for effect in effects:
            self.story.append(f"{self._clock()}   -> {effect}")
            if isinstance(effect, Announce):
                self.announced.setdefault(effect.workflow, []).append(effect.status.value)
            elif isinstance(effect, Anomaly):
                self.anomalies.append(effect)
            else:
                for _ in range(self._copies()):
                    at = self.now + timedelta(seconds=self.random.expovariate(20))
                    heapq.heappush(self.orders, (at, next(self.numbers), effect))

    def _arrive(self, fact: Input) -> None:
        for _ in range(
            max(1, self._copies()) if isinstance(fact, CancelRequested) else self._copies()
        ):
            at = self.now + timedelta(seconds=self.random.expovariate(20))
            heapq.heappush(self.queue, (at, next(self.numbers), fact))

    def _copies(self) -> int:
        chance = self.random.random()
        if chance < self.chaos.drop:
            return 0
        return 2 if chance < self.chaos.drop + self.chaos.duplicate else 1

    # --- the cluster -----------------------------------------------------------------------

    def _order(self, effect: Effect | Ends | Starts | Turn) -> None:
        if isinstance(effect, Turn):
            self._turn(effect)
        elif isinstance(effect, Place | Stop | Settle) and effect.cluster in self.down:
            self.kept.setdefault(effect.cluster, []).append(effect)
        elif isinstance(effect, Starts):
            if self.runs[effect.key].outcome is None:
                self._live(self.runs[effect.key])
        elif isinstance(effect, Ends):
            run = self.runs[effect.key]
            if run.outcome is None:
                self._end(run, effect.reason, effect.exit_code)
        elif isinstance(effect, Place):
            for index, attempt in effect.attempts:
                self._place((effect.workflow, index, attempt), effect)
        elif isinstance(effect, Stop):
            for index, _name, attempt in effect.attempts:
                self._stop((effect.workflow, index, attempt), effect.cluster)
        elif isinstance(effect, Settle):
            for index, _name, attempt in effect.attempts:
                run = self.runs.get((effect.workflow, index, attempt))
                assert run is None or run.outcome is not None, "settled before it ended"
                self.settled.add((effect.workflow, index, attempt))

    def _place(self, key: Key, order: Place) -> None:
        self._check_inputs(key[0], order.group)
        run = self.runs.get(key)
        if run is not None:  # placed twice is placed once: say again how far it is
            assert run.cluster == order.cluster, f"{key} is in two clusters"
            self._report(run)
            return
        if self.random.random() < self.chaos.hold:
            self._tell(Run(key, order.cluster), Held(*key, self.now, "waiting: no room at all"))
            return
        run = self.runs[key] = Run(key, order.cluster)
        self._tell(run, Accepted(*key, self.now))
        if self.random.random() < 0.2 and len(self.sites) > 1:  # it waits in the queue
            at = self.now + timedelta(seconds=self.random.uniform(1, 60))
            heapq.heappush(self.orders, (at, next(self.numbers), Starts(key)))
        else:
            self._live(run)

    def _live(self, run: Run) -> None:
        """The attempt's life; what is said of it is delayed by the bus."""
        if self.random.random() < self.chaos.lose_node:
            self._end(run, FinishReason.NODE_LOST, None)
            return
        self._tell(run, Scheduled(*run.key, self.now, "n"))
        run.phase = "started"
        self.started.append(run.key)
        self._tell(run, Started(*run.key, self.now, "n"))
        if self.random.random() < 0.05:
            return  # runs until it is stopped or times out
        at = self.now + timedelta(seconds=self.random.expovariate(0.5))
        failed = self.random.random() < self.chaos.fail
        ends = Ends(run.key, FinishReason.EXITED, 1 if failed else 0)
        heapq.heappush(self.orders, (at, next(self.numbers), ends))

    def _end(self, run: Run, reason: FinishReason, code: int | None) -> None:
        lines = self.random.randint(0, 1)
        run.outcome = Finished(*run.key, self.now, reason, code, log_lines=lines)
        self._report(run)

    def _stop(self, key: Key, cluster: str) -> None:
        run = self.runs.setdefault(key, Run(key, cluster))
        assert run.cluster == cluster, f"{key} is stopped in {cluster} and is in {run.cluster}"
        if run.outcome is None:
            self._end(run, FinishReason.STOPPED, 143)
        else:
            self._report(run)

    def _report(self, run: Run) -> None:
        if run.outcome is not None:
            self._tell(run, run.outcome)
            if run.outcome.log_lines:
                self._tell(run, Archived(*run.key, self.now))
        elif run.phase == "started":
            self._tell(run, Started(*run.key, self.now, "n"))
        else:
            self._tell(run, Accepted(*run.key, self.now))

    def _tell(self, run: Run, fact: Input) -> None:
        if run.cluster in self.down:
            self.unsaid.setdefault(run.cluster, []).append(fact)
        else:
            self._arrive(fact)

    def _repeat_unsettled(self) -> bool:
        """A bridge compares: it says again how everything fares that nobody has settled."""
        unsettled = [run for key, run in self.runs.items() if key not in self.settled]
        self.now += timedelta(seconds=30)
        for run in unsettled:
            self._report(run)
        return bool(unsettled)

    # --- clusters that come and go ---------------------------------------------------------

    def _register(self) -> None:
        self.clusters.register(self._table())
        for name in self.sites:
            node = NodeInfo(name="n", cpu=8, memory=1 << 36, storage=1 << 36)
            self.clusters.announce(name, [node], {}, None)

    def _table(self) -> dict[str, tuple[State, list[str]]]:
        return {name: (state, ["default"]) for name, state in self.states.items()}

    def _plan_trouble(self, number: int) -> None:
        """An outage, and a drain or a removal, each of some cluster at some time."""
        start, length = self.random.uniform(0, 60), self.random.uniform(1, 2 * LOST_AFTER)
        cluster = self.random.choice(self.sites)
        for seconds, what in (
            (0.0, "down"),
            (SILENT_AFTER, "silent"),
            (LOST_AFTER, "lost"),
            (length, "up"),
        ):
            self._at(start + seconds, Turn(cluster, what, number))
        drained, at = self.random.choice(self.sites), self.random.uniform(0, 60)
        self._at(at, Turn(drained, "remove" if self.random.random() < 0.3 else "drain"))
        self._at(at + self.random.uniform(1, 90), Turn(drained, "resume"))

    def _at(self, seconds: float, turn: Turn) -> None:
        at = START + timedelta(seconds=seconds)
        heapq.heappush(self.orders, (at, next(self.numbers), turn))

    def _turn(self, turn: Turn) -> None:
        name = turn.cluster
        version = self.clusters.version
        match turn.what:
            case "down":
                self.down.setdefault(name, turn.outage)
            case "up" if self.down.get(name) == turn.outage:
                self._back(name)
            case "silent" if self.down.get(name) == turn.outage:
                self.silent.add(name)
            case "lost" if self.down.get(name) == turn.outage:
                self.lost.add(name)
            case "drain" | "remove" | "resume":
                self.states[name] = _WANTED[turn.what]
                self.clusters.register(self._table())
        self.clusters.hear(self.silent, self.lost)
        self.story.append(f"{self._clock()} {turn}")
        if version != self.clusters.version:
            keys = sorted(self.ledger.groups)
            self._transaction([Lose(*key) for key in keys])
            self._transaction([Relocate(*key) for key in keys])

    def _back(self, name: str) -> None:
        """The cluster says what it could not, and hears what it did not."""
        del self.down[name]
        self.silent.discard(name)
        self.lost.discard(name)
        for fact in self.unsaid.pop(name, []):
            self._arrive(fact)
        for order in self.kept.pop(name, []):
            heapq.heappush(self.orders, (self.now, next(self.numbers), order))

    # --- what must hold --------------------------------------------------------------------

    def _check_inputs(self, workflow: str, group: int) -> None:
        for upstream in self.plans[workflow].upstream[group]:
            status = self.ledger.groups[workflow, upstream].status
            assert status is TaskStatus.COMPLETED, f"group {group} ran before {upstream}: {status}"

    def check(self) -> None:
        """Assert every invariant of the state."""
        assert len(self.started) == len(set(self.started)), "an attempt started twice"
        ledger = self.ledger
        for group in ledger.groups.values():
            newest = list(ledger.tasks_of(group))
            still_open = [t for t in newest if not t.status.final]
            assert group.open == len(still_open), f"{group} counts {len(still_open)} open tasks"
            offered = [t for t in newest if t.status is TaskStatus.PROCESSING]
            assert group.offered == len(offered), f"{group}: {len(offered)} offered"
            assert group.status.final == (group.open == 0), f"{group} is not what its tasks are"
            lies = {t.cluster for t in still_open if t.status in PLACED and t.cluster}
            assert len(lies) <= 1, f"{group} lies in {sorted(lies)}"
            if offered:
                assert group.offer_at is not None, f"{group} would never be offered again"
            self._check_change(("group", group.workflow, group.index), group.status, GROUP)
        for task in ledger.tasks.values():
            self._check_change(task.key, task.status, TASK)
            if task.attempt < ledger.current[task.workflow, task.index]:
                assert task.status in {TaskStatus.RESCHEDULED, TaskStatus.COMPLETED}
        for workflow in ledger.workflows.values():
            groups = [g for g in ledger.groups.values() if g.workflow == workflow.id]
            assert workflow.groups_open == sum(not g.status.final for g in groups)
            assert workflow.groups_active == sum(g.active for g in groups)
            assert workflow.status.final == (workflow.groups_open == 0)
            self._check_change(workflow.id, workflow.status, WORKFLOW)
        due = [group.due_at for group in ledger.groups.values() if group.due_at is not None]
        assert self.clocks.next() == min(due, default=None), "a clock was lost"

    def _check_change(self, key: object, status: Any, table: Mapping[Any, frozenset[Any]]) -> None:
        """A status changes along the table only, over as many rows as one step may take."""
        known = self.seen.setdefault(key, status)
        if known is status:
            return
        reached = {known}
        while more := {after for each in reached for after in table[each]} - reached:
            reached |= more
        assert status in reached, f"{key} went from {known} to {status}"
        self.seen[key] = status
