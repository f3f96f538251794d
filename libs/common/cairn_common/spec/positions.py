"""Where things stand in a YAML text, asked only about what is wrong or must be edited.

Values carry no positions (see `yamltext`). `walk` runs the event stream once more and tells the
place of every value, or only of those below the wanted locations.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import yaml
from yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, ScalarEvent
from yaml.events import MappingStartEvent as MappingStart

from cairn_common.spec.problems import Location, Problem


class Mark(Protocol):
    """libyaml's position: all three count characters from 0."""

    index: int
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Place:
    """A value: where its key (if it has one) and it itself start, and where it ends.

    `flow` tells `{a: 1}` from block style; `text` is that of a scalar, else "".
    """

    location: Location
    key: Mark | None
    start: Mark
    end: Mark
    flow: bool = False
    text: str = ""


_Trie = dict[str | int, Any]


@dataclass(slots=True)
class _Open:
    """A collection whose end has not come yet."""

    location: Location
    key: Mark | None
    start: Mark
    flow: bool
    is_mapping: bool
    wanted: _Trie | None
    pending: tuple[str, Mark] | None = None
    count: int = 0

    @property
    def awaits_key(self) -> bool:
        return self.is_mapping and self.pending is None

    def next_step(self) -> tuple[str | int, Mark | None]:
        """The key or index of the value that comes now, and the place of its key."""
        step, mark = self.pending or (self.count, None)
        self.pending = None
        self.count += 1
        return step, mark


def walk(text: str, locations: Iterable[Location] | None = None) -> Iterator[Place]:
    """The places of a text that parses, inner ones before the collection that holds them.

    With `locations`, only those and what leads to them; all else is passed over by depth alone.
    """
    wanted = None if locations is None else _trie(locations)
    stack: list[_Open] = []
    skipped = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        at: Any = event  # the stubs leave its marks open
        starts = isinstance(event, CollectionStartEvent)
        if skipped:
            skipped += starts - isinstance(event, CollectionEndEvent)
        elif isinstance(event, CollectionEndEvent):
            top = stack.pop()
            yield Place(top.location, top.key, top.start, at.end_mark, top.flow)
        elif isinstance(event, (CollectionStartEvent, ScalarEvent, AliasEvent)):
            location: Location = ()
            key: Mark | None = None
            branch = wanted
            if stack:
                outer = stack[-1]
                if outer.awaits_key:
                    outer.pending = (str(getattr(event, "value", "")), at.start_mark)
                    skipped = int(starts)
                    continue
                step, key = outer.next_step()
                location = (*outer.location, step)
                if outer.wanted is not None:
                    branch = outer.wanted.get(step)
                    if branch is None:
                        skipped = int(starts)
                        continue
            if isinstance(event, CollectionStartEvent):
                flow, is_mapping = bool(event.flow_style), isinstance(event, MappingStart)
                stack.append(_Open(location, key, at.start_mark, flow, is_mapping, branch))
            else:
                value = event.value if isinstance(event, ScalarEvent) else ""
                yield Place(location, key, at.start_mark, at.end_mark, text=value)


def locate(text: str, problems: Sequence[Problem]) -> list[Problem]:
    """Give every problem with a location its line and column in `text`, in one pass over it.

    A location that the text does not contain (a missing field) gets the place of the nearest
    enclosing value. Problems that have a line keep it. `text` must have been parsed before.
    """
    wanted = [p.location for p in problems if not p.line]
    if not wanted:
        return list(problems)
    places: dict[Location, Place] = {}
    for place in walk(text, wanted):
        # Of a duplicate key, the last one counts.
        places[place.location] = place
    lines = text.split("\n")
    return [p if p.line else _placed(p, places, text, lines) for p in problems]


def _placed(
    problem: Problem, places: dict[Location, Place], text: str, lines: list[str]
) -> Problem:
    location = problem.location
    while location and location not in places:
        location = location[:-1]
    place = places.get(location)
    if place is None:
        return problem
    missing = location != problem.location
    mark = place.key if place.key is not None and (problem.on_key or missing) else place.start
    line, column = mark.line, mark.column
    if problem.token and not missing:
        offset = text.find(problem.token, place.start.index, place.end.index)
        if offset >= 0:
            line = text.count("\n", 0, offset)
            column = offset - (text.rfind("\n", 0, offset) + 1)
    source = lines[line] if line < len(lines) else ""
    return problem.at(line + 1, column + 1, source.rstrip("\r"))


def _trie(locations: Iterable[Location]) -> _Trie:
    root: _Trie = {}
    for location in locations:
        branch = root
        for step in location:
            branch = branch.setdefault(step, {})
    return root
