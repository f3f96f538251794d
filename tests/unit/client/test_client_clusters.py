"""`cairn cluster`, `pool` and `resource`: what they ask for and what they print."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from unit.client.fake_cairn import START, FakeCairn, Ran

Run = Callable[..., Ran]
GI = 1 << 30
EAST: dict[str, Any] = {
    "name": "east", "state": "DRAINING", "status": "ONLINE", "pools": ["a", "b"],
    "registered": START, "nodes": 2, "cpu": 16, "used_cpu": 3, "gpu": 8, "used_gpu": 4,
    "memory": 64 * GI, "used_memory": 8 * GI,
}  # fmt: skip
ONE = {**EAST, "features": ["gpu"], "tasks": {"RUNNING": 2, "SCHEDULING": 1}}
USE = {
    "quota_used": "4", "quota_free": "2", "quota_limit": "6", "total_usage": "4",
    "total_capacity": "8", "total_free": "4",
}  # fmt: skip


def test_clusters_are_listed_with_their_use(server: FakeCairn, run: Run) -> None:
    server.json("GET /api/clusters", {"clusters": [EAST]})
    head, row = run("cluster", "list").out.splitlines()
    assert head.split()[:3] == ["CLUSTER", "STATE", "STATUS"]
    assert row.split() == ["east", "DRAINING", "ONLINE", "2", "3/16", "4/8", "8/64Gi", "a,", "b"]
    assert json.loads(run("cluster", "list", "-t", "json").out)["clusters"] == [EAST]
    server.json("GET /api/clusters", {"clusters": []})
    assert run("cluster", "list").err == "No cluster has registered yet.\n"


def test_a_cluster_is_shown_drained_and_resumed(server: FakeCairn, run: Run) -> None:
    server.json("GET /api/clusters/east", ONE)
    server.json("POST /api/clusters/east/drain", ONE)
    server.json("POST /api/clusters/east/resume", {**ONE, "state": "ACTIVE"})
    assert "Open tasks: 2 RUNNING, 1 SCHEDULING\n" in run("cluster", "show", "east").out
    assert "State: DRAINING, ONLINE\n" in run("cluster", "drain", "east").out
    assert "State: ACTIVE, ONLINE\n" in run("cluster", "resume", "east").out


def test_removing_tells_why_it_was_refused(server: FakeCairn, run: Run) -> None:
    server.refuse("DELETE /api/clusters/east", "3 tasks are open in cluster east.")
    ran = run("cluster", "remove", "east")
    assert (ran.code, ran.err) == (2, "Error: 3 tasks are open in cluster east.\n")
    server.json("DELETE /api/clusters/east", None)
    assert run("cluster", "remove", "east", "--force").out == "Cluster east is removed.\n"
    assert server.last.query["force"] in (["true"], ["True"])


def test_pools_and_nodes_are_listed(server: FakeCairn, run: Run) -> None:
    pool = {"name": "a", "status": "ONLINE", "backend": "east, west", "resource_usage": USE}
    server.json("GET /api/pool_quota", {"node_sets": [{"pools": [pool]}], "resource_sum": USE})
    _, row = run("pool", "list").out.splitlines()
    assert row.split() == ["a", "ONLINE", "east,", "west", "4", "2", "6", "4", "4", "8"]
    node = {
        "hostname": "n1",
        "backend": "east",
        "allocatable_fields": {"cpu": "8", "gpu": "4", "memory": "64Ki", "storage": "1Ki"},
        "usage_fields": {"cpu": "1", "gpu": "2", "memory": "3Ki", "storage": "0Ki"},
        "pool_platform_labels": {"a": ["x", "y"]},
        "conditions": ["Ready"],
    }
    server.json("GET /api/resources", {"resources": [node]})
    ran = run("resource", "list", "--pool", "a", "--platform", "x")
    assert server.last.query == {"pools": ["a"], "platforms": ["x"]}
    assert ran.out.splitlines()[1].split() == [
        "n1", "east", "Ready", "1/8", "2/4", "3Ki/64Ki", "0Ki/1Ki", "a/x,", "a/y",
    ]  # fmt: skip
