"""The engine's core under a bus, a database and a cluster that misbehave, by seed.

`pytest tests/simulation --seed 1234` tells one story again, `--seeds 100000` goes on for long.
"""

from __future__ import annotations

import pytest

from simulation.generate import random_workflow
from simulation.world import Chaos, World

CALM = Chaos(duplicate=0, drop=0, abort=0, take_over=0, fail=0, lose_node=0)


def live(seed: int, chaos: Chaos, sites: tuple[str, ...] = ("sim",)) -> World:
    """Tell one story to its end; a failure shows how it went."""
    world = World(seed, chaos, sites=sites)
    try:
        _live(world)
    except Exception as error:
        story = "\n".join(world.story[-60:])
        raise AssertionError(f"seed {seed}: {error!r}\n{story}") from error
    return world


def _live(world: World) -> None:
    names = [f"w-{number}" for number in range(world.random.randint(1, 3))]
    for name in names:
        world.submit(random_workflow(world.random), name)
    if world.random.random() < 0.25:
        for _ in range(world.random.randint(0, 20)):
            world.step()
        world.cancel(names[0], force=world.random.random() < 0.3)
    world.run()
    for name in names:
        status = world.ledger.workflows[name].status
        assert status.final, f"{name} is {status} and nothing is left to happen"
        assert world.announced[name][-1] == status.value
    assert world.settled >= world.runs.keys(), "an attempt was never settled"


def test_stories_end_well_whatever_happens(seeds: range) -> None:
    ends: dict[str, int] = {}
    for seed in seeds:
        world = live(seed, Chaos())
        for workflow in world.ledger.workflows.values():
            ends[workflow.status.value] = ends.get(workflow.status.value, 0) + 1
    if len(seeds) >= 200:  # the generator must reach the interesting ends, not only the easy one
        assert {"COMPLETED", "FAILED", "FAILED_CANCELED", "FAILED_EXEC_TIMEOUT"} <= ends.keys()


def test_a_calm_world_completes_what_it_starts(seeds: range) -> None:
    for seed in seeds[:25]:
        world = live(seed, CALM)
        assert not world.anomalies


@pytest.mark.parametrize("drop", [0.3])
def test_a_bus_that_loses_a_third_costs_time_only(seeds: range, drop: float) -> None:
    for seed in seeds[:13]:
        live(seed, Chaos(drop=drop, fail=0.1))


def test_clusters_that_fall_silent_or_are_drained_lose_nothing(seeds: range) -> None:
    """Nothing runs in two clusters at once, and every attempt is settled where it ran."""
    moved = lost = 0
    for seed in seeds[:60]:
        world = live(seed, Chaos(outages=3, fail=0.05), ("a", "b", "c"))
        tasks = world.ledger.tasks.values()
        moved += sum((task.message or "").startswith("moved from") for task in tasks)
        lost += sum("is lost" in (task.message or "") for task in tasks)
        assert {run.cluster for run in world.runs.values()} <= {"a", "b", "c"}
    if len(seeds) >= 60:
        assert moved > 20
        assert lost > 3


def test_calm_clusters_share_the_work(seeds: range) -> None:
    used: set[str] = set()
    for seed in seeds[:13]:
        world = live(seed, CALM, ("a", "b"))
        assert not world.anomalies
        assert not any(task.attempt for task in world.ledger.tasks.values())
        used |= {run.cluster for run in world.runs.values()}
    assert used == {"a", "b"}
