"""The two ways to start: in the foreground until Ctrl-C, and detached until `cairn down`."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys

from cairn_standalone import logs
from cairn_standalone.display import Display, Reporter, pass_on
from cairn_standalone.home import Busy, HomeError
from cairn_standalone.supervisor import Settings, Supervisor


def in_foreground(settings: Settings, *, verbose: bool, report_fd: int | None) -> int:
    """Run the system in this process until it is stopped; returns the exit code.

    `report_fd` is where the process that waits for a detached start listens (see `Reporter`).

    Raises:
        Busy: another supervisor holds the home.
    """
    return asyncio.run(_up(settings, verbose=verbose, report_fd=report_fd))


async def _up(settings: Settings, *, verbose: bool, report_fd: int | None) -> int:
    log = settings.home.log_file("supervisor")
    watcher = Display(quiet=verbose) if report_fd is None else Reporter(report_fd, log)
    companions = [asyncio.create_task(_redraw(watcher))]
    if verbose and isinstance(watcher, Display):
        companions.append(asyncio.create_task(_follow(settings, watcher)))
    try:
        return 0 if await Supervisor(settings, watcher).run() else 1
    except Busy:
        raise
    except (HomeError, OSError) as error:
        watcher.error(str(error))
        return 1
    finally:
        for companion in companions:
            companion.cancel()
        await asyncio.gather(*companions, return_exceptions=True)
        watcher.close()


async def _redraw(watcher: Display | Reporter) -> None:
    while True:
        watcher.refresh()
        await asyncio.sleep(0.1)


async def _follow(settings: Settings, display: Display) -> None:
    names = ("nats", "postgres", *(service.name for service in settings.services))
    follower = logs.Follower((name, settings.home.log_file(name)) for name in names)
    try:
        while True:
            for name, line in follower.read():
                display.log_line(name, line)
            await asyncio.sleep(0.1)
    finally:
        for name, line in follower.read():
            display.log_line(name, line)


def detached(settings: Settings) -> int:
    """Start a supervisor in a session of its own, show its start; returns the exit code."""
    home = settings.home
    display = Display()
    try:
        home.create()
    except HomeError as error:
        display.error(str(error))
        return 1
    read_end, write_end = os.pipe()
    command = [sys.executable, "-P", "-m", "cairn_standalone", "up", "--home", str(home.root)]
    command += ["--report-fd", str(write_end)]
    if settings.api_port:
        command += ["--port", str(settings.api_port)]
    if settings.nats_monitor_port:
        command += ["--nats-monitor-port", str(settings.nats_monitor_port)]
    command += ["--engines", str(settings.engines)]
    log = home.log_file("supervisor")
    log_start = logs.size(log)
    output = logs.open_log(log)
    try:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            pass_fds=(write_end,),
            start_new_session=True,
        )
    finally:
        os.close(output)
        os.close(write_end)
    try:
        with os.fdopen(read_end, "rb", buffering=0) as reports:
            if _show_reports(reports.fileno(), display):
                return 0
        code = child.wait()
        if code == 0 or not display.complained:
            # It found that somebody else was faster; or it died without a report.
            words = sys.stderr if code else sys.stdout
            words.write("\n".join(logs.tail(log, 20, log_start)) + "\n")
        return 1 if code else 0
    except KeyboardInterrupt:
        child.send_signal(signal.SIGTERM)
        child.wait()
        return 130
    finally:
        display.close()


def _show_reports(fd: int, display: Display) -> bool:
    """Show what a `Reporter` says. Returns True when it is ready, False when it will not be."""
    rest = b""
    while True:
        readable, _, _ = select.select([fd], [], [], 0.1)
        display.refresh()
        if not readable:
            continue
        data = os.read(fd, 65536)
        if not data:
            return False
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            for succeeded in pass_on(line, display):
                return succeeded
