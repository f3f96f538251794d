"""Placements that have come and not begun, and those of their tasks that were stopped meanwhile.

They wait as they came, since a thousand tasks read take ten times the room. A stop does not wait
with them: who is stopped before its placement begins is left out of it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable

from cairn_bridge.cluster import AttemptKey, Identity, identity, keys_of
from cairn_common.events import GroupPlacement
from cairn_common.messaging import Message


class Pending:
    """The placements that wait, first in, first out."""

    def __init__(self) -> None:
        self._messages: deque[Message] = deque()
        self._by_workflow: Counter[str] = Counter()
        self._stopped: dict[str, set[Identity]] = {}

    def __bool__(self) -> bool:
        return bool(self._messages)

    def push(self, message: Message) -> None:
        """A placement has come."""
        self._messages.append(message)
        self._by_workflow[_workflow_of(message)] += 1

    def pop(self) -> tuple[Message, set[Identity]]:
        """The one that waits longest, and who of its workflow was stopped since it came."""
        message = self._messages.popleft()
        workflow = _workflow_of(message)
        stopped = self._stopped.get(workflow, set())
        self._by_workflow[workflow] -= 1
        if not self._by_workflow[workflow]:
            del self._by_workflow[workflow]
            self._stopped.pop(workflow, None)
        return message, stopped

    def stop(self, workflow: str, keys: Iterable[AttemptKey]) -> None:
        """These are not to begin, if they wait here."""
        if workflow in self._by_workflow:
            self._stopped.setdefault(workflow, set()).update(map(identity, keys))


def without(placement: GroupPlacement, stopped: set[Identity]) -> GroupPlacement | None:
    """What is left of a placement, if anything is."""
    if not stopped:
        return placement
    left = [
        task
        for task, key in zip(placement.tasks, keys_of(placement), strict=True)
        if identity(key) not in stopped
    ]
    if len(left) == len(placement.tasks):
        return placement
    return placement.model_copy(update={"tasks": left}) if left else None


def _workflow_of(message: Message) -> str:
    return message.subject.rsplit(".", 1)[1]
