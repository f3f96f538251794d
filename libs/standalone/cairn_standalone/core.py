"""What happens to the parts of a standalone system, decided without touching any of them.

`decide(system, event, now)` is total: every event in every phase has an answer, and an event about
an earlier start of a part (each start has a number) changes nothing. The shell around it, in
`supervisor.py`, starts processes and delivers signals because an effect says so, and tells what
came of it as the next event. So all that is subtle can be tested in microseconds: what waits for
what, how long to back off, when to give up, in which order to stop.

Times are seconds on one monotonic clock that the caller reads.

The rules:

* A part starts when all that it needs is ready, and is restarted alone when it dies.
* A restart waits 0.1 s, then twice as long each time, up to 10 s. A part that was ready for 30 s
  has shown that it works: its count of failures begins anew.
* A failure while a part that it needs is down is nobody's fault and does not count.
* A part that was never ready gives up after 3 failures (somebody is waiting for it), one that was
  ready after 10.
* A part that says of itself that it cannot work any more is stopped and started again.
* A stop goes against the direction of the needs. What does not end in its grace period is killed;
  asking twice ends the grace period.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum


class Phase(StrEnum):
    """Where a part is in its life."""

    WAITING = "waiting"
    """For what it needs to be ready."""
    STARTING = "starting"
    READY = "ready"
    BACKING_OFF = "backing-off"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"
    """Given up: only a new start of the whole system starts it again."""


LIVE = frozenset({Phase.STARTING, Phase.READY, Phase.STOPPING})
"""The phases in which a process may exist."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Patience, in seconds and in counts."""

    first_delay: float = 0.1
    longest_delay: float = 10.0
    stable_after: float = 30.0
    start_timeout: float = 60.0
    first_start_failures: int = 3
    failures: int = 10

    def delay(self, failures: int) -> float:
        """How long to wait before the restart that follows the `failures`-th failure."""
        doublings = min(max(failures - 1, 0), 30)
        return min(self.first_delay * 2.0**doublings, self.longest_delay)


@dataclass(frozen=True, slots=True)
class Rule:
    """How one part stands to the others."""

    name: str
    needs: tuple[str, ...] = ()
    stops_after: tuple[str, ...] = ()
    """Parts that it outlives although they do not need it."""
    grace: float = 10.0
    """Seconds between being asked to end and being killed."""


@dataclass(frozen=True, slots=True)
class Process:
    """What is known about one part."""

    rule: Rule
    phase: Phase = Phase.WAITING
    since: float = 0.0
    """When it came into this phase."""
    start: int = 0
    """The number of its latest start: 1 for the first. 0: never started."""
    failures: int = 0
    """In a row, without a stable time between them."""
    was_ready: bool = False
    due: float | None = None
    """When the phase has lasted long enough: back-off, start or grace over."""
    reason: str | None = None
    """Why it ended the last time, in words."""

    @property
    def restarts(self) -> int:
        """How often it was started again."""
        return max(self.start - 1, 0)


@dataclass(frozen=True, slots=True)
class System:
    """All parts, in the order of the table they come from."""

    processes: Mapping[str, Process]
    policy: Policy = field(default_factory=Policy)
    stopping: bool = False

    @classmethod
    def of(cls, rules: Iterable[Rule], policy: Policy | None = None) -> System:
        """A system of which nothing has started.

        Raises:
            ValueError: a part needs or outlives one that does not exist, or stands before it.
        """
        processes: dict[str, Process] = {}
        rules = tuple(rules)
        names = {rule.name for rule in rules}
        for rule in rules:
            for need in rule.needs:
                if need not in processes:
                    raise ValueError(f"{rule.name} needs {need}, which is not before it")
            for other in rule.stops_after:
                if other not in names:
                    raise ValueError(f"{rule.name} stops after {other}, which does not exist")
            processes[rule.name] = Process(rule)
        return cls(processes, policy or Policy())

    @property
    def all_ready(self) -> bool:
        """Whether every part can be used."""
        return all(process.phase is Phase.READY for process in self.processes.values())

    @property
    def all_stopped(self) -> bool:
        """Whether no process of any part can exist."""
        return not any(process.phase in LIVE for process in self.processes.values())

    @property
    def failed(self) -> tuple[Process, ...]:
        """The parts that were given up."""
        return tuple(p for p in self.processes.values() if p.phase is Phase.FAILED)

    @property
    def next_due(self) -> float | None:
        """When `Tick` has something to do. None: only when something else happens first."""
        return min((p.due for p in self.processes.values() if p.due is not None), default=None)


# Events


@dataclass(frozen=True, slots=True)
class Begin:
    """Start the system."""


@dataclass(frozen=True, slots=True)
class BecameReady:
    """A part says that it can be used."""

    name: str
    start: int


@dataclass(frozen=True, slots=True)
class Exited:
    """A part's process is gone, or could not be made."""

    name: str
    start: int
    reason: str
    hopeless: bool = False
    """Trying again cannot help."""


@dataclass(frozen=True, slots=True)
class FellSick:
    """A part that was ready says that it cannot work any more; a new start may mend it."""

    name: str
    start: int
    reason: str


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


@dataclass(frozen=True, slots=True)
class StopRequested:
    """End the system; the second time: at once."""


Event = Begin | BecameReady | Exited | FellSick | Tick | StopRequested


# Effects


@dataclass(frozen=True, slots=True)
class Launch:
    """Make the process; answer with BecameReady and, when it is gone, Exited."""

    name: str
    start: int


@dataclass(frozen=True, slots=True)
class Terminate:
    """Ask the process to end."""

    name: str


@dataclass(frozen=True, slots=True)
class Kill:
    """End the process."""

    name: str


@dataclass(frozen=True, slots=True)
class Restarting:
    """It died and will be started again in `delay` seconds: somebody may want to know."""

    name: str
    reason: str
    delay: float


