"""From plain values to the models, with pydantic's findings retold for the author of the file.

pydantic says `Extra inputs are not permitted`; its author needs to hear that `imagee` is unknown
and that `image` exists. And one wrong field must not hide what is wrong elsewhere: the faulty
fields are left out, and the rest is validated again so that the later checks can look at it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from cairn_common.spec import models as m
from cairn_common.spec.problems import ErrorCode, Location, Problem

_MODEL_OF_KEY: dict[str, type[BaseModel]] = {
    "workflow": m.WorkflowSpec,
    "tasks": m.TaskSpec,
    "groups": m.GroupSpec,
    "timeout": m.TimeoutSpec,
    "topology": m.TopologySpec,
    "files": m.FileSpec,
    "checkpoint": m.CheckpointSpec,
    "kpis": m.KpiSpec,
    "update_dataset": m.DatasetUpdateTarget,
}
_WHERE: dict[str, type[BaseModel]] = {
    "workflow": m.WorkflowSpec,
    "workflow.groups[]": m.GroupSpec,
    "workflow.tasks[]": m.TaskSpec,
    "workflow.resources.<name>": m.ResourceSpec,
    "workflow.timeout": m.TimeoutSpec,
}
_NOUNS = {
    "string_type": "a text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}
# Valid stand-ins for a required field that is missing or wrong, so that other checks can go on.
_STAND_INS: dict[str, Any] = {
    "image": "unknown",
    "command": ("unknown",),
    "tasks": (),
    "path": "/unknown",
    "contents": "",
}


@dataclass(slots=True)
class Structure:
    """What could be read of a file.

    `spec` is None when too little was right. `damaged` holds the locations of models of which a
    field was left out, and which: checks that need that field keep silent.
    """

    spec: m.WorkflowSpec | None
    problems: list[Problem] = field(default_factory=list)
    damaged: dict[Location, set[str]] = field(default_factory=dict)


def read_structure(data: Mapping[str, Any], *, file: str, max_problems: int) -> Structure:
    """Validate `{"workflow": ...}`; every problem has a location but no position yet."""
    try:
        return Structure(m.WorkflowFile.model_validate(data).workflow)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=True, include_context=True)
    problems: list[Problem] = []
    damaged: dict[Location, set[str]] = {}
    for detail in details:
        location = _file_location(detail["loc"])
        if len(problems) < max_problems:
            problems.append(_retell(detail, location, data, file))
        model_location, name = _model_field(location)
        damaged.setdefault(model_location, set()).add(name)
    if len(details) > max_problems:
        problems.append(Problem(f"and {len(details) - max_problems:,} more problems", file=file))
    try:
        spec = m.WorkflowFile.model_validate(_without(data, damaged)).workflow
    except (ValidationError, TypeError, AttributeError, LookupError):
        spec = None
    return Structure(spec, problems, damaged)


def _file_location(loc: Iterable[int | str]) -> Location:
    """pydantic's location without union tags (`<url>`) and its marks such as `[key]`."""
    return tuple(
        step
        for step in loc
        if isinstance(step, int)
        or not (step.startswith("<") or step in {"[key]", "str", "dict[str,str]"})
    )


def _model_field(location: Location) -> tuple[Location, str]:
    """Split a location into that of the closest task, group or workflow, and the field below it."""
    for i in range(len(location) - 1, 0, -1):
        if isinstance(location[i - 1], int) and location[i - 2] in {"tasks", "groups"}:
            return location[:i], str(location[i])
    if location[:2] == ("workflow", "resources") and len(location) > 3:
        return location[:3], str(location[3])
    return location[:1], str(location[1]) if len(location) > 1 else ""


def _without(data: Mapping[str, Any], damaged: dict[Location, set[str]]) -> dict[str, Any]:
    """A copy of the data without the damaged fields; required ones get a harmless stand-in."""
    copy: dict[str, Any] = {"workflow": data.get("workflow")}
    copied: dict[Location, Any] = {(): copy}
    for number, (location, names) in enumerate(damaged.items()):
        target: Any = copy
        for depth, step in enumerate(location, start=1):
            here = location[:depth]
            if here not in copied:
                value = target[step]
                copied[here] = target[step] = (
                    dict(value) if isinstance(value, Mapping) else list(value)
                )
            target = copied[here]
        for name in names:
            target.pop(name, None)
            if name == "name":
                target[name] = f"unnamed-{number}-x"
            elif name in _STAND_INS and not (name == "tasks" and len(location) == 1):
                target[name] = _STAND_INS[name]
    return copy


