"""Brings a task's inputs before its start and takes its outputs away after its end.

Both run in a process of their own, forked from the shim, which can then be stopped like the
task itself; what they say becomes lines of the task's log.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cairn_runtime.copying import MissingError, StorageError
from cairn_runtime.room import Input, Output
from cairn_runtime.storage import open_storage

Say = Callable[[str], None]


def fetch_inputs(folder_of_all: Path, inputs: list[Input], say: Say) -> None:
    """Fills the input folders, which lie in one folder and are called by their numbers.

    Raises:
        StorageError: which input failed, and why.
    """
    for each in inputs:
        folder = folder_of_all / str(each.number)
        folder.mkdir(exist_ok=True)
        try:
            storage, prefix = open_storage(each.url)
            copied = storage.fetch(prefix, folder, each.regex)
        except MissingError as error:
            if each.required:
                raise StorageError(f"input {each.number} ({each.label}): {error}") from error
            say(f"input {each.number} ({each.label}) is empty: the task left no outputs")
            continue
        except StorageError as error:
            raise StorageError(f"input {each.number} ({each.label}): {error}") from error
        for words in copied.skipped:
            say(f"input {each.number}: {words}")
        say(f"input {each.number} ({each.label}): {copied.files} files, {copied.size} bytes")


def persist_outputs(folder: Path, seen_as: str, outputs: list[Output], say: Say) -> None:
    """Copies the output folder to each of its targets; the first failure ends it.

    Raises:
        StorageError: which target failed, and why.
    """
    told: set[str] = set()
    for each in outputs:
        try:
            storage, prefix = open_storage(each.url)
            copied = storage.persist(folder, prefix, each.regex, seen_as)
        except StorageError as error:
            raise StorageError(f"outputs to {each.url}: {error}") from error
        for words in copied.skipped:
            if words not in told:
                told.add(words)
                say(f"outputs: {words}")
