"""Copies folders of a running task to storage, again and again, and once more at its end.

Source: OSMO user guide, "Checkpointing". What it leaves open is decided here, for every cluster:

- An entry's first turn begins `frequency` after the command has started (in a pod, after the
  sidecar has), each further one `frequency` after the end of the one before, and at least
  `SHORTEST` after it. Entries have a thread each: a slow one holds up no other, and none overlaps
  with itself.
- A turn copies what is not at the URL already (see `copying`), and what it brings appears there
  when all of it has been copied, file by file. A folder that is missing or empty is "nothing
  yet", said once. What the task deletes stays at the URL.
- A turn that fails is said in the log, and the next one tries again. Only the last one counts:
  its failure fails an attempt that ran to its end, as outputs do that cannot be kept. One that
  was stopped ends as it was told to.
- The last turn comes after the end of the command, however that came: a stop, an eviction or a
  preemption is what checkpoints are for. There it has what is left of the grace period, and at
  least `LEAST_GRACE`, as the kubelet gives a sidecar; with no grace at all there is none. What
  does not come to its end in time changes nothing at the URL.
- It comes before the outputs: those are of use only to an attempt that succeeds, while the next
  attempt begins with this.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cairn_runtime.copying import MissingError, StorageError, open_folder
from cairn_runtime.room import Checkpoint
from cairn_runtime.storage import open_storage
from cairn_runtime.transfer import Say

SHORTEST = 1.0  # seconds; an entry without a pause would do nothing but look at its files
LEAST_GRACE = 2.0  # seconds; `minimumGracePeriodInSeconds` of the kubelet


@dataclass(slots=True)
class Turns:
    """When the turns of one entry begin. All in seconds of one clock.

    `ended` is when the last one ended; at first, when the command started.
    """

    frequency: float
    ended: float

    def wait(self, now: float) -> float:
        """How long from now until the next turn begins; 0 when it is due."""
        return max(0.0, self.ended + max(self.frequency, SHORTEST) - now)

    def end(self, now: float) -> None:
        """A turn has ended."""
        self.ended = now


class Checkpointer:
    """Serves all entries of one task: `start`, `finish`, `join`, each once, in this order."""

    def __init__(self, entries: Sequence[Checkpoint], say: Say) -> None:
        self._say_it = say
        self._saying = threading.Lock()
        self._over = threading.Event()
        self._abandoned = threading.Event()
        self._failures: list[str] = []
        served = [_Entry(each, self._say, self._check) for each in entries]
        self._threads = [
            threading.Thread(target=self._serve, args=(entry,), daemon=True) for entry in served
        ]

    def start(self) -> None:
        """The command has started."""
        for thread in self._threads:
            thread.start()

    def finish(self, within: float | None = None) -> None:
        """The command has ended: every entry has its last turn, in `within` seconds if given.

        May be called again with less time; with none, what is going on is abandoned at once.
        """
        if within is not None and within <= 0:
            self._abandoned.set()
        self._over.set()
        if within is not None:
            timer = threading.Timer(within, self._abandoned.set)
            timer.daemon = True
            timer.start()

    def join(self) -> None:
        """Waits for the last turns.

        Raises:
            StorageError: one of them failed.
        """
        for thread in self._threads:
            thread.join()
        if self._failures:
            raise StorageError("; ".join(self._failures))

    def _serve(self, entry: _Entry) -> None:
        turns = Turns(entry.frequency, time.monotonic())
        while not self._over.wait(turns.wait(time.monotonic())):
            if failure := entry.turn():
                self._say(f"{failure}; it is tried again")
            turns.end(time.monotonic())
        if failure := entry.turn():
            self._failures.append(f"the last {failure}")

    def _say(self, words: str) -> None:
        with self._saying:
            self._say_it(words)

    def _check(self) -> None:
        if self._abandoned.is_set():
            raise StorageError("it did not come to its end in the grace period")


def attend(entries: Sequence[Checkpoint], say: Say, orders: int) -> None:
    """Serves the entries of a command that has started, until it is told of the end.

    `orders` is a descriptor with lines to read: `last`, or `last <seconds>` for `within`.

    Raises:
        StorageError: a last turn failed.
    """
    checkpointer = Checkpointer(entries, say)
    checkpointer.start()

    def obey() -> None:
        with open(orders, encoding="ascii") as lines:
            for line in lines:
                seconds = line.partition(" ")[2].strip()
                checkpointer.finish(float(seconds) if seconds else None)

    threading.Thread(target=obey, daemon=True).start()
    checkpointer.join()


class _Entry:
    """One folder and its URL."""

    def __init__(self, entry: Checkpoint, say: Say, check: Callable[[], None]) -> None:
        self.frequency = entry.frequency
        self._entry = entry
        self._say = say
        self._check = check
        self._told: set[str] = set()

    def turn(self) -> str | None:
        """Copies what there is; returns why it failed."""
        path, url = self._entry.path, self._entry.url
        try:
            self._copy()
        except MissingError:
            self._say_once(f"checkpoint of {path}: there is nothing yet")
        except Exception as error:
            # A thread that died of anything would leave its folder uncopied without a word.
            return f"checkpoint of {path} to {url} failed: {error}"
        return None

    def _copy(self) -> None:
        entry = self._entry
        folder = open_folder(Path(entry.base), entry.inner)
        try:
            with os.scandir(folder) as entries:
                if next(entries, None) is None:
                    raise MissingError(f"{entry.path} is empty")
            began = time.monotonic()
            self._say(f"checkpointing {entry.path} to {entry.url}")
            storage, prefix = open_storage(entry.url)
            copied = storage.update(folder, prefix, entry.regex, entry.path, self._check)
        finally:
            os.close(folder)
        for words in copied.skipped:
            self._say_once(f"checkpoint of {entry.path}: {words}")
        self._say(
            f"checkpoint of {entry.path} finished: {copied.files} files, {copied.size} bytes,"
            f" {copied.unchanged} files unchanged, {time.monotonic() - began:.1f} s"
        )

    def _say_once(self, words: str) -> None:
        if words not in self._told:
            self._told.add(words)
            self._say(words)
