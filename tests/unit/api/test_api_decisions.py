"""The API's pure decisions: doors, versions, labels, submissions, inventory."""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime, timedelta

import pytest

from cairn_api.core.errors import ApiError
from cairn_api.core.guard import (
    content_is_json,
    host_is_allowed,
    host_of,
    is_loopback,
    origin_is_allowed,
)
from cairn_api.core.inventory import Inventory, Site, features_of
from cairn_api.core.labels import merge_labels, parse_labels, parse_selector
from cairn_api.core.model import Request
from cairn_api.core.nodes import pool_usage, resources_of
from cairn_api.core.pools import PoolStatus
from cairn_api.core.submission import (
    NO_INVENTORY,
    accept,
    only_local_files_missing,
    parse_environment,
)
from cairn_api.core.versions import greet
from cairn_api.settings import ApiSettings
from cairn_common.events import ClusterHeartbeat, ClusterResources, NodeInfo
from cairn_common.spec import SpecError, WorkflowSpec, load_workflow

GI = 1 << 30
NOW = datetime(2026, 8, 1, tzinfo=UTC)
NODE = NodeInfo(name="box", cpu=8, memory=16 * GI, storage=100 * GI, used_cpu=3)


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("localhost", "localhost"),
        ("LocalHost:80", "localhost"),
        ("127.0.0.1:1", "127.0.0.1"),
        ("[::1]:8000", "::1"),
        ("localhost.", "localhost"),
        ("", ""),
        ("localhost:x", ""),
        ("localhost:99999", ""),
        ("a@localhost", ""),
        ("localhost/x", ""),
        ("localhost?x", ""),
        ("[::1", ""),
    ],
)
def test_the_name_in_a_host_header(header: str, name: str) -> None:
    assert host_of(header) == name
    assert host_is_allowed(header, ()) is bool(name)


def test_hosts_and_origins() -> None:
    assert not host_is_allowed("evil.example", ())
    assert host_is_allowed("cairn.example:1", {"cairn.example"})
    assert origin_is_allowed("http://localhost:8000", "http", "localhost:8000")
    for origin in ("null", "http://localhost:1", "https://localhost:8000", "http://evil", ""):
        assert not origin_is_allowed(origin, "http", "localhost:8000")
    assert content_is_json("application/json; charset=utf-8")
    assert content_is_json("APPLICATION/JSON")
    assert not content_is_json("application/jsonx")
    assert not content_is_json("text/plain; application/json")
    assert is_loopback("127.0.0.9")
    assert is_loopback("::1")
    assert is_loopback("localhost")
    assert not is_loopback("0.0.0.0")
    assert not is_loopback("cairn.example")


def test_greetings() -> None:
    assert greet(None).headers == ()
    assert greet("6.4.0").headers == (("x-osmo-service-version", "6.4.0"),)
    assert greet("7.0.0").headers == (("x-osmo-service-version", "6.4.0"),)
    warning = dict(greet("6.3.9.beta").headers)["x-osmo-warning"]
    assert b"6.3.9.beta" in base64.b64decode(warning)
    for version in ("5.9.9", "", "6.4", "6.4.0-rc1", "a.b.c", "9" * 5000 + ".0.0"):
        with pytest.raises(ApiError):
            greet(version)


def test_labels() -> None:
    assert parse_labels(["a=b", "x.io/y=z", "a=c"]) == {"a": "c", "x.io/y": "z"}
    for bad in ("a", "=b", "a=", "a=b c", "-a=b", "X/y=z", "/y=z"):
        with pytest.raises(ApiError):
            parse_labels([bad])
    assert merge_labels({"a": "1", "b": "2"}, {"b": "3"}) == {"a": "1", "b": "3"}
    with pytest.raises(ApiError, match="at most 16"):
        merge_labels({f"k{i}": "v" for i in range(10)}, {f"l{i}": "v" for i in range(10)})


@pytest.mark.parametrize(
    ("text", "yes", "no"),
    [
        ("k=team_*", ["team_", "team_a"], ["team", "xteam_a"]),
        ("k=(team_*|osmo_*)", ["team_1", "osmo_"], ["other"]),
        ("k=team_(a|b)", ["team_a", "team_b"], ["team_c", "team_ab"]),
        ("k=a.b*", ["a.bc"], ["axbc"]),
        ("k=*", ["", "x"], []),
    ],
)
def test_selectors_with_patterns(text: str, yes: list[str], no: list[str]) -> None:
    selector = parse_selector(text)
    assert selector.pattern is not None
    pattern = re.compile(selector.pattern)
    assert all(pattern.search(value) for value in yes)
    assert not any(pattern.search(value) for value in no)


def test_selectors() -> None:
    plain = parse_selector("k=a.b")
    assert (plain.key, plain.value, plain.pattern) == ("k", "a.b", None)
    for bad in ("k", "=v", "k=(a", "k=a)", "k=((a|b))", "k=a|b", "k=" + "*" * 300):
        with pytest.raises(ApiError):
            parse_selector(bad)


TEXT = """\
workflow:
  name: w
  labels: {a: b}
  resources:
    default: {cpu: 2}
    big: {cpu: 4, memory: 8Gi}
  tasks:
  - {name: one, image: x, command: [a]}
  - {name: two, image: x, command: [a], resource: big}
  - {name: three, image: x, command: [a]}
"""
FEATURES = frozenset(ApiSettings(_env_file=None).features)


