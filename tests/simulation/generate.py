"""Random workflows, from a seed."""

from __future__ import annotations

import random
from typing import Any

from cairn_common.spec.models import WorkflowSpec


def random_workflow(rng: random.Random, groups: int = 8) -> WorkflowSpec:
    """A workflow of some groups of one to three tasks, with random edges and rules."""
    made: list[dict[str, Any]] = []
    names: list[str] = []
    for number in range(rng.randint(1, groups)):
        size = rng.choice((1, 1, 1, 2, 3))
        sources = rng.sample(names, min(len(names), rng.choice((0, 1, 1, 2, 3))))
        tasks = [
            {
                "name": f"t{number}-{member}",
                "image": "x",
                "command": ["true"],
                "lead": member == 0,
                "inputs": [{"task": source} for source in sources],
                "exitActions": rng.choice(({}, {}, {"RESCHEDULE": "1"}, {"COMPLETE": "0-1"})),
            }
            for member in range(size)
        ]
        ignore = rng.random() < 0.6
        made.append({"name": f"g{number}", "ignoreNonleadStatus": ignore, "tasks": tasks})
        names += [str(task["name"]) for task in tasks]
    timeout = {"exec_timeout": rng.choice(("20s", "60s"))}
    return WorkflowSpec.model_validate({"name": "w", "timeout": timeout, "groups": made})
