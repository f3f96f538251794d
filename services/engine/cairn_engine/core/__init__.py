"""The engine's core: what happens to workflows, decided without I/O, clocks or chance.

`decide(ledger, input, now)` changes the entities in the ledger and answers with effects (what to
tell the world) and follow-ups (what to decide next, when their entities are loaded too). The
same ledger, input and time always give the same answer, so the whole life of workflows can be
simulated. Model: dask.distributed's worker state machine.
"""

from cairn_engine.core.clusters import Clusters, State
from cairn_engine.core.decide import decide
from cairn_engine.core.gangs import need_of
from cairn_engine.core.hearing import Hearing
from cairn_engine.core.inputs import (
    Accepted,
    Archived,
    Block,
    CancelPage,
    CancelRequested,
    Decision,
    Due,
    Effect,
    EndGroup,
    Finished,
    Held,
    Input,
    Lose,
    Offer,
    Relocate,
    RestartGroup,
    Scheduled,
    Started,
    TaskInput,
    Wake,
)
from cairn_engine.core.ledger import Ledger
from cairn_engine.core.model import Group, Task, Workflow
from cairn_engine.core.policy import Policy, PoolPolicy
from cairn_engine.core.workflows import conclude

__all__ = [
    "Accepted",
    "Archived",
    "Block",
    "CancelPage",
    "CancelRequested",
    "Clusters",
    "Decision",
    "Due",
    "Effect",
    "EndGroup",
    "Finished",
    "Group",
    "Hearing",
    "Held",
    "Input",
    "Ledger",
    "Lose",
    "Offer",
    "Policy",
    "PoolPolicy",
    "Relocate",
    "RestartGroup",
    "Scheduled",
    "Started",
    "State",
    "Task",
    "TaskInput",
    "Wake",
    "Workflow",
    "conclude",
    "decide",
    "need_of",
]
