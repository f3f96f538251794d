"""The whole system, with tasks that really run: what people see of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from real_harness import Real, pool_on
from testcluster.node.images import TASK
from whole_system import Cairn, running_cairn

pytestmark = [pytest.mark.simulator, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def cairn(real: Real, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cairn]:
    """All services, with a bridge whose only pool is the real node."""
    folder = tmp_path_factory.mktemp("cairn")
    store = folder / "servers/store"
    pools = {real.cluster.name: {"real": pool_on(store, str(store))}}
    with running_cairn([real.cluster], folder, pools) as cairn:
        yield cairn


def workflow(name: str, *tasks: dict[str, Any]) -> str:
    """The file of a workflow whose tasks run shell scripts."""
    return json.dumps(
        {
            "workflow": {
                "name": name,
                "resources": {"default": {"cpu": 1, "memory": "128Mi"}},
                "tasks": [
                    {"image": TASK, "command": ["sh", "-c", each.pop("run")], **each}
                    for each in tasks
                ],
            }
        }
    )


def test_what_one_task_leaves_the_next_one_finds(cairn: Cairn) -> None:
    name = cairn.submit(
        workflow(
            "relay",
            {
                "name": "write",
                "run": "sh /tmp/make.sh && echo made $KIND",
                "environment": {"KIND": "numbers"},
                "files": [
                    {"path": "/tmp/make.sh", "contents": "seq 1 1000 > {{output}}/numbers\n"}
                ],
            },
            {
                "name": "read",
                "run": "wc -l < {{input:0}}/numbers; head -n 1 {{input:write}}/numbers",
                "inputs": [{"task": "write"}],
            },
        )
    )
    log = cairn.logs(name)
    assert cairn.finish(name) == "COMPLETED", cairn.story(name)
    for words in ("made numbers", "1000", "input 0 (write): 1 files, 3893 bytes"):
        assert words in log


@pytest.mark.parametrize(
    ("run", "more", "status"),
    [
        ("echo partly > {{output}}/x; exit 3", {}, "FAILED"),
        ("python3 -c 'bytearray(1 << 30)'", {}, "FAILED_EVICTED"),
        ("true", {"image": "cairn.test/missing:1"}, "FAILED_IMAGE_PULL"),
        ("", {"command": ["no-such-program"]}, "FAILED_START_ERROR"),
        ("true", {"inputs": [{"url": "file:///cairn/store/none"}]}, "FAILED"),
    ],
)
def test_a_real_failure_has_its_name(
    cairn: Cairn, run: str, more: dict[str, Any], status: str
) -> None:
    name = cairn.submit(workflow("failing", {"name": "one", "run": run, **more}))
    assert cairn.finish(name, 180) == status, cairn.story(name)


def test_a_cancelled_task_is_asked_to_end(cairn: Cairn) -> None:
    words = "trap 'echo asked to end; exit 0' TERM; echo up; while true; do sleep 0.1; done"
    name = cairn.submit(workflow("endless", {"name": "one", "run": words}))
    cairn.wait(name, lambda status: status == "RUNNING")
    cairn.cairn("workflow", "cancel", name)
    assert "asked to end" in cairn.logs(name)
    assert cairn.finish(name) == "FAILED_CANCELED", cairn.story(name)
