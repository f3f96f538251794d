"""YAML text to plain values within bounds, and positions for the places that need one.

PyYAML's composer builds a Node tree with two marks per node, which takes some 19 s and 1 GB for
100,000 tasks; and its constructor follows aliases without a bound. Here libyaml's event stream is
folded straight into dicts and lists, counting nodes as if every alias were written out, so that
an alias bomb is refused before it exists. Values carry no positions: `positions.locate` runs the
events once more, only for the paths that some problem names.

The values are those of PyYAML's SafeLoader, except that dates stay text (the language has none).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import yaml
from yaml.constructor import SafeConstructor
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from cairn_common.spec.limits import Limits
from cairn_common.spec.problems import ErrorCode, Problem, SpecError

_PREFIX = "tag:yaml.org,2002:"
_RESOLVERS: dict[str, list[tuple[str, Any]]] = {
    first: [(tag, regexp) for tag, regexp in entries if tag != _PREFIX + "timestamp"]
    for first, entries in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_COLLECTION_TAGS = frozenset({None, "!", _PREFIX + "map", _PREFIX + "seq"})
# Python's own bound on the digits of an int is 4300.
_MAX_NUMBER = 4000


@dataclass(slots=True)
class Document:
    """The value of a document, and what its author should know about it."""

    value: Any
    warnings: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Frame:
    """A collection under construction. `key` is the pending key of a mapping."""

    items: Any
    anchor: str | None
    start_nodes: int
    is_mapping: bool
    height: int = 0
    has_key: bool = False
    key: Any = None
    key_event: Any = None
    merges: list[Any] = field(default_factory=list)


class _Anchored(NamedTuple):
    value: Any
    nodes: int
    height: int


class _MergeKey:
    """Marks the key `<<` while its value is awaited."""


_MERGE_KEY = _MergeKey()


def parse_yaml(text: str, *, file: str = "workflow.yaml", limits: Limits | None = None) -> Document:
    """Read the single document of a text.

    Raises SpecError, with line and column, for bad syntax, several documents, tags beyond plain
    data, keys that are not scalars, and for anything beyond the limits.
    """
    reader = _Reader(file, limits or Limits())
    try:
        return reader.read(yaml.parse(text, Loader=yaml.CSafeLoader))
    except yaml.MarkedYAMLError as error:
        raise SpecError([_syntax_problem(error, text, file)]) from None
    except (yaml.YAMLError, UnicodeEncodeError) as error:
        raise SpecError([_unreadable(error, text, file)]) from None


class _Reader:
    """Folds events into values. One instance reads one document."""

    def __init__(self, file: str, limits: Limits) -> None:
        self._file = file
        self._limits = limits
        self._nodes = 0
        self._anchors: dict[str, _Anchored | None] = {}
        self._warnings: list[str] = []
        constructor = SafeConstructor()
        self._constructors: dict[str, Callable[[yaml.ScalarNode], Any]] = {
            "bool": constructor.construct_yaml_bool,
            "int": constructor.construct_yaml_int,
            "float": constructor.construct_yaml_float,
        }

    def read(self, events: Iterable[Any]) -> Document:
        stack: list[_Frame] = []
        root: Any = None
        documents = 0
        for event in events:
            kind = type(event)
            height = 0
            if kind is ScalarEvent:
                value = self._scalar(event)
                self._nodes += 1
                if event.anchor:
                    self._anchors[event.anchor] = _Anchored(value, 1, 0)
            elif kind is MappingStartEvent or kind is SequenceStartEvent:
                stack.append(self._open(event, kind is MappingStartEvent))
                self._check_depth(len(stack), event)
                continue
            elif kind is MappingEndEvent or kind is SequenceEndEvent:
                frame = stack.pop()
                value, height = self._close(frame), frame.height + 1
            elif kind is AliasEvent:
                value, height = self._alias(event)
                self._check_depth(len(stack) + height, event)
            else:
                if kind is DocumentStartEvent:
                    documents += 1
                    self._check_single(documents, event)
                continue
            if self._nodes > self._limits.max_nodes:
                many = f"{self._limits.max_nodes:,} nodes once aliases are expanded"
                raise self._refuse(event, f"the document has more than {many}")
            if stack:
                self._add(stack[-1], value, height, event)
            else:
                root = value
        return Document(root, self._warnings)

    def _check_depth(self, depth: int, event: Any) -> None:
        if depth > self._limits.max_depth:
            raise self._refuse(event, f"nested deeper than {self._limits.max_depth} levels")

    def _check_single(self, documents: int, event: Any) -> None:
        if documents > 1:
            hint = "A workflow file holds one document: remove the line `---`."
            raise self._refuse(event, "a second document starts here", hint=hint)

    def _open(self, event: Any, is_mapping: bool) -> _Frame:
        if event.tag not in _COLLECTION_TAGS:
            raise self._refuse(event, f"the tag {event.tag} is not allowed")
        self._nodes += 1
        if event.anchor:
            self._anchors[event.anchor] = None
        return _Frame({} if is_mapping else [], event.anchor, self._nodes, is_mapping)

    def _close(self, frame: _Frame) -> Any:
        # Keys of the mapping itself win over merged ones, and an earlier merge over a later one.
        for merged in frame.merges:
            for key, value in merged.items():
                frame.items.setdefault(key, value)
        if frame.anchor:
            nodes = self._nodes - frame.start_nodes + 1
            self._anchors[frame.anchor] = _Anchored(frame.items, nodes, frame.height + 1)
        return frame.items

    def _alias(self, event: Any) -> tuple[Any, int]:
        if event.anchor not in self._anchors:
            raise self._refuse(event, f"found undefined alias {event.anchor!r}")
        target = self._anchors[event.anchor]
        if target is None:
            raise self._refuse(event, f"the alias {event.anchor!r} contains itself")
        self._nodes += target.nodes
        return target.value, target.height

    def _add(self, frame: _Frame, value: Any, height: int, event: Any) -> None:
        frame.height = max(frame.height, height)
        if value is _MERGE_KEY and (not frame.is_mapping or frame.has_key):
            value = "<<"
        if not frame.is_mapping:
            frame.items.append(value)
        elif not frame.has_key:
            frame.has_key, frame.key, frame.key_event = True, value, event
            if isinstance(value, (dict, list)):
                raise self._refuse(
                    event,
                    "a list or mapping cannot be a key",
                    hint="A value that starts with {{ must be quoted, unless it is a template.",
                )
        elif frame.key is _MERGE_KEY:
            frame.has_key = False
            merged = value if isinstance(value, list) else [value]
            if not all(isinstance(item, dict) for item in merged):
                raise self._refuse(event, "<< merges a mapping or a list of mappings")
            frame.merges.extend(merged)
            # A merge copies its keys, which an alias alone does not.
            self._nodes += sum(len(item) for item in merged)
        else:
            frame.has_key = False
            if frame.key in frame.items:
                self._duplicate(frame, len(self._warnings))
            frame.items[frame.key] = value

    def _duplicate(self, frame: _Frame, count: int) -> None:
        if count < self._limits.max_problems:
            mark = frame.key_event.start_mark
            self._warnings.append(
                f"{self._file}:{mark.line + 1}:{mark.column + 1}: "
                f'duplicate key "{frame.key}": the last one counts'
            )

    def _scalar(self, event: Any) -> Any:
        text, tag = event.value, event.tag
        if tag is None or tag == "!":
            if not event.implicit[0]:
                return text
            candidates = _RESOLVERS.get(text[:1])
            if not candidates:
                return text
            for tag, regexp in candidates:  # noqa: B007 - the matching tag is used below
                if regexp.match(text):
                    break
            else:
                return text
        return self._construct(event, tag, text)

    def _construct(self, event: Any, tag: str, text: str) -> Any:
        kind = tag.removeprefix(_PREFIX)
        if kind in {"str", "value"}:
            return text
        if kind == "null":
            return None
        if kind == "merge":
            return _MERGE_KEY
        construct = self._constructors.get(kind)
        try:
            if construct is not None and len(text) <= _MAX_NUMBER:
                return construct(yaml.ScalarNode(tag, text))
        except (ValueError, KeyError):
            pass  # e.g. !!int ten; refused below like any other tag
        raise self._refuse(event, f"{text[:40]!r} is not allowed as {kind}")

    def _refuse(self, event: Any, message: str, *, hint: str = "") -> SpecError:
        mark = event.start_mark
        problem = Problem(
            f"Workflow spec is not properly formatted: {message}",
            code=ErrorCode.USAGE,
            hint=hint,
            file=self._file,
        )
        return SpecError([problem.at(mark.line + 1, mark.column + 1)])


def _syntax_problem(error: yaml.MarkedYAMLError, text: str, file: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    what = ": ".join(part for part in (error.context, error.problem) if part)
    problem = Problem(
        f"Workflow spec is not properly formatted: {what}", code=ErrorCode.USAGE, file=file
    )
    if mark is None:
        return problem
    line = text.split("\n", mark.line + 1)[mark.line] if mark.line <= text.count("\n") else ""
    hint = ""
    if "\t" in line[: mark.column + 1]:
        hint = "YAML is indented with spaces, never with tabs."
    elif "mapping values are not allowed" in what:
        hint = "Quote a value that contains `: `, and check the indentation of this line."
    problem = Problem(problem.message, code=problem.code, hint=hint, file=file)
    return problem.at(mark.line + 1, mark.column + 1, line)


def _unreadable(error: Exception, text: str, file: str) -> Problem:
    """A character that YAML forbids; libyaml gives its place only in words."""
    for number, line in enumerate(text.split("\n"), start=1):
        for column, character in enumerate(line, start=1):
            if not character.isprintable() and character not in "\t\r\x85\ufeff\xa0":
                name = f"U+{ord(character):04X}"
                return Problem(
                    f"Workflow spec is not properly formatted: the character {name} is not allowed",
                    code=ErrorCode.USAGE,
                    hint="Write it as an escape in a double-quoted text, or as base64.",
                    file=file,
                ).at(number, column)
    return Problem(
        f"Workflow spec is not properly formatted: {error}", code=ErrorCode.USAGE, file=file
    )
