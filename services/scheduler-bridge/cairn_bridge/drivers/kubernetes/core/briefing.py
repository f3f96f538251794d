"""What a task's texts say once it is known where it runs: tokens replaced.

Source: OSMO user guide, special tokens. Names of peers are those of the group's headless Service
and do not change with attempts.
"""

from __future__ import annotations

from collections.abc import Callable

from cairn_bridge.drivers.kubernetes.core.names import group_name, label
from cairn_bridge.drivers.kubernetes.core.site import Site
from cairn_common.events import GroupPlacement, TaskPlacement
from cairn_common.spec.tokens import Token, find_tokens, substitute

DATA = "/osmo/data"
OUTPUT = f"{DATA}/output"
INPUT = f"{DATA}/input"


def host_of(site: Site, group_uuid: str, task: str) -> str:
    """The DNS name of a group's task."""
    return f"{label(task)}.{group_name(group_uuid)}.{site.namespace}.svc.{site.domain}"


def speaker(site: Site, group: GroupPlacement, task: TaskPlacement) -> Callable[[str], str]:
    """Says a text as the task should read it."""

    def resolve(token: Token) -> str | None:
        match token.kind:
            case "output":
                return OUTPUT
            case "workflow_id":
                return group.workflow
            case "host":
                return host_of(site, group.group_uuid, token.argument)
            case "input":
                number = _input_number(task, token.argument)
                return None if number is None else f"{INPUT}/{number}"
        return None

    return lambda text: substitute(text, resolve)


def names_hosts(task: TaskPlacement) -> bool:
    """Whether a task speaks of any host of its group."""
    texts = [
        *task.command,
        *task.args,
        *task.environment.values(),
        *(file.contents for file in task.files if not file.base64),
    ]
    return any(token.kind == "host" for text in texts for token in find_tokens(text))


def _input_number(task: TaskPlacement, argument: str) -> int | None:
    if argument.isdecimal():
        return int(argument)
    for number, source in enumerate(task.inputs):
        if source.task == argument:
            return number
    return None
