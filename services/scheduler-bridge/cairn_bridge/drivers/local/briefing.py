"""From a placement to what a shim is told: tokens replaced, environment made, paths settled.

A local task shares the machine's network, so every `{{host:...}}` is this machine. Where there
are no namespaces, an injected file cannot stand at its path; it is put into the attempt's
directory, and its path is replaced wherever the specification says it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from cairn_common.events import RestartPolicy, TaskPlacement
from cairn_common.spec.checkpoints import below, homes, normal
from cairn_common.spec.tokens import Token, substitute
from cairn_common.telemetry import attempt_traceparent
from cairn_runtime.room import (
    NAMESPACES,
    Checkpoint,
    File,
    Input,
    Output,
    Restart,
    Room,
    Sight,
    Task,
)

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Local(NamedTuple):
    """What is the same for every task of this cluster. `log_limit` in bytes."""

    store: Path
    tools: Path
    path: str
    isolation: str
    log_limit: int
    hidden: tuple[Path, ...]


def brief(
    room: Room,
    workflow: str,
    task: TaskPlacement,
    traceparent: str | None,
    local: Local,
    *,
    wait: bool,
) -> Task:
    """What the shim of this attempt is to be given."""
    sight = room.sight(local.isolation, str(local.tools))
    say = _Speaker(room, workflow, task, sight, local.isolation)
    environment = {
        "PATH": local.path,
        "HOME": sight.home,
        "LANG": "C.UTF-8",
        "TMPDIR": sight.temporary,
        "CAIRN_WORKFLOW_ID": workflow,
        "CAIRN_TASK": task.name,
        "CAIRN_ATTEMPT": str(task.attempt),
    }
    if traceparent:
        environment["TRACEPARENT"] = attempt_traceparent(traceparent, task.uuid, task.attempt)
    own = {name: say(value) for name, value in task.environment.items()}
    environment |= own
    environment["PATH"] += f":{sight.tools}"
    return Task(
        workflow=workflow,
        name=task.name,
        attempt=task.attempt,
        image=task.image,
        argv=[expand(say(word), environment) for word in (*task.command, *task.args)],
        environment=environment,
        isolation=local.isolation,
        files=[
            File(
                say.place(file.path),
                file.contents if file.base64 else say(file.contents),
                file.base64,
            )
            for file in task.files
        ],
        inputs=[
            Input(
                number,
                say.token_only(source.url) if source.url else _at(local.store, source.location),
                source.task or source.url or "",
                source.regex,
                required=source.url is not None,
            )
            for number, source in enumerate(task.inputs)
        ],
        outputs=[
            *([Output(_at(local.store, task.location))] if task.location else []),
            *(Output(say.token_only(each.url), each.regex) for each in task.outputs),
        ],
        checkpoints=list(_checkpoints(room, task, say, sight)),
        memory=task.resources.memory or 0,
        log_limit=local.log_limit,
        wait=wait,
        hidden=[str(folder) for folder in local.hidden],
        tools=str(local.tools),
        restart=_restart(task.restart),
    )


def _checkpoints(
    room: Room, task: TaskPlacement, say: _Speaker, sight: Sight
) -> Iterator[Checkpoint]:
    paths = [normal(say.token_only(each.path)) for each in task.checkpoints]
    where = homes(paths, sight.output)
    for each, path in zip(task.checkpoints, paths, strict=True):
        root, inner = where[path]
        base = room.output if root == sight.output else room.own(root)
        yield Checkpoint(
            path=say.place(path),
            base=str(base),
            inner=inner,
            url=say.token_only(each.url),
            frequency=each.frequency,
            regex=each.regex,
        )


def _restart(policy: RestartPolicy | None) -> Restart | None:
    if policy is None:
        return None
    return Restart(
        policy.exit_codes, policy.limit, policy.backoff_seconds, policy.backoff_max_seconds
    )


def expand(text: str, environment: dict[str, str]) -> str:
    """Kubernetes' `$(VARIABLE)` in commands: known ones are replaced, `$$` means `$`.

    Specifications written for OSMO rely on it, and were written with its side effect on `$$`.
    """
    if "$" not in text:
        return text
    pieces: list[str] = []
    place = 0
    while (found := text.find("$", place)) >= 0:
        pieces.append(text[place:found])
        following = text[found + 1 : found + 2]
        end = text.find(")", found) if following == "(" else -1
        if following == "$":
            pieces.append("$")
            place = found + 2
        elif end > 0 and (value := environment.get(text[found + 2 : end])) is not None:
            pieces.append(value)
            place = end + 1
        else:
            pieces.append("$")
            place = found + 1
    pieces.append(text[place:])
    return "".join(pieces)


class _Speaker:
    """Says a text as the task should read it."""

    def __init__(
        self, room: Room, workflow: str, task: TaskPlacement, sight: Sight, isolation: str
    ) -> None:
        self._workflow = workflow
        self._task = task
        self._sight = sight
        self._moved: dict[str, str] = {}
        self._written = re.compile("(?!)")
        if isolation != NAMESPACES:
            folders = {normal(self.token_only(each.path)) for each in task.checkpoints}
            moved = {
                *(file.path for file in task.files),
                *(path for path in folders if not below(path, sight.output)),
            }
            self._moved = {path: str(room.own(path)) for path in moved}
        if self._moved:
            # Longest first, or the path of a file would be replaced within a longer one's. A
            # folder's is replaced as a whole: /data is not meant by /database or /big/data. What
            # a token stood for is left as it is.
            patterns = [
                rf"(?<![\w./-]){re.escape(path)}(?![\w.-])" if path in folders else re.escape(path)
                for path in sorted(self._moved, key=len, reverse=True)
            ]
            self._written = re.compile("|".join([re.escape(sight.data), *patterns]))

    def __call__(self, text: str) -> str:
        return self._written.sub(lambda found: self.place(found[0]), self.token_only(text))

    def token_only(self, text: str) -> str:
        """The text with tokens replaced, and paths of files as they are."""
        return substitute(text, self._resolve)

    def place(self, path: str) -> str:
        """Where an injected file or a checkpointed folder is put."""
        return self._moved.get(path, path)

    def _resolve(self, token: Token) -> str | None:
        match token.kind:
            case "output":
                return self._sight.output
            case "workflow_id":
                return self._workflow
            case "host":
                return "127.0.0.1"
            case "input":
                number = self._input_number(token.argument)
                return None if number is None else self._sight.input(number)
        return None

    def _input_number(self, argument: str) -> int | None:
        if argument.isdecimal():
            return int(argument)
        for number, source in enumerate(self._task.inputs):
            if source.task == argument:
                return number
        return None


def _at(store: Path, location: str | None) -> str:
    return f"file://{store}/{(location or '').lstrip('/')}"