@dataclass(frozen=True, slots=True)
class GaveUp:
    """It died too often."""

    name: str
    reason: str


Effect = Launch | Terminate | Kill | Restarting | GaveUp


def decide(system: System, event: Event, now: float) -> tuple[System, tuple[Effect, ...]]:
    """The system after `event` at the time `now`, and what must be done about it."""
    turn = _Turn(system, now)
    match event:
        case Begin():
            pass
        case BecameReady(name, start):
            turn.became_ready(name, start)
        case Exited():
            turn.exited(event)
        case FellSick(name, start, reason):
            turn.fell_sick(name, start, reason)
        case Tick():
            turn.tick()
        case StopRequested():
            turn.stop()
    turn.advance()
    return replace(system, processes=turn.processes, stopping=turn.stopping), tuple(turn.effects)


class _Turn:
    """One call of `decide`: a scratch copy that is thrown away."""

    def __init__(self, system: System, now: float) -> None:
        self.processes = dict(system.processes)
        self.policy = system.policy
        self.stopping = system.stopping
        self.now = now
        self.effects: list[Effect] = []

    def became_ready(self, name: str, start: int) -> None:
        process = self.processes[name]
        if process.phase is Phase.STARTING and process.start == start:
            self._enter(process, Phase.READY, was_ready=True)

    def fell_sick(self, name: str, start: int, reason: str) -> None:
        process = self.processes[name]
        if process.phase is Phase.READY and process.start == start:
            self._terminate(process, reason)

    def exited(self, event: Exited) -> None:
        process = self.processes[event.name]
        if process.phase not in LIVE or process.start != event.start:
            return
        if self.stopping:
            self._enter(process, Phase.STOPPED, reason=event.reason)
            return
        # A start that took too long was asked to end: its own words say more than "SIGKILL".
        reason = process.reason if process.phase is Phase.STOPPING else None
        reason = reason or event.reason
        stable = (
            process.phase is Phase.READY and self.now - process.since >= self.policy.stable_after
        )
        failures = 0 if stable else process.failures
        if self._needs_ready(process):
            failures += 1
        limit = self.policy.failures if process.was_ready else self.policy.first_start_failures
        # Somebody waits for a first start: a minute without a word is not waited for again.
        hopeless = event.hopeless or (process.phase is Phase.STOPPING and not process.was_ready)
        if hopeless or failures >= limit:
            times = f" ({failures} times in a row)" if failures > 1 else ""
            self._enter(process, Phase.FAILED, failures=failures, reason=reason + times)
            self.effects.append(GaveUp(event.name, reason + times))
            return
        delay = self.policy.delay(failures)
        self._enter(
            process, Phase.BACKING_OFF, failures=failures, reason=reason, due=self.now + delay
        )
        self.effects.append(Restarting(event.name, reason, delay))

    def tick(self) -> None:
        for process in tuple(self.processes.values()):
            if process.due is None or process.due > self.now:
                continue
            match process.phase:
                case Phase.BACKING_OFF:
                    self._enter(process, Phase.WAITING)
                case Phase.STARTING:
                    reason = f"not ready within {self.policy.start_timeout:.0f} s"
                    self._terminate(process, reason)
                case Phase.STOPPING:
                    self._kill(process)
                case _:
                    self.processes[process.rule.name] = replace(process, due=None)

    def stop(self) -> None:
        if self.stopping:
            for process in tuple(self.processes.values()):
                if process.phase is Phase.STOPPING:
                    self._kill(process)
        self.stopping = True

    def advance(self) -> None:
        """Start what can start; when stopping, stop what nothing live needs any more."""
        for process in tuple(self.processes.values()):
            if not self.stopping:
                if process.phase is Phase.WAITING and self._needs_ready(process):
                    self._launch(process)
            elif process.phase in {Phase.WAITING, Phase.BACKING_OFF}:
                self._enter(process, Phase.STOPPED)
            elif process.phase in {Phase.STARTING, Phase.READY} and not self._needed(process):
                self._terminate(process, None)

    def _launch(self, process: Process) -> None:
        start = process.start + 1
        due = self.now + self.policy.start_timeout
        self._enter(process, Phase.STARTING, start=start, due=due, reason=process.reason)
        self.effects.append(Launch(process.rule.name, start))

    def _terminate(self, process: Process, reason: str | None) -> None:
        due = self.now + process.rule.grace
        self._enter(process, Phase.STOPPING, due=due, reason=reason)
        self.effects.append(Terminate(process.rule.name))

    def _kill(self, process: Process) -> None:
        # Again if need be: a process may be stuck in the kernel, or not quite made yet.
        again = self.now + process.rule.grace
        self.processes[process.rule.name] = replace(process, due=again)
        self.effects.append(Kill(process.rule.name))

    def _needs_ready(self, process: Process) -> bool:
        return all(self.processes[n].phase is Phase.READY for n in process.rule.needs)

    def _needed(self, process: Process) -> bool:
        """Whether something live must end before it."""
        name = process.rule.name
        return any(
            other.phase in LIVE
            and (name in other.rule.needs or other.rule.name in process.rule.stops_after)
            for other in self.processes.values()
        )

    def _enter(
        self,
        process: Process,
        phase: Phase,
        *,
        start: int | None = None,
        failures: int | None = None,
        was_ready: bool | None = None,
        due: float | None = None,
        reason: str | None = None,
    ) -> None:
        self.processes[process.rule.name] = replace(
            process,
            phase=phase,
            since=self.now,
            start=process.start if start is None else start,
            failures=process.failures if failures is None else failures,
            was_ready=process.was_ready if was_ready is None else was_ready,
            due=due,
            reason=process.reason if reason is None else reason,
        )
