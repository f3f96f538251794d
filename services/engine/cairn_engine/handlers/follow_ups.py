"""Follow-ups that are put off: as rows, and back.

What is to be done about many groups in succession shares rows: a task that completes may have a
hundred thousand successors.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any, Final

from cairn_engine.core import Block, CancelPage, EndGroup, Offer, RestartGroup, Wake
from cairn_engine.core.inputs import FollowUp

IN_ONE_ROW: Final = 50
"""The most groups that share a row."""

_KINDS: Final[dict[str, type[Any]]] = {
    kind.__name__: kind for kind in (Offer, Wake, Block, EndGroup, RestartGroup, CancelPage)
}


def keep(follow_ups: Iterable[FollowUp]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows to be restored from, each with its workflow, in order."""
    for same, some in groupby(follow_ups, _but_for_its_group):
        row = {"kind": type(same).__name__, **dataclasses.asdict(same)}
        if isinstance(same, CancelPage):
            yield from ((same.workflow, row) for _ in some)
            continue
        del row["group"]
        groups = [follow_up.group for follow_up in some if not isinstance(follow_up, CancelPage)]
        for start in range(0, len(groups), IN_ONE_ROW):
            yield same.workflow, row | {"groups": groups[start : start + IN_ONE_ROW]}


def _but_for_its_group(follow_up: FollowUp) -> FollowUp:
    if isinstance(follow_up, CancelPage):
        return follow_up
    return dataclasses.replace(follow_up, group=-1)


def restore(row: dict[str, Any]) -> list[FollowUp]:
    """What one row was made of."""
    kind = _KINDS[row.pop("kind")]
    groups = row.pop("groups", None)
    return [kind(**row)] if groups is None else [kind(**row, group=group) for group in groups]