def _retell(detail: ErrorDetails, location: Location, data: Any, file: str) -> Problem:
    kind, given = detail["type"], detail["input"]
    name = str(location[-1]) if location else ""
    message, hint, code, on_key = detail["msg"], "", ErrorCode.USAGE, False
    if kind == "extra_forbidden":
        message, hint = f'unknown field "{name}"', _suggest(name, location)
        on_key = True
    elif kind == "missing":
        message = f'the required field "{name}" is missing'
    elif kind == "string_pattern_mismatch":
        message = f"{_show(given)} is not a valid name"
        hint = "Names have letters, digits, - and _; they start with a letter, not end with - or _."
    elif kind == "value_error":
        message = str(detail.get("ctx", {}).get("error", message))
        code = ErrorCode.USER
        message, hint = _value_error(message, location, data)
    elif kind in {"input_kind", "output_kind"}:
        hint = _kind_hint(kind, given)
    elif kind == "literal_error" and name == "downloadType":
        message = f"uses invalid downloadType {_show(given)}. Valid types are: ['download']"
    elif kind in _NOUNS:
        given_text = "is empty" if given is None else f"not {_show(given)}"
        message = f"should be {_NOUNS[kind]}, {given_text}"
        hint = _type_hint(kind, name, given)
    return Problem(message, location, code, hint, file, on_key=on_key)


def _value_error(message: str, location: Location, data: Any) -> tuple[str, str]:
    hint = ""
    if len(location) >= 2 and location[-2] == "exitActions":
        task = _value_at(data, location[:-2])
        name = task.get("name", "") if isinstance(task, Mapping) else ""
        codes = _value_at(data, location)
        hint = message[0].upper() + message[1:] + "."
        message = f"Invalid exit codes {codes} for action {location[-1]} for task {name}."
    elif message.startswith("Cannot recognize duration"):
        hint = "One number with one unit: write 10h5m as 605m."
    elif "invalid unit" in message:
        hint = "Units are B, Ki, Mi, Gi and Ti (K, M, G and T mean the same)."
    return message, hint


def _kind_hint(kind: str, given: Any) -> str:
    kinds = m.INPUT_KINDS if kind == "input_kind" else m.OUTPUT_KINDS
    if isinstance(given, Mapping):
        present = [k for k in kinds if k in given]
        if len(present) > 1:
            return f"It has {' and '.join(present)}: make each an entry of its own."
        for key in given:
            if near := difflib.get_close_matches(str(key), kinds, 1):
                return f'did you mean "{near[0]}" instead of "{key}"?'
    elif isinstance(given, str):
        return f"Write `- {kinds[0]}: {given[:60]}`."
    return ""


def _type_hint(kind: str, name: str, given: Any) -> str:
    hint = ""
    if given is None:
        hint = "Give it a value or remove the line."
    elif kind == "int_from_float":
        hint = "Fractions are not possible here."
    elif kind == "string_type" and isinstance(given, bool):
        hint = f'Quote it: "{str(given).lower()}".'
    elif kind == "string_type" and isinstance(given, Mapping):
        hint = "Quote the text: `: ` inside it was read as a mapping."
    elif kind == "tuple_type" and isinstance(given, Mapping):
        hint = "Start each entry with `- `."
    elif kind == "tuple_type" and name in {"command", "args"} and isinstance(given, str):
        hint = f'Write a list of words: {name}: ["bash", "-c", "..."].'
    return hint


def _suggest(name: str, location: Location) -> str:
    """The nearest known field, else the place where a field of this name belongs."""
    known = field_names(_model_at(location[:-1]))
    if near := difflib.get_close_matches(name, known, 1, 0.6):
        return f'did you mean "{near[0]}"?'
    folded = {k.lower().replace("_", ""): k for k in known}
    if same := folded.get(name.lower().replace("_", "").replace("-", "")):
        return f'did you mean "{same}"?'
    for where, model in _WHERE.items():
        if name in field_names(model):
            return f"{name} belongs in {where}."
    return f"Known here: {', '.join(sorted(known))}." if known else ""


def field_names(model: type[BaseModel] | None) -> list[str]:
    """The fields of a model as a file writes them."""
    if model is None:
        return []
    return [info.alias or name for name, info in model.model_fields.items()]


def _model_at(location: Location) -> type[BaseModel] | None:
    keys = [step for step in location if isinstance(step, str)]
    if not keys:
        return m.WorkflowFile
    key, outer = keys[-1], keys[-2] if len(keys) > 1 else ""
    if outer == "resources":
        return m.ResourceSpec
    if key == "dataset":
        return m.DatasetSource if outer == "inputs" else m.DatasetTarget
    if key == "inputs":
        return m.UrlInput
    if key == "outputs":
        return m.UrlOutput
    return _MODEL_OF_KEY.get(key)


def _value_at(data: Any, location: Location) -> Any:
    for step in location:
        try:
            data = data[step]
        except (LookupError, TypeError):
            return None
    return data


def _show(value: Any) -> str:
    """A short description of a value: scalars as they are, collections by kind."""
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."
