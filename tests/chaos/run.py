"""One run: start, load, faults, the end of all, and what came of it."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .checker import Expected, Violation, check
from .faults import Fault, all_faults
from .journal import Journal
from .load import AWAY, Load, Sent, ended, until
from .probe import Prober
from .record import loose_ends, read_record, story
from .shapes import Shapes
from .system import System
from .verdict import Injection, Outcome

Say = Callable[[str], None]

_PATIENCE = 150.0
"""Seconds that a workflow may take beyond its own time after the last fault."""
_LEFT_PATIENCE = 120.0
"""Seconds for the last messages and hand-overs, which are repeated ever more rarely."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run is asked to do.

    `faults` bounds their number, for a short run; `seconds` is how long a task takes on average.
    """

    minutes: float
    workflows: int
    seed: int
    engines: int = 2
    only: Sequence[str] = ()
    faults: int | None = None

    @property
    def seconds(self) -> float:
        """So long that the machine starts about a dozen tasks a second, however many are open."""
        return max(1.0, self.workflows / 6)


class _Deck:
    """Faults in an order that the seed decides; each comes as often as every other."""

    def __init__(self, faults: Sequence[Fault], chance: random.Random) -> None:
        self._faults = faults
        self._chance = chance
        self._deck: list[Fault] = []

    def draw(self) -> Fault:
        if not self._deck:
            self._deck = self._chance.sample(self._faults, len(self._faults))
        return self._deck.pop()


async def run_chaos(settings: Settings, root: Path, say: Say) -> Outcome:
    """Run it; the home is left as it is, with nothing running."""
    system = System(root, settings.engines, slots=3 * settings.workflows)
    journal = Journal(root / "journal")
    port = await journal.start()
    outcome = Outcome(settings.seed, settings.minutes, settings.workflows)
    try:
        await asyncio.to_thread(system.up)
        say(f"Cairn runs in {root} at {system.url}; seed {settings.seed}")
        await _run(settings, system, journal, port, outcome, say)
    finally:
        await asyncio.to_thread(system.down)
        await journal.close()
    return outcome


async def _run(
    settings: Settings, system: System, journal: Journal, port: int, outcome: Outcome, say: Say
) -> None:
    shapes = Shapes(random.Random(settings.seed), port, settings.seconds)
    load = Load(system, shapes, settings.workflows)
    loading = asyncio.create_task(load.run())
    try:
        if not await until(lambda: loading.done() or load.least is not None, 180):
            raise RuntimeError(f"{load.under_way} workflows are under way after 180 s")
        say(f"{load.under_way} workflows are under way")
        last = await _inject(settings, system, load, port, outcome, say, loading)
    finally:
        loading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await loading
    outcome.least = load.least
    say("the last fault is over; waiting for all workflows to end")
    await load.finish()
    outcome.drained = await _drain(system, load, journal, last, say)
    outcome.left = await _left(system)
    await _judge(system, load, journal, outcome, say)


async def _inject(
    settings: Settings,
    system: System,
    load: Load,
    port: int,
    outcome: Outcome,
    say: Say,
    loading: asyncio.Task[None],
) -> float:
    """Inject faults until the time is over; returns when the last one was over."""
    chance = random.Random(settings.seed + 1)
    faults = all_faults(system)
    if settings.only:
        faults = [each for each in faults if any(words in each.name for words in settings.only)]
    if system.no_disks is not None:
        outcome.skipped["disk full"] = system.no_disks
    deck = _Deck(faults, chance)
    prober = Prober(system, load, port)
    until_ = time.monotonic() + 60 * settings.minutes
    number = 0
    while time.monotonic() < until_ and (settings.faults is None or number < settings.faults):
        if loading.done():
            loading.result()
        if number % 10 == 0:
            idle = await prober.recovered(time.monotonic())
            outcome.idle += [] if idle is None else [idle]
        number += 1
        fault = deck.draw()
        await asyncio.sleep(chance.uniform(1.0, 4.0))
        began = time.monotonic()
        injecting = asyncio.create_task(fault.inject(system, chance))
        await asyncio.sleep(0)
        recovered = await prober.recovered(began)
        await injecting
        if fault.held and recovered is not None:
            after = await prober.recovered(time.monotonic())
            recovered = None if after is None else max(recovered, after)
        outcome.injections.append(Injection(fault.name, began, recovered))
        words = "never recovered" if recovered is None else f"recovered in {recovered:.1f} s"
        say(f"{number:4} {fault.name}: {words}; {load.under_way} under way")
    return time.monotonic()


async def _drain(
    system: System, load: Load, journal: Journal, last: float, say: Say
) -> float | None:
    """Wait until every workflow has ended and no task runs; the seconds that took."""
    longest = max((sent.at + sent.plan.longest for sent in load.sent), default=last)
    deadline = max(last, longest) + _PATIENCE
    told = time.monotonic()
    while True:
        with contextlib.suppress(*AWAY):
            load.ended = await ended(system)
        if load.under_way == 0 and not journal.open:
            return time.monotonic() - last
        if time.monotonic() > deadline:
            return None
        if time.monotonic() - told > 15:
            told = time.monotonic()
            say(f"{load.under_way} workflows are under way, {len(journal.open)} tasks run")
        await asyncio.sleep(0.5)


async def _left(system: System) -> dict[str, int]:
    """What is left undone when all is over, after a while."""
    deadline = time.monotonic() + _LEFT_PATIENCE
    while True:
        left = await loose_ends(system)
        if not any(left.values()) or time.monotonic() > deadline:
            return left
        await asyncio.sleep(1.0)


async def _judge(system: System, load: Load, journal: Journal, outcome: Outcome, say: Say) -> None:
    record, by_key = await read_record(system)
    runs = journal.read()
    expected = [
        Expected(workflow, sent.plan, sent.canceled_at is not None)
        for sent in load.sent
        if (workflow := _workflow(sent, by_key)) is not None
    ]
    outcome.violations = check(expected, record, runs, journal.open.values())
    outcome.attempts = sum(map(len, runs.values()))
    outcome.ended = sum(
        status not in {"PENDING", "RUNNING", "WAITING"} for status in record.statuses.values()
    )
    outcome.shapes = dict(Counter(each.plan.shape for each in expected))
    if outcome.violations:
        await _tell(system, outcome.violations, runs_of=journal.read, say=say)


def _workflow(sent: Sent, by_key: dict[str, str]) -> str | None:
    """The workflow of a submission; None: nobody acknowledged it and it was not taken."""
    return sent.workflow or by_key.get(sent.key)


async def _tell(
    system: System, violations: Sequence[Violation], runs_of: Callable[[], object], say: Say
) -> None:
    """All violations in a line each, and the whole story of the first."""
    for violation in violations[:50]:
        task = f" {violation.task}" if violation.task else ""
        say(f"{violation.kind.value.upper()} {violation.workflow}{task}: {violation.words}")
    if len(violations) > 50:
        say(f"... and {len(violations) - 50} more")
    first = violations[0].workflow
    say(f"\nthe story of {first}:")
    for attempt, its_runs in runs_of().items():  # type: ignore[attr-defined]
        if attempt.workflow == first:
            say(f"journal: {attempt} {its_runs}")
    for line in await story(system, first):
        say(line)
