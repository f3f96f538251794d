"""The workflows that are submitted: their files, and what must become of each whatever fails.

A fault may cost time, never an outcome. So all is known in advance: the workflow's status, and for
each task its last attempt's number and status. Where a task's end depends on who is faster (the
others of a gang whose lead has ended), only that is left open.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

FOREVER = 900.0
"""Seconds: longer than any run waits. What sleeps so long is stopped by somebody."""

# $1: the journal's port; $2 and $3: seconds and exit code of each attempt, the last of them for
# all that follow; then the inputs, each of which must hold what its task left there.
_SCRIPT = """\
port=$1 seconds=($2) codes=($3) attempt=$CAIRN_ATTEMPT
shift 3
exec 3<>/dev/tcp/127.0.0.1/$port || exit 90
read -r nonce < /proc/sys/kernel/random/uuid
echo "S $CAIRN_WORKFLOW_ID $CAIRN_TASK $attempt $nonce" >&3
read -r said <&3 || exit 91
echo "ran $CAIRN_TASK $attempt"
for input in "$@"; do [ -s "$input/nonce" ] || exit 92; done
read -r -t "${seconds[attempt]:-${seconds[-1]}}" <&3
echo $nonce > {{output}}/nonce
code=${codes[attempt]:-${codes[-1]}}
echo "E $CAIRN_WORKFLOW_ID $CAIRN_TASK $attempt $nonce $code" >&3
read -r said <&3 || exit 93
exit $code
"""
RETRY_CODE = 11


@dataclass(frozen=True, slots=True)
class TaskPlan:
    """What must become of a task.

    `statuses` are those that its last attempt may have; `attempts` how many there must be, None
    where that is left open. `lead` names the task whose end may stop this one short of its own.
    """

    name: str
    needs: tuple[str, ...] = ()
    statuses: frozenset[str] = frozenset({"COMPLETED"})
    attempts: int | None = 1
    lead: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """A workflow to be submitted. `longest`: the seconds that it takes on an idle system."""

    shape: str
    text: str
    status: str
    tasks: dict[str, TaskPlan]
    longest: float
    cancel_after: float | None = None


@dataclass(slots=True)
class _Draft:
    """A workflow being drawn."""

    port: int
    tasks: list[dict[str, Any]] = field(default_factory=list)
    groups: list[dict[str, Any]] = field(default_factory=list)
    plans: dict[str, TaskPlan] = field(default_factory=dict)

    def task(
        self,
        plan: TaskPlan,
        seconds: Sequence[float],
        codes: Sequence[int] = (0,),
        group: str | None = None,
        **more: Any,
    ) -> None:
        """Add a task, alone or to a group."""
        needs = plan.needs
        spec = {
            "name": plan.name,
            "image": "ubuntu:24.04",
            "command": ["bash", "-c", _SCRIPT, "chaos"],
            "args": [
                str(self.port),
                " ".join(f"{value:.1f}" for value in seconds),
                " ".join(map(str, codes)),
                *(f"{{{{input:{number}}}}}" for number in range(len(needs))),
            ],
            "inputs": [{"task": name} for name in needs],
            **more,
        }
        self.plans[plan.name] = plan
        if group is None:
            self.tasks.append(spec)
        else:
            next(each for each in self.groups if each["name"] == group)["tasks"].append(spec)

    def group(self, name: str, **more: Any) -> None:
        """Add an empty group."""
        self.groups.append({"name": name, "tasks": [], **more})

    def text(self, name: str, **more: Any) -> str:
        """The file."""
        workflow: dict[str, Any] = {"name": name, **more}
        if self.tasks:
            workflow["tasks"] = self.tasks
        if self.groups:
            workflow["groups"] = self.groups
        return yaml.safe_dump({"workflow": workflow}, sort_keys=False, width=10_000)


class Shapes:
    """Draws workflows.

    Args:
        chance: where all chance comes from.
        port: the journal's.
        seconds: how long a task takes on average.
    """

    def __init__(self, chance: random.Random, port: int, seconds: float) -> None:
        self._chance = chance
        self._port = port
        self._seconds = seconds
        self._deck: list[Callable[[], Plan]] = []

    def draw(self) -> Plan:
        """The next workflow: every shape comes as often as every other."""
        if not self._deck:
            self._deck = [
                self.chain, self.fan, self.lattice, self.gang, self.pipeline, self.strict_failing,
                self.strict_retrying, self.retried, self.failing, self.tolerated, self.timeout,
                self.canceled,
            ]  # fmt: skip
            self._chance.shuffle(self._deck)
        return self._deck.pop()()

    def _some(self) -> float:
        return self._chance.uniform(0.4, 1.6) * self._seconds

    def chain(self) -> Plan:
        """Each task needs the one before it."""
        draft, longest = _Draft(self._port), 0.0
        for number in range(self._chance.randint(3, 6)):
            seconds = self._some()
            longest += seconds
            needs = (f"t{number - 1}",) if number else ()
            draft.task(TaskPlan(f"t{number}", needs), [seconds])
        return _plan("chain", draft, "COMPLETED", longest)

    def fan(self) -> Plan:
        """One, then many at once, then one."""
        draft = _Draft(self._port)
        draft.task(TaskPlan("first"), [self._some()])
        names = [f"m{number}" for number in range(self._chance.randint(3, 8))]
        for name in names:
            draft.task(TaskPlan(name, ("first",)), [self._some()])
        draft.task(TaskPlan("last", tuple(names)), [self._some()])
        return _plan("fan", draft, "COMPLETED", 5 * self._seconds)

    def lattice(self) -> Plan:
        """Diamonds upon diamonds: each task needs two of the layer above."""
        draft = _Draft(self._port)
        width, depth = 3, self._chance.randint(2, 3)
        for layer in range(depth):
            for place in range(width):
                above = sorted({place, (place + 1) % width})
                needs = tuple(f"l{layer - 1}-{each}" for each in above) if layer else ()
                draft.task(TaskPlan(f"l{layer}-{place}", needs), [self._some()])
        needs = tuple(f"l{depth - 1}-{place}" for place in range(width))
        draft.task(TaskPlan("bottom", needs), [self._some()])
        return _plan("lattice", draft, "COMPLETED", 2 * (depth + 1) * self._seconds)

    def gang(self) -> Plan:
        """A gang behind a barrier, and a task that needs it. The lead ends last or first."""
        draft = _Draft(self._port)
        size = self._chance.randint(3, 5)
        draft.group("gang-group", barrier=True)
        lead = "g0"
        for number in range(size):
            # One member of some gangs would serve for ever: it ends with its lead.
            serves = number == size - 1 and self._chance.random() < 0.5
            draft.task(
                TaskPlan(f"g{number}", lead=None if number == 0 else lead),
                [FOREVER if serves else self._some()],
                group="gang-group",
                lead=number == 0,
            )
        draft.group("after-group")
        draft.task(TaskPlan("after", (lead,)), [self._some()], group="after-group", lead=True)
        return _plan("gang", draft, "COMPLETED", 4 * self._seconds)

    def pipeline(self) -> Plan:
        """Groups with dependencies between tasks of different groups."""
        draft = _Draft(self._port)
        draft.group("make-group")
        draft.task(TaskPlan("make"), [self._some()], group="make-group", lead=True)
        draft.group("use-group", ignoreNonleadStatus=False)
        draft.task(TaskPlan("odd", ("make",)), [self._some()], group="use-group", lead=True)
        draft.task(TaskPlan("even", ("make",), lead="odd"), [self._some()], group="use-group")
        draft.group("judge-group")
        draft.task(TaskPlan("judge", ("odd",)), [self._some()], group="judge-group", lead=True)
        return _plan("pipeline", draft, "COMPLETED", 6 * self._seconds)

    def strict_failing(self) -> Plan:
        """In a strict gang the failure of one is the failure of all."""
        draft = _Draft(self._port)
        stopped = frozenset({"FAILED"})
        draft.group("strict-group", ignoreNonleadStatus=False)
        draft.task(TaskPlan("lead", statuses=stopped), [FOREVER], group="strict-group", lead=True)
        draft.task(TaskPlan("bad", statuses=stopped), [self._some()], [7], group="strict-group")
        draft.group("after-group")
        blocked = TaskPlan("after", ("lead",), frozenset({"FAILED_UPSTREAM"}))
        draft.task(blocked, [0], group="after-group", lead=True)
        return _plan("strict-failing", draft, "FAILED", 2 * self._seconds)

    def strict_retrying(self) -> Plan:
        """In a strict gang a retry of one is a new start of all."""
        draft = _Draft(self._port)
        draft.group("strict-group", ignoreNonleadStatus=False)
        lead = TaskPlan("lead", attempts=2)
        draft.task(lead, [FOREVER, 2 * self._seconds], group="strict-group", lead=True)
        flaky = TaskPlan("flaky", attempts=2, lead="lead")
        actions = {"RESCHEDULE": str(RETRY_CODE)}
        seconds = [self._some(), self._seconds]
        draft.task(flaky, seconds, [RETRY_CODE, 0], group="strict-group", exitActions=actions)
        return _plan("strict-retrying", draft, "COMPLETED", 5 * self._seconds)

    def retried(self) -> Plan:
        """A task that succeeds at its third attempt, and one that needs it."""
        draft = _Draft(self._port)
        seconds = [self._some() / 2 for _ in range(3)]
        draft.task(
            TaskPlan("flaky", attempts=3),
            seconds,
            [RETRY_CODE, RETRY_CODE, 0],
            exitActions={"RESCHEDULE": str(RETRY_CODE)},
        )
        draft.task(TaskPlan("after", ("flaky",)), [self._some()])
        return _plan("retried", draft, "COMPLETED", 4 * self._seconds + 10)

    def failing(self) -> Plan:
        """A failure blocks exactly what is downstream of it."""
        draft = _Draft(self._port)
        draft.task(TaskPlan("good"), [self._some()])
        draft.task(TaskPlan("bad", statuses=frozenset({"FAILED"})), [self._some()], [5])
        draft.task(TaskPlan("beside", ("good",)), [self._some()])
        upstream = frozenset({"FAILED_UPSTREAM"})
        draft.task(TaskPlan("below", ("bad", "good"), upstream), [0])
        draft.task(TaskPlan("deeper", ("below",), upstream), [0])
        return _plan("failing", draft, "FAILED", 4 * self._seconds)

    def tolerated(self) -> Plan:
        """An exit code that counts as success."""
        draft = _Draft(self._port)
        draft.task(TaskPlan("odd"), [self._some()], [3], exitActions={"COMPLETE": "3-4"})
        draft.task(TaskPlan("after", ("odd",)), [self._some()])
        return _plan("tolerated", draft, "COMPLETED", 4 * self._seconds)

    def timeout(self) -> Plan:
        """A task that would run for ever and may not."""
        draft = _Draft(self._port)
        statuses = frozenset({"FAILED_EXEC_TIMEOUT"})
        draft.task(TaskPlan("endless", statuses=statuses), [FOREVER])
        below = TaskPlan("below", ("endless",), frozenset({"FAILED_UPSTREAM"}))
        draft.task(below, [0])
        limit = max(1, round(self._some()))
        return _plan(
            "timeout",
            draft,
            "FAILED_EXEC_TIMEOUT",
            limit + 15,
            timeout={"exec_timeout": f"{limit}s"},
        )

    def canceled(self) -> Plan:
        """A workflow that somebody cancels while it runs."""
        draft = _Draft(self._port)
        statuses = frozenset({"FAILED_CANCELED"})
        draft.task(TaskPlan("a", statuses=statuses), [FOREVER])
        draft.task(TaskPlan("b", statuses=statuses), [FOREVER])
        draft.task(TaskPlan("c", ("a",), statuses), [0])
        after = self._some()
        return _plan("canceled", draft, "FAILED_CANCELED", after + 15, cancel_after=after)


def probe(port: int) -> Plan:
    """The smallest workflow."""
    draft = _Draft(port)
    draft.task(TaskPlan("probe"), [0.0])
    return _plan("probe", draft, "COMPLETED", 1.0)


def _plan(
    shape: str,
    draft: _Draft,
    status: str,
    longest: float,
    cancel_after: float | None = None,
    **more: Any,
) -> Plan:
    return Plan(
        shape, draft.text(f"chaos-{shape}", **more), status, draft.plans, longest, cancel_after
    )
