"""One batch: decided in one transaction, whatever it consists of."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import structlog

from cairn_common.events import Envelope
from cairn_common.spec.models import WorkflowSpec
from cairn_common.telemetry import tracing_enabled
from cairn_engine.core import (
    Block,
    CancelPage,
    Decision,
    EndGroup,
    Input,
    Ledger,
    Offer,
    Policy,
    RestartGroup,
    TaskInput,
    Wake,
    conclude,
    decide,
)
from cairn_engine.core.inputs import Anomaly, CancelRequested, FollowUp
from cairn_engine.core.plan import Plan, make_plan
from cairn_engine.handlers.announce import Announcer
from cairn_engine.handlers.spans import EndSpans
from cairn_engine.store import Store, Submission, Transaction

log = structlog.get_logger(__name__)

_FOLLOW_UPS: dict[str, type[Any]] = {
    kind.__name__: kind for kind in (Offer, Wake, Block, EndGroup, RestartGroup, CancelPage)
}


@dataclass(frozen=True, slots=True)
class Batch:
    """What is to be decided together."""

    submissions: Sequence[str] = ()
    inputs: Sequence[Input] = ()
    take_follow_ups: bool = False


@dataclass(slots=True)
class Result:
    """What was decided: already stored, yet to be said."""

    envelopes: list[Envelope] = field(default_factory=list)
    outbox: int | None = None
    more_follow_ups: bool = False
    next_due: datetime | None = None
    traceparents: dict[str, str] = field(default_factory=dict)  # of workflows, where spans are made


class BatchHandler:
    """Decides batches.

    Args:
        store: where state is.
        policy: the numbers.
        pools: which cluster serves which pool.
        max_retries: how often a task is tried again.
    """

    def __init__(
        self, store: Store, policy: Policy, pools: dict[str, str], max_retries: int
    ) -> None:
        self._store = store
        self._policy = policy
        self._pools = pools
        self._max_retries = max_retries
        self._announcer = Announcer()

    async def handle(
        self, batch: Batch, epochs: dict[int, int], forget: Sequence[int] = ()
    ) -> Result:
        """Decide a batch and store the decision.

        Args:
            batch: what is to be decided.
            epochs: the epochs of the partitions that the batch is about.
            forget: outbox entries that have been sent.

        Raises:
            FencedError: one of the partitions is somebody else's; nothing was stored.
        """
        now = datetime.now(UTC)
        ledger = Ledger()
        decision = Decision()
        result = Result()
        spans = EndSpans(ledger) if tracing_enabled() else None
        async with self._store.transaction(epochs) as transaction:
            inputs: list[Input] = []
            if batch.submissions:
                result.envelopes += await self._submit(
                    transaction, ledger, batch.submissions, decision, now
                )
            if batch.take_follow_ups:
                limit = 2 * self._policy.page
                stored = await transaction.take_follow_ups(list(epochs), limit)
                result.more_follow_ups = len(stored) == limit
                inputs += [_restore(body) for body in stored]
            inputs += batch.inputs
            await self._decide(transaction, ledger, inputs, decision, now, spans)
            result.more_follow_ups |= await self._follow(transaction, ledger, decision, now, spans)
            conclude(ledger, now, decision)
            await transaction.save(ledger)
            anomalies = [e for e in decision.effects if isinstance(e, Anomaly)]
            if anomalies:
                await transaction.record(now, anomalies)
                log.warning("anomalies recorded", number=len(anomalies), first=anomalies[0].what)
            result.envelopes += await self._announcer.envelopes(
                transaction, ledger, decision.effects, now
            )
            if result.envelopes:
                result.outbox = await transaction.put_in_outbox(result.envelopes, forget)
        result.next_due = min(
            (due for key in ledger.changed_groups if (due := ledger.groups[key].due_at)),
            default=None,
        )
        if spans is not None:
            result.traceparents = spans.record(decision)
        return result

    async def _submit(
        self,
        transaction: Transaction,
        ledger: Ledger,
        ids: Sequence[str],
        decision: Decision,
        now: datetime,
    ) -> list[Envelope]:
        submissions = await transaction.load_submissions(sorted(set(ids)))
        plans = [(submission, self._plan(submission)) for submission in submissions]
        if plans:
            await transaction.insert(plans)
        envelopes = []
        for _, plan in plans:
            ledger.workflows[plan.workflow.id] = plan.workflow
            envelopes.append(self._announcer.submitted(plan.workflow, now))
            decision.follow_ups.extend(plan.roots)
        return envelopes

    def _plan(self, submission: Submission) -> Plan:
        return make_plan(
            WorkflowSpec.model_validate_json(submission.spec),
            workflow=submission.workflow,
            uuid=submission.uuid,
            user=submission.user,
            pool=submission.pool,
            priority=submission.priority,
            cluster=self._pools.get(submission.pool, submission.pool),
            submitted_at=submission.submitted_at,
            traceparent=submission.traceparent,
            max_retries=self._max_retries,
        )

    async def _decide(
        self,
        transaction: Transaction,
        ledger: Ledger,
        inputs: Sequence[Input],
        decision: Decision,
        now: datetime,
        spans: EndSpans | None,
    ) -> None:
        """Load what the inputs are about, then decide each."""
        tasks = []
        groups = []
        for input_ in inputs:
            if isinstance(input_, TaskInput):
                tasks.append((input_.workflow, input_.index, input_.attempt))
            elif isinstance(input_, CancelPage):
                await transaction.load_page(
                    ledger, input_.workflow, input_.first, self._policy.page
                )
            elif not isinstance(input_, CancelRequested):
                groups.append((input_.workflow, input_.group))
        await transaction.load_tasks(ledger, tasks)
        await transaction.load_whole_groups(ledger, groups)
        await transaction.load_workflows(ledger, (input_.workflow for input_ in inputs))
        if spans is not None:
            spans.look()
        for input_ in inputs:
            decide(ledger, input_, now, self._policy, decision)

    async def _follow(
        self,
        transaction: Transaction,
        ledger: Ledger,
        decision: Decision,
        now: datetime,
        spans: EndSpans | None,
    ) -> bool:
        """Decide what follows, round by round; what is too much is put off.

        Returns:
            Whether something was put off.
        """
        budget = 2 * self._policy.page
        while decision.follow_ups:
            if budget <= 0:
                await transaction.put_off([(f.workflow, _keep(f)) for f in decision.follow_ups])
                decision.follow_ups = []
                return True
            this_round = decision.follow_ups[:budget]
            decision.follow_ups = decision.follow_ups[budget:]
            budget -= len(this_round)
            await self._decide(transaction, ledger, this_round, decision, now, spans)
        return False


def _keep(follow_up: FollowUp) -> dict[str, Any]:
    return {"kind": type(follow_up).__name__, **dataclasses.asdict(follow_up)}


def _restore(body: dict[str, Any]) -> FollowUp:
    follow_up: FollowUp = _FOLLOW_UPS[body.pop("kind")](**body)
    return follow_up