def site(nodes: list[NodeInfo]) -> Site:
    """A cluster whose bridge says no more than its nodes."""
    return Site("local", nodes, None, features_of(nodes))


def judged(text: str = TEXT, nodes: list[NodeInfo] | None = None, **labels: str) -> object:
    return accept(
        load_workflow(text),
        pool="default",
        features=frozenset(feature.value for feature in FEATURES),
        sites=[site([NODE] if nodes is None else nodes)],
        labels=labels,
        environment={},
        template=None,
    )


def test_an_accepted_workflow() -> None:
    accepted = accept(
        load_workflow(TEXT),
        pool="default",
        features=FEATURES,
        sites=[site([NODE])],
        labels={"a": "c", "d": "e"},
        environment={"E": "1"},
        template="before",
    )
    assert (accepted.name, accepted.rendered, accepted.template) == ("w", TEXT, "before")
    assert accepted.warnings == []
    assert accepted.request == Request(2, 0, GI, GI)
    assert accepted.other_requests == {"two": Request(4, 0, 8 * GI, GI)}
    stored = WorkflowSpec.model_validate_json(accepted.spec)
    assert stored.labels == accepted.labels == {"a": "c", "d": "e"}
    assert all(task.environment == {"E": "1"} for g in stored.all_groups for task in g.tasks)


def test_all_refusals_at_once_and_with_places() -> None:
    text = TEXT.replace("{cpu: 4,", "{cpu: 64,").replace(
        "name: one,", "name: one, privileged: true,"
    )
    with pytest.raises(SpecError) as caught:
        judged(text)
    assert {problem.path for problem in caught.value.problems} == {
        "workflow.tasks[0].privileged",
        "workflow.resources.big",
    }
    assert all(problem.line for problem in caught.value.problems)


def test_what_follows_from_the_nodes() -> None:
    gpu = TEXT.replace("{cpu: 2}", "{cpu: 2, gpu: 1}")
    with pytest.raises(SpecError, match="GPUs are not executed"):
        judged(gpu)
    judged(gpu, [NODE.model_copy(update={"gpu": 1})])
    excluded = TEXT.replace("{cpu: 2}", "{cpu: 2, nodesExcluded: [other]}")
    judged(excluded)
    with pytest.raises(SpecError, match="excluded nodes are not executed"):
        judged(excluded, [NODE, NODE.model_copy(update={"name": "other"})])
    with pytest.raises(SpecError, match="leave no node"):
        judged(excluded.replace("[other]", "[box]"))
    assert features_of([NODE.model_copy(update={"platforms": ["x"]})]) >= {"platform"}


def test_without_an_inventory_capacity_is_not_checked() -> None:
    accepted = accept(
        load_workflow(TEXT.replace("cpu: 4", "cpu: 9999")),
        pool="default",
        features=FEATURES,
        sites=[],
        labels={},
        environment={},
        template=None,
    )
    assert accepted.warnings == [NO_INVENTORY]


def test_local_files_are_no_fault_of_a_dry_run() -> None:
    local = TEXT.replace("name: one,", "name: one, files: [{path: /x, localpath: x}],")
    with pytest.raises(SpecError) as caught:
        load_workflow(local)
    assert only_local_files_missing(caught.value)
    with pytest.raises(SpecError) as caught:
        load_workflow(local.replace("name: two", "nom: two"))
    assert not only_local_files_missing(caught.value)


def test_environment() -> None:
    assert parse_environment(["A=1=2", "B="]) == {"A": "1=2", "B": ""}
    for bad in ("A", "=1"):
        with pytest.raises(ApiError):
            parse_environment([bad])


def test_an_inventory() -> None:
    inventory = Inventory({"default": "local", "second": "local", "far": "remote"})
    assert inventory.sites("default") == []
    assert inventory.status("default", NOW) is PoolStatus.OFFLINE
    inventory.take_resources(
        ClusterResources(cluster="local", at=NOW, pools=["default"], nodes=[NODE])
    )
    older = ClusterResources(
        cluster="local", at=NOW - timedelta(minutes=1), pools=["default"], nodes=[]
    )
    inventory.take_resources(older)
    assert [each.nodes for each in inventory.sites("second")] == [[NODE]]
    assert inventory.sites("far") == []
    inventory.take_heartbeat(ClusterHeartbeat(cluster="local", at=NOW, interval_seconds=60))
    assert inventory.status("default", NOW + timedelta(minutes=3)) is PoolStatus.ONLINE
    assert inventory.status("default", NOW + timedelta(minutes=5)) is PoolStatus.OFFLINE
    (node,) = resources_of(inventory, ["default", "far", "second"])
    assert node.pool_platform_labels == {"default": ["default"], "second": ["default"]}
    assert node.usage_fields["cpu"] == "3"
    assert node.platform_available_fields == {
        pool: {
            "default": {
                "cpu": "5",
                "gpu": "0",
                "memory": f"{16 * GI >> 10}Ki",
                "storage": f"{100 * GI >> 10}Ki",
            }
        }
        for pool in ("default", "second")
    }
    assert pool_usage(inventory, "far", NOW).resource_usage.total_capacity == "0"
