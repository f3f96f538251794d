"""Whether the clusters of a pool can run a workflow: rights, platforms, capacity, several."""

from __future__ import annotations

import pytest

from cairn_api.core.fitting import problems_of
from cairn_api.core.inventory import Site
from cairn_common.events import NodeInfo
from cairn_common.pools import Credential, Platform, Pool, Queue, Share, TopologyKey
from cairn_common.spec import Feature, load_workflow

GI = 1 << 30
FEATURES = frozenset({Feature.GROUPS})
ABLE = frozenset(Feature)
RIGHTS = Platform(privileged_allowed=True, host_network_allowed=True, allowed_mounts=["/data"])
POOL = Pool(
    platforms={"plain": Platform(), "trusted": RIGHTS},
    default_platform="plain",
    topology_keys=[TopologyKey(key="rack", label="example.com/rack")],
    credentials={"aws": Credential(secret="team-aws", keys=["id", "key"])},
)


def node(name: str, *, gpu: int = 0, cpu: int = 8, platforms: tuple[str, ...] = ()) -> NodeInfo:
    return NodeInfo(
        name=name, cpu=cpu, gpu=gpu, memory=64 * GI, storage=100 * GI, platforms=list(platforms)
    )


def site(name: str, *nodes: NodeInfo, pool: Pool | None = None, able: bool = True) -> Site:
    return Site(name, nodes, pool or Pool(), ABLE if able else frozenset())


def text(task: str = "", resource: str = "cpu: 1", copies: int = 1) -> str:
    lines = ["workflow:", "  name: w", f"  resources: {{default: {{{resource}}}}}", "  groups:"]
    lines += ["  - name: g", "    tasks:"]
    lines += [
        f"    - {{name: t{n}, image: x, command: [a], lead: {'false' if n else 'true'}, {task}}}"
        for n in range(copies)
    ]
    return "\n".join(lines)


def said(workflow: str, *sites: Site, priority: str = "NORMAL") -> list[str]:
    spec = load_workflow(workflow).spec
    found = problems_of(spec, sites, pool="robots", features=FEATURES, priority=priority)
    return [problem.message for problem in found]


BOTH = (node("n1", platforms=("plain", "trusted")), node("n2", platforms=("plain",)))


@pytest.mark.parametrize(
    ("task", "resource", "refusal"),
    [
        ("privileged: true", "platform: trusted", None),
        ("hostNetwork: true", "platform: trusted", None),
        ("volumeMounts: ['/data/sets:/sets']", "platform: trusted", None),
        ("", "topology: [{key: rack}]", None),
        ("", "nodesExcluded: [n1]", None),
        ("credentials: {aws: /root/.aws}", "cpu: 1", None),
        ("credentials: {aws: {AWS_ACCESS_KEY_ID: id}}", "cpu: 1", None),
        ("credentials: {azure: /a}", "cpu: 1", "Could not find the credential: azure."),
        ("credentials: {aws: {TOKEN: token}}", "cpu: 1", "Credential aws has no key token."),
        (
            "privileged: true",
            "cpu: 1",
            "Task with platform: plain does not have privileged flag enabled. Task t0",
        ),
        (
            "hostNetwork: true",
            "cpu: 1",
            "Task with platform: plain does not have hostNetwork flag enabled. Task t0",
        ),
        (
            "volumeMounts: [/opt]",
            "platform: trusted",
            "Task with platform: trusted does not allow mount: /opt. Task t0",
        ),
        ("", "platform: nope", "Platform nope does not exist in pool robots!"),
        ("", "topology: [{key: row}]", 'Topology key "row" of task "t0" is not available'),
        ("", "gpu: 8", "No node of pool robots can run a task with resource default."),
        ("", "nodesExcluded: [n1, n2]", "Its platform and nodesExcluded leave no node."),
    ],
)
def test_a_pool_allows_what_its_platform_does(
    task: str, resource: str, refusal: str | None
) -> None:
    found = said(text(task, resource), site("a", *BOTH, pool=POOL))
    assert len(found) == (0 if refusal is None else 1), found
    assert refusal is None or refusal in found[0]


def test_a_cluster_that_cannot_do_it_refuses_by_name() -> None:
    able = site("a", node("n"), able=False)
    for task in ("privileged: true", "hostNetwork: true", "volumeMounts: [/data]"):
        (found,) = said(text(task), able)
        assert "not executed by this installation yet" in found
    (found,) = said(text("", "topology: [{key: rack}]"), able)
    assert "topology requirements are not executed" in found
    # That a platform is not there is said in the reference's words, too.
    found = said(text("", "platform: nope"), able)
    assert [words for words in found if words == "Platform nope does not exist in pool robots!"]


def test_what_is_the_same_for_many_tasks_is_said_once() -> None:
    assert len(said(text("", "platform: nope", copies=5), site("a", *BOTH, pool=POOL))) == 1


def test_the_defaults_of_a_platform_count() -> None:
    hungry = Pool(platforms={"big": Platform(default_cpu=16)})
    small, large = node("n", platforms=("big",)), node("n", cpu=16, platforms=("big",))
    (found,) = said(text("", "gpu: 0"), site("a", small, pool=hungry))
    assert "cpu 16 <= 8" in found
    assert said(text("", "gpu: 0"), site("a", large, pool=hungry)) == []
    assert said(text("", "cpu: 2"), site("a", small, pool=hungry)) == []


def test_a_guarantee_binds_who_may_not_borrow() -> None:
    owned = Pool(queue=Queue(gpu=Share(guarantee=4)))
    rich = site("a", node("n", gpu=8), pool=owned)
    (found,) = said(text("", "gpu: 8"), rich)
    assert found == 'Group "g" asks for gpu 8, more than the guarantee 4 of pool robots.'
    assert said(text("", "gpu: 8"), rich, priority="LOW") == []


def test_any_cluster_of_the_pool_will_do() -> None:
    poor, rich = site("a", node("n")), site("b", node("n", gpu=8))
    assert said(text("", "gpu: 8"), poor, rich) == []
    (found,) = said(text("", "gpu: 16"), poor, rich)
    assert all(words in found for words in ("a/n", "b/n", "gpu 16 <= 8"))


def test_a_group_lies_in_one_cluster() -> None:
    halves = site("a", node("n", cpu=4)), site("b", node("n", cpu=4))
    found = said(text("", "cpu: 4", copies=2), *halves)
    assert [words.partition(":")[0] for words in found] == ["In cluster a", "In cluster b"]
    assert all("together" in words for words in found)
    assert said(text("", "cpu: 2", copies=2), *halves) == []


def test_rights_and_capacity_must_meet_in_one_cluster() -> None:
    allowed = site("a", node("n", platforms=("p",)), pool=Pool(platforms={"p": RIGHTS}))
    rich = site("b", node("n", gpu=8))
    found = said(text("privileged: true", "gpu: 8"), allowed, rich)
    assert any(words.startswith("In cluster b: Task with platform") for words in found)
    assert any(words.startswith("In cluster a: ") and "gpu 8 <= 0" in words for words in found)
