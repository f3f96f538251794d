"""Runs a standalone system: carries out what `core.decide` says and tells it what came of it.

One supervisor holds one home. It runs in the main thread (see `process.py`) until it is asked to
stop by a signal, or until the start fails. Whoever shows it to people passes a `Watcher`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import asyncpg

from cairn_standalone import logs, state
from cairn_standalone.core import (
    BecameReady,
    Begin,
    Effect,
    Event,
    Exited,
    FellSick,
    GaveUp,
    Kill,
    Launch,
    Policy,
    Process,
    Restarting,
    StopRequested,
    System,
    Terminate,
    Tick,
    decide,
)
from cairn_standalone.home import Home, HomeError, choose_ports
from cairn_standalone.lifeline import Lifeline
from cairn_standalone.parts import SERVICES, Part, Service, Surroundings, service_settings, table
from cairn_standalone.process import Running, describe_exit

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_STRAYS_PATIENCE = 12.0
"""Seconds for what a killed supervisor left to end by itself; more than a service's grace."""
_TASKS_PATIENCE = 10.0
"""Seconds for the descendants that watch the lifeline."""
_ROTATE_EVERY = 5.0
_TAIL_LINES = 20


@dataclass(frozen=True, slots=True)
class Settings:
    """What one run of the supervisor is asked to do."""

    home: Home
    api_port: int | None = None
    nats_monitor_port: int | None = None
    services: Sequence[Service] = SERVICES
    policy: Policy = field(default_factory=Policy)

    @property
    def engines(self) -> int:
        """How many of the services are engines."""
        return sum(service.module == "cairn_engine" for service in self.services)


@dataclass(frozen=True, slots=True)
class Failure:
    """A part that gave up, with the end of its log."""

    name: str
    reason: str
    log: Path
    tail: tuple[str, ...]


class Watcher(Protocol):
    """Who looks on. Each call returns at once."""

    def changed(self, processes: Sequence[Process], now: float) -> None:
        """Something changed; `now` is on the clock of `Process.since`."""

    def ready(self, url: str) -> None:
        """All parts are ready, for the first time in this run."""

    def restarting(self, name: str, reason: str, delay: float) -> None:
        """A part died and starts again in `delay` seconds."""

    def gave_up(self, failure: Failure) -> None:
        """A part will not be started again. Before `ready`: the whole system stops."""

    def stopping(self) -> None:
        """The system was asked to end."""


