"""Facts that leave together say each thing once.

A task that ends before its start was sent needs one message, not four: the later fact takes over
what the earlier ones said, which is when. An event costs the bus, the engine and the database the
same whether it says much or little, so this is what a cluster of short tasks lives by.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from cairn_bridge.cluster import AttemptKey, Fact, Phase


def fold(facts: Iterable[Fact]) -> list[Fact]:
    """The same facts in the same order, without those that a later one can say as well.

    A FINISHED fact takes over all that was to be said of its attempt before. A STARTED fact takes
    over facts about exactly the same attempts.
    """
    kept: list[Fact | None] = []
    places: dict[AttemptKey, list[int]] = {}  # where the kept facts about an attempt stand
    for said in facts:
        fact = said
        if fact.phase in {Phase.STARTED, Phase.FINISHED}:
            for place in places.get(fact.keys[0], ()):
                earlier = kept[place]
                if earlier is None or earlier.phase is Phase.FINISHED:
                    continue
                if fact.phase is Phase.STARTED and earlier.keys != fact.keys:
                    continue
                fact = _taking_over(fact, earlier)
                kept[place] = _without(earlier, fact.keys)
        for key in fact.keys:
            places.setdefault(key, []).append(len(kept))
        kept.append(fact)
    return [fact for fact in kept if fact is not None]


def _taking_over(fact: Fact, earlier: Fact) -> Fact:
    node = fact.node or earlier.node
    match earlier.phase:
        case Phase.ACCEPTED:
            return replace(fact, node=node, accepted_at=fact.accepted_at or earlier.at)
        case Phase.SCHEDULED:
            return replace(fact, node=node, scheduled_at=fact.scheduled_at or earlier.at)
        case Phase.STARTED if fact.outcome is not None:
            return replace(
                fact,
                node=node,
                accepted_at=fact.accepted_at or earlier.accepted_at,
                scheduled_at=fact.scheduled_at or earlier.scheduled_at,
                outcome=replace(fact.outcome, started_at=fact.outcome.started_at or earlier.at),
            )
        case _:  # said twice
            return fact


def _without(fact: Fact, keys: tuple[AttemptKey, ...]) -> Fact | None:
    left = tuple(key for key in fact.keys if key not in keys)
    return replace(fact, keys=left) if left else None
