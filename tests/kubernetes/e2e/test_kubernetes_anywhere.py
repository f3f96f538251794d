"""What must work on any cluster with KAI Scheduler, also on a user's own, with real nodes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import pytest
from stories import attempts, gang
from testcluster.cluster import Cluster
from testcluster.reached import Reached
from whole_system import Cairn, running_cairn


@pytest.fixture(scope="module")
def cairn(clusters: Sequence[Reached], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cairn]:
    """The whole system with one cluster, whose bridge has the rights of its own account only."""
    first = clusters[0]
    real_image = os.environ.get("CAIRN_TEST_RUNTIME_IMAGE")
    with running_cairn(
        [first],
        tmp_path_factory.mktemp("anywhere"),
        {first.name: {"default": {}}},
        "cairn:0.1.0" if isinstance(first, Cluster) else real_image,
    ) as cairn:
        yield cairn


def shell(script: str) -> dict[str, object]:
    """A task that runs a script."""
    return {"command": ["sh", "-c", script]}


SMALL = {"cpu": 1, "memory": "128Mi"}


def test_a_gang_runs_and_says_what_it_has_to_say(cairn: Cairn) -> None:
    name = cairn.submit(gang("hello", 2, SMALL, shell("echo hello from $CAIRN_TASK")))
    assert cairn.finish(name, 300) == "COMPLETED", cairn.story(name)
    if not isinstance(cairn.clusters[next(iter(cairn.clusters))], Cluster):
        for task in ("t0", "t1"):
            assert f"hello from {task}" in cairn.logs(name)


def test_an_exit_code_is_that_of_the_command(cairn: Cairn) -> None:
    name = cairn.submit(gang("seven", 1, SMALL, shell("exit 7"), run="0.1s", exit_code="7"))
    assert cairn.finish(name, 300) == "FAILED"
    assert [task["exit_code"] for task in attempts(cairn, name)] == [7]


def test_what_is_canceled_ends_and_leaves_nothing(cairn: Cairn) -> None:
    name = cairn.submit(gang("long", 2, SMALL, shell("exec sleep 3600"), run="forever"))
    cairn.wait(name, lambda status: status == "RUNNING", 300)
    cairn.cairn("workflow", "cancel", name)
    assert cairn.finish(name) == "FAILED_CANCELED"
