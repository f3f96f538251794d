"""One batch: loaded, decided, and stored in one transaction, whatever it consists of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain

import structlog

from cairn_common.events import Envelope
from cairn_common.spec.models import WorkflowSpec
from cairn_common.telemetry import tracing_enabled
from cairn_engine.core import (
    CancelPage,
    Clusters,
    Decision,
    Due,
    Input,
    Ledger,
    Offer,
    Policy,
    PoolPolicy,
    Relocate,
    TaskInput,
    Wake,
    conclude,
    decide,
    need_of,
)
from cairn_engine.core.inputs import Anomaly, CancelRequested, Settle
from cairn_engine.core.plan import Plan, make_plan
from cairn_engine.handlers import follow_ups
from cairn_engine.handlers.announce import Announcer
from cairn_engine.handlers.spans import EndSpans
from cairn_engine.store import Store, Submission, Writes

log = structlog.get_logger(__name__)

_REMEMBERED_ATTEMPTS = 10_000
_SMALL = 200  # tasks of a workflow
_SPEC_BYTES = 1 << 19  # of submissions that are taken in together


@dataclass(slots=True)
class Result:
    """What was decided: already stored, yet to be said."""

    envelopes: list[Envelope] = field(default_factory=list)
    outbox: int | None = None
    more_follow_ups: bool = False
    clocks: dict[tuple[str, int], datetime | None] = field(default_factory=dict)
    settled: list[Settle] = field(default_factory=list)
    traceparents: dict[str, str] = field(default_factory=dict)  # of workflows, where spans are made
    anomalies: list[Anomaly] = field(default_factory=list)
    unsubmitted: frozenset[str] = frozenset()  # announced, and not to be found
    left: Sequence[str] = ()  # submitted, and not taken in yet
    planned: int = 0  # tasks of workflows that were taken in


class BatchHandler:
    """Decides batches about the partitions of one lane, one batch at a time.

    What was loaded is remembered for the next batch. After a failure nothing is: the memory may
    be ahead of the database then.

    Args:
        store: where state is.
        announcer: makes events.
        policy: the numbers.
        pool: the rules of the pool with a name.
        clusters: what is known of the clusters.
    """

    def __init__(
        self,
        store: Store,
        announcer: Announcer,
        policy: Policy,
        pool: Callable[[str], PoolPolicy],
        clusters: Clusters,
    ) -> None:
        self._store = store
        self._announcer = announcer
        self._policy = policy
        self._pool = pool
        self._clusters = clusters
        self._ledger = Ledger()

    def forget(self) -> None:
        """Load everything anew from now on: somebody else may have written it."""
        self._ledger.forget()

    async def submit(
        self, ids: Sequence[str], epochs: Mapping[int, int], forget: Sequence[int] = ()
    ) -> Result:
        """Take in submitted workflows, as many as memory bears, and offer what waits for nothing.

        Raises:
            FencedError: one of the partitions is somebody else's; nothing was stored.
        """
        now = datetime.now(UTC)
        decision = Decision()
        writes = Writes(forget=forget)
        try:
            submissions, left = await self._store.load_submissions(sorted(set(ids)), _SPEC_BYTES)
            for submission in submissions:
                plan = await self._plan(submission)
                writes.plans.append(plan)
                self._remember(plan)
                decision.follow_ups.extend(plan.roots)
            await self._follow(decision, writes, now)
            announced = [self._announcer.submitted(plan.workflow, now) for plan in writes.plans]
            unsubmitted = await self._unsubmitted(set(ids).difference(left))
            result = await self._commit(decision, writes, epochs, now, announced)
            result.unsubmitted = unsubmitted
            result.left = left
            result.planned = sum(len(plan.tasks) for plan in writes.plans)
        except BaseException:
            self._ledger.forget()
            raise
        return result

    async def _unsubmitted(self, ids: Set[str]) -> frozenset[str]:
        """Which of these workflows neither are known nor have been submitted."""
        ledger = self._ledger
        doubtful = ids - ledger.workflows.keys()
        if doubtful:
            await self._store.load_workflows(ledger, doubtful)
        return frozenset(doubtful - ledger.workflows.keys())

    async def handle(
        self,
        inputs: Sequence[Input],
        epochs: Mapping[int, int],
        *,
        take_follow_ups: bool = False,
        forget: Sequence[int] = (),
    ) -> Result:
        """Decide a batch and store the decision.

        Args:
            inputs: what is to be decided.
            epochs: the epochs of the partitions that the batch is about.
            take_follow_ups: go on with what earlier batches have put off.
            forget: outbox entries that have been sent.

        Raises:
            FencedError: one of the partitions is somebody else's; nothing was stored.
        """
        now = datetime.now(UTC)
        decision = Decision()
        writes = Writes(forget=forget)
        try:
            more = False
            if take_follow_ups:
                limit = 2 * self._policy.page // follow_ups.IN_ONE_ROW
                stored = await self._store.load_follow_ups(list(epochs), limit)
                more = len(stored) == limit
                writes.taken = list(stored)
                inputs = [*chain.from_iterable(map(follow_ups.restore, stored.values())), *inputs]
            await self._decide(inputs, decision, now)
            await self._follow(decision, writes, now)
            result = await self._commit(decision, writes, epochs, now, [])
            result.more_follow_ups = more or bool(writes.put_off)
        except BaseException:
            self._ledger.forget()
            raise
        return result

    async def _commit(
        self,
        decision: Decision,
        writes: Writes,
        epochs: Mapping[int, int],
        now: datetime,
        announced: list[Envelope],
    ) -> Result:
        ledger = self._ledger
        conclude(ledger, now, decision)
        writes.anomalies = [e for e in decision.effects if isinstance(e, Anomaly)]
        if writes.anomalies:
            first = writes.anomalies[0]
            log.warning("anomalies recorded", number=len(writes.anomalies), first=first.what)
        bodies = {
            (plan.workflow.id, index): plan.bodies[index]
            for plan in writes.plans
            for index in (root.group for root in plan.roots)
        }
        envelopes = announced + await self._announcer.envelopes(
            ledger, decision.effects, now, bodies
        )
        writes.envelopes = envelopes
        clocks = {key: ledger.groups[key].due_at for key in ledger.changed_groups}
        if writes.plans:  # all that has changed is inserted as it is now
            ledger.committed()
        spans = EndSpans(ledger, decision) if tracing_enabled() else None
        outbox = await self._store.commit(epochs, ledger, writes)
        if spans is not None:
            spans.record()
        if not writes.plans:
            ledger.drop_settled()
        ledger.committed()
        ledger.shrink(_REMEMBERED_ATTEMPTS)
        settled = [effect for effect in decision.effects if isinstance(effect, Settle)]
        traceparents = spans.traceparents if spans is not None else {}
        return Result(
            envelopes,
            outbox,
            bool(writes.put_off),
            clocks,
            settled,
            traceparents,
            writes.anomalies,
        )

    async def _plan(self, submission: Submission) -> Plan:
        pool = self._pool(submission.pool)
        finished = None
        if submission.restarts is not None:
            finished = await self._store.load_finished(submission.restarts)
        return make_plan(
            WorkflowSpec.model_validate_json(submission.spec),
            workflow=submission.workflow,
            uuid=submission.uuid,
            user=submission.user,
            pool=submission.pool,
            priority=submission.priority,
            labels=submission.labels,
            cluster=self._clusters.only(submission.pool) or pool.cluster,
            submitted_at=submission.submitted_at,
            traceparent=submission.traceparent,
            max_retries=pool.max_retries,
            policy=self._policy,
            exit_actions=pool.exit_actions,
            parent=submission.restarts,
            finished=finished,
        )

    def _remember(self, plan: Plan) -> None:
        """What is at hand need not be loaded: of a large workflow what is offered at once."""
        ledger = self._ledger
        ledger.workflows[plan.workflow.id] = plan.workflow
        if len(plan.tasks) <= _SMALL:
            groups = plan.groups
        else:
            groups = [plan.groups[root.group] for root in plan.roots]
        for group in groups:
            ledger.groups[group.workflow, group.index] = group
            for task in plan.tasks[group.first_task : group.first_task + group.size]:
                ledger.add_task(task)
        ledger.mark_whole((group.workflow, group.index) for group in groups)
        if self._clusters.spans(plan.pool):  # the bodies are not stored yet
            for root in plan.roots:
                ledger.needs[root.workflow, root.group] = need_of(plan.bodies[root.group])

    async def _decide(self, inputs: Sequence[Input], decision: Decision, now: datetime) -> None:
        """Load what the inputs are about, then decide each."""
        ledger, store = self._ledger, self._store
        tasks = []
        groups = []
        for input_ in inputs:
            if isinstance(input_, TaskInput):
                tasks.append((input_.workflow, input_.index, input_.attempt))
            elif isinstance(input_, CancelPage):
                await store.load_page(ledger, input_.workflow, input_.first, self._policy.page)
            elif not isinstance(input_, CancelRequested):
                groups.append((input_.workflow, input_.group))
        if tasks:
            await store.load_tasks(ledger, tasks)
        if groups:
            await store.load_whole_groups(ledger, groups)
        await store.load_workflows(ledger, (input_.workflow for input_ in inputs))
        if self._clusters.choosing:
            await self._load_needs(inputs)
        for input_ in inputs:
            decide(ledger, input_, now, self._policy, decision, self._clusters)

    async def _load_needs(self, inputs: Sequence[Input]) -> None:
        """What the groups need that these inputs may offer, where there is a choice of clusters."""
        ledger = self._ledger
        offered: set[tuple[str, int]] = set()
        woken: Counter[tuple[str, int]] = Counter()
        for input_ in inputs:
            workflow = ledger.workflows.get(input_.workflow)
            if workflow is None or not self._clusters.spans(workflow.pool):
                continue
            if isinstance(input_, Wake):
                woken[input_.workflow, input_.group] += 1
            elif isinstance(input_, Offer | Due | Relocate):
                offered.add((input_.workflow, input_.group))
        # All but the last of the inputs of a group offer nothing.
        offered.update(
            key
            for key, count in woken.items()
            if key in ledger.groups and ledger.groups[key].unmet <= count
        )
        await self._store.load_needs(ledger, offered)

    async def _follow(self, decision: Decision, writes: Writes, now: datetime) -> None:
        """Decide what follows, round by round; what is too much is put off."""
        budget = 2 * self._policy.page
        while decision.follow_ups:
            if budget <= 0:
                writes.put_off = list(follow_ups.keep(decision.follow_ups))
                decision.follow_ups = []
                return
            this_round = decision.follow_ups[:budget]
            decision.follow_ups = decision.follow_ups[budget:]
            budget -= len(this_round)
            await self._decide(this_round, decision, now)