class Supervisor:
    """One run of a standalone system."""

    def __init__(self, settings: Settings, watcher: Watcher) -> None:
        self._settings = settings
        self._watcher = watcher
        self._home = settings.home
        self._loop = asyncio.get_running_loop()
        self._clock: Callable[[], float] = self._loop.time
        self._started_at = time.time()
        self._lifeline = Lifeline()
        self._running: dict[str, Running] = {}
        self._started: dict[str, float] = {}
        self._log_starts: dict[str, int] = {}
        self._starts: dict[str, asyncio.Task[None]] = {}
        self._watches: dict[str, asyncio.Task[None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._was_ready = False

    async def run(self) -> bool:
        """Start the system, keep it, stop it. Returns whether it ever became ready.

        Raises:
            Busy: another supervisor holds the home.
            HomeError: the home or the machine cannot be used.
        """
        with contextlib.ExitStack() as stack:
            stack.callback(self._lifeline.close)
            self._home.create()
            stack.enter_context(self._home.locked())
            before = state.load(self._home)
            await asyncio.to_thread(state.end_strays, self._home, _STRAYS_PATIENCE)
            memory = choose_ports(self._home, self._settings.api_port)
            sockets = self._home.open_sockets(before.sockets if before else None)
            stack.callback(self._home.close_sockets, sockets)
            self._around = Surroundings(
                self._home,
                memory,
                sockets,
                self._lifeline.read_end,
                api_port_given=self._settings.api_port is not None,
                nats_monitor_port=self._settings.nats_monitor_port,
            )
            parts = table(self._around, self._settings.services)
            self._parts: dict[str, Part] = {part.rule.name: part for part in parts}
            self._system = System.of([part.rule for part in parts], self._settings.policy)
            stack.callback(self._home.state_file.unlink, missing_ok=True)
            stack.enter_context(self._signals())
            rotation = asyncio.create_task(self._rotate())
            try:
                self._apply(Begin())
                await self._over
            finally:
                rotation.cancel()
                for watch in self._watches.values():
                    watch.cancel()
                going = (*self._starts.values(), *self._watches.values())
                await asyncio.gather(rotation, *going, return_exceptions=True)
            await self._lifeline.cut_and_wait(_TASKS_PATIENCE)
        return self._was_ready

    def stop(self) -> None:
        """Ask for the end; the second time: at once."""
        if not self._system.stopping:
            self._watcher.stopping()
        self._apply(StopRequested())

    def service_settings(self) -> dict[str, str]:
        """What every service is told in its environment; known once the run has begun."""
        return service_settings(self._around)

    def _apply(self, event: Event) -> None:
        """One turn: decide, carry out, tell."""
        now = self._clock()
        self._system, effects = decide(self._system, event, now)
        for effect in effects:
            self._carry_out(effect)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self._system.next_due
        if due is not None:
            self._timer = self._loop.call_at(due, self._apply, Tick())
        self._tell(now)
        if self._system.stopping and self._system.all_stopped:
            self._finish(None)

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case Launch(name, start):
                task = asyncio.create_task(self._start(name, start), name=f"start {name}")
                task.add_done_callback(self._start_done)
                self._starts[name] = task
            case Terminate(name):
                if name in self._running:
                    self._running[name].ask_to_end()
                elif name in self._starts:
                    self._starts[name].cancel()
            case Kill(name):
                if name in self._running:
                    self._running[name].kill()
            case Restarting(name, reason, delay):
                self._watcher.restarting(name, reason, delay)
            case GaveUp(name, reason):
                self._watcher.gave_up(self._failure(name, reason))
                if not self._was_ready and not self._system.stopping:
                    self._loop.call_soon(self._stop_after_failure)

    def _start_done(self, task: asyncio.Task[None]) -> None:
        """A mistake in our own code ends the run: the parts die with us, nothing hangs."""
        if not task.cancelled() and task.exception() is not None:
            self._finish(task.exception())

    def _finish(self, error: BaseException | None) -> None:
        if self._over.done():
            return
        if error is None:
            self._over.set_result(None)
        else:
            self._over.set_exception(error)

    def _stop_after_failure(self) -> None:
        if not self._system.stopping:
            self._apply(StopRequested())

    async def _start(self, name: str, start: int) -> None:
        """Make the process of a part and wait until it is ready, it ends, or nobody wants it."""
        part = self._parts[name]
        reason, hopeless = "the start was called off", False
        with contextlib.ExitStack() as stack:
            try:
                log = self._home.log_file(name)
                self._log_starts[name] = logs.size(log)
                program = await part.prepare(stack)
                self._running[name] = Running(
                    program, log, lambda code: self._ended(name, start, describe_exit(code))
                )
                self._started[name] = time.time()
                self._tell(self._clock())
                await part.wait_until_ready()
                self._loop.call_soon(self._apply, BecameReady(name, start))
                watch = asyncio.create_task(self._watch(name, start), name=f"watch {name}")
                watch.add_done_callback(self._start_done)
                self._watches[name] = watch
                return
            except asyncio.CancelledError:
                pass
            except HomeError as error:
                reason, hopeless = str(error), True
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                reason = str(error) or type(error).__name__
        running = self._running.get(name)
        if running is None:
            self._loop.call_soon(self._apply, Exited(name, start, reason, hopeless))
        else:
            # It runs but cannot be asked whether it is ready; its end tells the rest.
            running.kill()

    async def _watch(self, name: str, start: int) -> None:
        """Tell when a part that is ready cannot work any more."""
        reason = await self._parts[name].wait_until_sick()
        self._loop.call_soon(self._apply, FellSick(name, start, reason))

    def _ended(self, name: str, start: int, reason: str) -> None:
        self._running.pop(name, None)
        self._started.pop(name, None)
        for tasks in (self._starts, self._watches):
            waiting = tasks.pop(name, None)
            if waiting is not None:
                waiting.cancel()
        self._apply(Exited(name, start, reason))

    def _failure(self, name: str, reason: str) -> Failure:
        log = self._home.log_file(name)
        start = self._log_starts.get(name, 0)
        return Failure(name, reason, log, tuple(logs.tail(log, _TAIL_LINES, start)))

    def _tell(self, now: float) -> None:
        processes = tuple(self._system.processes.values())
        self._watcher.changed(processes, now)
        state.store(self._home, self._state(processes))
        if self._system.all_ready and not self._was_ready:
            self._was_ready = True
            self._watcher.ready(self._around.api_url)

    def _state(self, processes: Sequence[Process]) -> state.State:
        identity = state.Identity.of(os.getpid())
        if identity is None:
            raise RuntimeError("this process is not in /proc")
        return state.State(
            supervisor=identity,
            phase=self._phase(),
            url=self._around.api_url,
            started_at=self._started_at,
            sockets=str(self._around.sockets),
            parts=tuple(
                state.PartState(
                    name=process.rule.name,
                    phase=process.phase,
                    process=self._identity(process.rule.name),
                    started_at=self._started.get(process.rule.name),
                    restarts=process.restarts,
                    last_exit=process.reason,
                    log=str(self._home.log_file(process.rule.name)),
                )
                for process in processes
            ),
        )

    def _identity(self, name: str) -> state.Identity | None:
        running = self._running.get(name)
        return running.identity if running else None

    def _phase(self) -> str:
        if self._system.stopping:
            return "stopping"
        if self._system.all_ready:
            return "ready"
        return "degraded" if self._was_ready else "starting"

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        for number in STOP_SIGNALS:
            self._loop.add_signal_handler(number, self.stop)
        try:
            yield
        finally:
            for number in STOP_SIGNALS:
                self._loop.remove_signal_handler(number)

    async def _rotate(self) -> None:
        files = [self._home.log_file(name) for name in (*self._parts, "supervisor")]
        while True:
            for file in files:
                logs.rotate(file)
            await asyncio.sleep(_ROTATE_EVERY)
