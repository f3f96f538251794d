"""Writes docs/settings.md from the services' settings models.

python deploy/settings_reference.py > docs/settings.md
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

from pydantic import AliasChoices
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from cairn_api.settings import ApiSettings
from cairn_bridge.settings import BridgeSettings
from cairn_common.settings import ServiceSettings
from cairn_engine.settings import EngineSettings
from cairn_logs.settings import LogRelaySettings

SERVICES: Final[dict[str, type[ServiceSettings]]] = {
    "api": ApiSettings,
    "engine": EngineSettings,
    "scheduler-bridge": BridgeSettings,
    "log-relay": LogRelaySettings,
}

_HEAD = """\
# Settings

<!-- Generated: python deploy/settings_reference.py > docs/settings.md -->

A service takes each setting from its environment variable.
Where that is not set, it takes it from the YAML file that `CAIRN_SETTINGS_FILE` names.
Where that says nothing, the default holds.

In the YAML file the setting has its name from the first column.
In an environment variable a list or a map is written as JSON.
Times are in seconds and sizes in bytes.
A service ignores what it does not know, so all services can share one file or environment.
"""


def variables(field: FieldInfo, name: str) -> tuple[str, ...]:
    """The environment variables that a setting comes from, the first that is set wins."""
    alias = field.validation_alias
    if isinstance(alias, AliasChoices):
        return tuple(str(choice) for choice in alias.choices)
    if alias is not None:
        return (str(alias),)
    return (f"CAIRN_{name.upper()}",)


def settings_of(model: type[ServiceSettings]) -> frozenset[str]:
    """All environment variables of Cairn's that a service reads."""
    names = {
        variable
        for name, field in model.model_fields.items()
        for variable in variables(field, name)
        if variable.startswith("CAIRN_")
    }
    return frozenset(names | {"CAIRN_SETTINGS_FILE"})


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        # Not called: the page must be the same on every machine.
        return "found out"
    value: Any = field.default
    if value is None:
        return "unset"
    if isinstance(value, str | Path):
        return f"`{value}`" if str(value) else "empty"
    return f"`{json.dumps(to_jsonable_python(value))}`"


def _choices(annotation: Any) -> Iterator[str]:
    if get_origin(annotation) is Literal:
        yield from map(str, get_args(annotation))
        return
    for part in get_args(annotation):
        yield from _choices(part)


def _meaning(field: FieldInfo) -> str:
    sentences = [field.description] if field.description else []
    if choices := list(_choices(field.annotation)):
        sentences.append("One of " + ", ".join(f"`{choice}`" for choice in choices) + ".")
    return " ".join(sentences).replace("|", "\\|").replace("<", "\\<")


def _table(model: type[ServiceSettings], leave_out: frozenset[str] = frozenset()) -> str:
    lines = ["| name | environment variable | default | description |", "| --- | --- | --- | --- |"]
    for name, field in model.model_fields.items():
        if name not in leave_out:
            named = ", else ".join(f"`{each}`" for each in variables(field, name))
            cells = (f"`{name}`", named, _default(field), _meaning(field))
            lines.append("| " + " | ".join(cells).replace("|  |", "| |") + " |")
    return "\n".join(lines) + "\n"


def document() -> str:
    """The whole page."""
    common = frozenset(ServiceSettings.model_fields)
    parts = [_HEAD, "## All services\n", _table(ServiceSettings)]
    for service, model in SERVICES.items():
        parts += [f"## {service}\n", _table(model, leave_out=common)]
    return "\n".join(parts)


if __name__ == "__main__":
    sys.stdout.write(document())
