"""From placements to objects: names, topology, tokens, files, rights, templates, queues."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from cairn_bridge.cluster import AttemptKey, PlacementError
from cairn_bridge.drivers.kubernetes.core import names
from cairn_bridge.drivers.kubernetes.core.gang import Member, lay_out, leaf_for, minimum, shrunk
from cairn_bridge.drivers.kubernetes.core.manifests import belongs_to, build, owned_by
from cairn_bridge.drivers.kubernetes.core.scheduling import scheduler_objects
from cairn_bridge.drivers.kubernetes.core.site import Site
from cairn_bridge.drivers.kubernetes.driver import KubernetesDriver
from cairn_common.events import (
    Checkpoint,
    GroupPlacement,
    InjectedFile,
    InputSource,
    Resources,
    TaskPlacement,
    Topology,
)
from cairn_common.pools import (
    ClusterPools,
    Credential,
    Platform,
    Pool,
    Queue,
    Share,
    Toleration,
    TopologyKey,
)
from cairn_common.spec.features import Feature
from cairn_runtime.room import Checkpoint as Order

ZONE_RACK = [TopologyKey(key="zone", label="t/zone"), TopologyKey(key="rack", label="t/rack")]


def task(index: int, **fields: Any) -> TaskPlacement:
    return TaskPlacement(
        **{
            "index": index,
            "name": f"task_{index}",
            "uuid": f"{index:032x}",
            "image": "ubuntu:24.04",
            "command": ["sleep", "1"],
            **fields,
        }
    )


def group(*tasks: TaskPlacement, **fields: Any) -> GroupPlacement:
    return GroupPlacement(
        **{
            "workflow": "story-7",
            "workflow_uuid": "a" * 32,
            "group": "g",
            "group_index": 0,
            "group_uuid": "b" * 24,
            "tasks": list(tasks),
            **fields,
        }
    )


def site(**pool: Any) -> Site:
    return Site("east", "cairn", ClusterPools(pools={"default": Pool(**pool)}))


def the_pod(where: Site, placement: GroupPlacement) -> dict[str, Any]:
    (pod,) = build(where, placement, None).pods.values()
    return pod


def container(pod: dict[str, Any]) -> dict[str, Any]:
    return next(each for each in pod["spec"]["containers"] if each["name"] == "task")


def test_a_pod_says_whose_it_is_and_is_owned_by_nobody() -> None:
    wanted = build(site(), group(task(0), task(1, attempt=3)), None)
    pod = wanted.pods[AttemptKey("story-7", 1, 3, "task_1")]
    assert pod["metadata"]["name"] == f"cairn-{1:032x}-3"
    assert pod["metadata"]["annotations"] == {
        "pod-group-name": f"cairn-{'b' * 24}",
        "cairn/workflow": "story-7",
        "cairn/task": "task_1",
        "cairn/attempt": "3",
        "cairn/placement": f"{wanted.digest}.2",
    }
    assert "ownerReferences" not in pod["metadata"]  # the podgrouper would take it for its own
    assert pod["metadata"]["finalizers"] == ["cairn/outcome"]
    assert pod["spec"]["schedulerName"] == "kai-scheduler"
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert wanted.pod_group["spec"]["minMember"] == 2
    assert wanted.pod_group["spec"]["preemptibility"] == "non-preemptible"


def test_names_are_the_same_whoever_makes_them_and_labels_fit_dns() -> None:
    assert names.label("Train_A") == "train-a"
    assert names.label("x" * 80) != names.label("x" * 81)
    assert all(len(names.label("x" * n)) <= 63 for n in range(1, 200))
    one = names.placement_digest([(1, 0), (0, 2)])
    assert one == names.placement_digest([(0, 2), (1, 0)]) != names.placement_digest([(0, 2)])


def test_tokens_become_paths_and_names_of_the_group() -> None:
    pod = the_pod(
        site(),
        group(
            task(
                0,
                command=["run", "{{output}}", "{{input:0}}", "{{input:prepare}}"],
                args=["{{host:Task_B}}"],
                environment={"ID": "{{workflow_id}}"},
                inputs=[InputSource(url="s3://x/y"), InputSource(task="prepare", location="w")],
            )
        ),
    )
    assert container(pod)["command"] == [
        "run",
        "/osmo/data/output",
        "/osmo/data/input/0",
        "/osmo/data/input/1",
    ]
    host = f"task-b.cairn-{'b' * 24}.cairn.svc.cluster.local"
    assert container(pod)["args"] == [host]
    assert {"name": "ID", "value": "story-7"} in container(pod)["env"]


def test_who_names_hosts_gets_a_service_and_nobody_pays_for_one_unasked() -> None:
    def kinds(placement: GroupPlacement) -> list[str]:
        return [each["kind"] for each in build(site(), placement, None).owned]

    assert kinds(group(task(0))) == []
    assert kinds(group(task(0, args=["{{host:task_0}}"]))) == ["Service"]
    assert kinds(group(task(0), task(1))) == []
    assert kinds(group(task(0), task(1, args=["{{host:task_0}}"]))) == ["Service"]


def test_files_are_secrets_mounted_at_their_paths_and_split_at_their_bound() -> None:
    big = "x" * 500_000
    files = [
        InjectedFile(path="/tmp/run.sh", contents="echo {{workflow_id}}"),
        InjectedFile(path="/a", contents=big),
        InjectedFile(path="/b", contents=big),
        InjectedFile(path="/c", contents=base64.b64encode(b"\0\1").decode(), base64=True),
    ]
    wanted = build(site(), group(task(0, files=files)), None)
    assert [each["kind"] for each in wanted.owned] == ["Secret", "Secret"]
    data = {k: base64.b64decode(v) for each in wanted.owned for k, v in each["data"].items()}
    assert data["file-0"] == b"echo story-7"
    assert data["file-3"] == b"\0\1"
    (pod,) = wanted.pods.values()
    mounts = {each["mountPath"]: each for each in container(pod)["volumeMounts"]}
    assert mounts["/tmp/run.sh"]["subPath"] == "file-0"
    assert mounts["/a"]["name"] != mounts["/b"]["name"]
    with pytest.raises(PlacementError, match="/d has"):
        build(site(), group(task(0, files=[InjectedFile(path="/d", contents="x" * 10**6)])), None)


def test_a_secret_of_a_former_group_is_told_from_ours() -> None:
    owner = {"apiVersion": "v", "kind": "PodGroup", "metadata": {"name": "g", "uid": "new"}}
    mine = owned_by({"metadata": {"name": "s"}}, owner)
    assert belongs_to(mine, owner)
    assert not belongs_to(mine, {**owner, "metadata": {"name": "g", "uid": "old"}})


def test_a_platform_places_and_fills_in_what_is_not_asked_for() -> None:
    where = site(
        platforms={
            "gpu": Platform(
                node_selector={"kind": "dgx"},
                tolerations=[Toleration(key="nvidia.com/gpu", operator="Exists")],
                default_gpu=2,
                default_memory=1 << 30,
                default_mounts=["/data:/mnt/data"],
            )
        },
        default_platform="gpu",
    )
    pod = the_pod(where, group(task(0, nodes_excluded=["n2", "n1"], resources=Resources(cpu=3))))
    assert pod["spec"]["nodeSelector"] == {"kind": "dgx"}
    assert pod["spec"]["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists"}]
    assert container(pod)["resources"]["limits"] == {
        "cpu": "3",
        "memory": str(1 << 30),
        "nvidia.com/gpu": "2",
    }
    assert any(each["mountPath"] == "/mnt/data" for each in container(pod)["volumeMounts"])
    (term,) = pod["spec"]["affinity"]["nodeAffinity"][
        "requiredDuringSchedulingIgnoredDuringExecution"
    ]["nodeSelectorTerms"]
    assert term["matchExpressions"][0]["values"] == ["n1", "n2"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"privileged": True}, "privileged"),
        ({"host_network": True}, "hostNetwork"),
        ({"volume_mounts": ["/etc"]}, "does not allow mount: /etc"),
        ({"volume_mounts": ["/data/../etc"]}, "Invalid task volume mount"),
        ({"volume_mounts": ["/database"]}, "does not allow mount: /database"),
        ({"resources": Resources(platform="tpu")}, "Platform tpu does not exist"),
        ({"topology": [Topology(key="rack")]}, 'Topology key "rack"'),
    ],
)
def test_what_a_platform_does_not_allow_is_refused_with_the_reason(
    fields: dict[str, Any], words: str
) -> None:
    where = site(platforms={"cpu": Platform(allowed_mounts=["/data"])}, default_platform="cpu")
    with pytest.raises(PlacementError, match=words):
        build(where, group(task(0, **fields)), None)
    build(where, group(task(0, volume_mounts=["/data/sets:/sets"])), None)


def test_rights_are_given_only_where_allowed() -> None:
    where = site(platforms={"big": Platform(privileged_allowed=True, host_network_allowed=True)})
    pod = the_pod(where, group(task(0, privileged=True, host_network=True)))
    assert container(pod)["securityContext"]["privileged"] is True
    assert pod["spec"]["hostNetwork"] is True
    plain = the_pod(where, group(task(0)))
    assert "privileged" not in container(plain)["securityContext"]
    assert plain["spec"]["hostNetwork"] is False


def test_templates_are_merged_from_the_general_to_the_particular() -> None:
    pools = ClusterPools(
        template={"nodeSelector": {"a": "cluster", "b": "cluster"}, "hostNetwork": True},
        pools={
            "default": Pool(
                template={"metadata": {"labels": {"team": "x"}}, "spec": {"runtimeClassName": "r"}},
                platforms={
                    "p": Platform(
                        node_selector={"b": "platform"},
                        template={"containers": [{"name": "task", "tty": True, "image": "no"}]},
                    )
                },
            )
        },
    )
    pod = the_pod(Site("east", "cairn", pools), group(task(0)))
    assert pod["spec"]["nodeSelector"] == {"a": "cluster", "b": "platform"}
    assert pod["spec"]["runtimeClassName"] == "r"
    assert pod["spec"]["hostNetwork"] is False  # no template grants what the task did not ask for
    assert pod["metadata"]["labels"]["team"] == "x"
    assert container(pod)["tty"] is True
    assert container(pod)["image"] == "ubuntu:24.04"


def test_the_runtime_stands_beside_the_task() -> None:
    where = Site("east", "cairn", runtime_image="cairn/runtime:1", store="s3://store/")
    pod = the_pod(
        where,
        group(task(0, inputs=[InputSource(task="t", location="w/t/0")], location="w/me/0")),
    )
    fetch, keep = pod["spec"]["initContainers"]
    assert (fetch["name"], keep["name"]) == ("cairn-fetch", "cairn-keep")
    assert "restartPolicy" not in fetch
    assert keep["restartPolicy"] == "Always"
    assert keep["securityContext"]["readOnlyRootFilesystem"] is True
    order = json.loads(fetch["env"][0]["value"])
    assert order["inputs"][0]["url"] == "s3://store/w/t/0"
    assert order["outputs"] == [{"url": "s3://store/w/me/0", "regex": None}]


@pytest.mark.parametrize(
    ("template", "rights"),
    [
        ({}, {"runAsUser": 0, "capabilities": {"drop": ["ALL"], "add": ["DAC_OVERRIDE", "KILL"]}}),
        ({"securityContext": {"runAsUser": 1000}}, {"capabilities": {"drop": ["ALL"]}}),
        ({"securityContext": {"runAsNonRoot": True}}, {"capabilities": {"drop": ["ALL"]}}),
        (
            {"initContainers": [{"name": "cairn-keep", "securityContext": {"runAsUser": 7}}]},
            {"runAsUser": 7, "capabilities": {"drop": ["ALL"], "add": ["DAC_OVERRIDE", "KILL"]}},
        ),
    ],
)
def test_the_runtime_reads_what_any_user_wrote_unless_the_pod_has_one_user(
    template: dict[str, Any], rights: dict[str, Any]
) -> None:
    where = Site("east", "cairn", ClusterPools(template=template), runtime_image="cairn:1")
    keep = the_pod(where, group(task(0)))["spec"]["initContainers"][1]
    fixed = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True}
    assert keep["securityContext"] == {**fixed, **rights}


def test_the_sidecar_can_end_the_task_and_knows_how_many_sidecars_there_are() -> None:
    mesh = {"name": "mesh", "image": "mesh:1", "restartPolicy": "Always"}
    for template, count in ({}, "0"), ({"initContainers": [mesh]}, "1"):
        where = Site("east", "cairn", ClusterPools(template=template), runtime_image="cairn:1")
        spec = the_pod(where, group(task(0)))["spec"]
        keep = spec["initContainers"][1]
        assert spec["shareProcessNamespace"] is True
        assert keep["lifecycle"]["preStop"]["exec"]["command"][-1] == "ending"
        assert {"name": "CAIRN_SIDECARS", "value": count} in keep["env"]
        assert json.loads(keep["env"][0]["value"])["grace"] == 30


def test_credentials_are_the_clusters_secrets() -> None:
    where = site(
        credentials={
            "aws": Credential(secret="team-aws", keys=["id", "key"]),
            "token": Credential(secret="robots", keys=["token"]),
        }
    )
    wanted = {"aws": {"AWS_ACCESS_KEY_ID": "id"}, "token": "/run/token"}
    pod = the_pod(where, group(task(0, credentials=wanted)))
    (variable,) = [each for each in container(pod)["env"] if each["name"] == "AWS_ACCESS_KEY_ID"]
    assert variable["valueFrom"] == {"secretKeyRef": {"name": "team-aws", "key": "id"}}
    (mount,) = [
        each for each in container(pod)["volumeMounts"] if each["mountPath"] == "/run/token"
    ]
    (volume,) = [each for each in pod["spec"]["volumes"] if each["name"] == mount["name"]]
    assert volume["secret"]["secretName"] == "robots"
    assert volume["secret"]["items"] == [{"key": "token", "path": "token"}]
    assert mount["readOnly"] is True


def test_a_pool_gives_no_other_credentials_and_no_other_keys() -> None:
    where = site(credentials={"aws": Credential(secret="team-aws", keys=["id"])})
    for wanted in ({"other": "/o"}, {"aws": {"KEY": "key"}}):
        with pytest.raises(PlacementError, match=r"credential: other|no key key"):
            build(where, group(task(0, credentials=wanted)), None)


def test_tasks_that_start_together_wait_at_a_barrier() -> None:
    where = Site("east", "cairn", runtime_image="cairn/runtime:1")
    together = group(task(0), task(1))
    for pod in build(where, together, None).pods.values():
        *_, last = pod["spec"]["initContainers"]
        assert last["name"] == "cairn-barrier"
        assert last["volumeMounts"][0]["readOnly"] is True
        (volume,) = [each for each in pod["spec"]["volumes"] if each["name"] == "cairn-barrier"]
        (item,) = volume["downwardAPI"]["items"]
        assert item["fieldRef"]["fieldPath"] == "metadata.annotations['cairn/barrier']"
        assert pod["metadata"]["annotations"]["cairn/barrier"] == "closed"
    for alone in (
        build(where, group(task(0)), None),
        build(where, together.model_copy(update={"barrier": False}), None),
        build(Site("east", "cairn"), together, None),
    ):
        for pod in alone.pods.values():
            assert "cairn/barrier" not in pod["metadata"]["annotations"]
            assert "cairn-barrier" not in json.dumps(pod)


def saved(path: str, url: str = "file:///saved", **fields: Any) -> Checkpoint:
    return Checkpoint(path=path, url=url, frequency=60, **fields)


def test_a_checkpointed_folder_is_a_volume_of_the_task_and_of_the_sidecar() -> None:
    where = Site("east", "cairn", runtime_image="cairn/runtime:1")
    wanted = [
        saved("/train/run/", "file:///runs/{{workflow_id}}", regex="x"),
        saved("/train/run/best"),
        saved("{{output}}/{{workflow_id}}"),
        saved("/other"),
    ]
    pod = the_pod(where, group(task(0, checkpoints=wanted)))
    fetch, keep = pod["spec"]["initContainers"]
    own = {
        each["mountPath"]: each["name"]
        for each in container(pod)["volumeMounts"]
        if each["name"].startswith("cairn-checkpoint")
    }
    assert own == {"/train/run": "cairn-checkpoint-1", "/other": "cairn-checkpoint-0"}
    volumes = {each["name"]: each for each in pod["spec"]["volumes"]}
    assert all("emptyDir" in volumes[name] for name in own.values())
    seen = {each["name"]: each for each in keep["volumeMounts"]}
    assert set(seen) == {"cairn-data", *own.values()}
    assert seen["cairn-checkpoint-1"] == {
        "name": "cairn-checkpoint-1",
        "mountPath": "/osmo/checkpoints/cairn-checkpoint-1",
        "readOnly": True,
    }
    assert [each["name"] for each in fetch["volumeMounts"]] == ["cairn-data"]
    orders = json.loads(keep["env"][0]["value"])["checkpoints"]
    assert orders[0] == {
        "path": "/train/run",
        "base": "/osmo/checkpoints/cairn-checkpoint-1",
        "inner": "",
        "url": "file:///runs/story-7",
        "frequency": 60.0,
        "regex": "x",
    }
    assert [(each["base"][-12:], each["inner"]) for each in orders[1:]] == [
        ("checkpoint-1", "best"),
        ("/data/output", "story-7"),
        ("checkpoint-0", ""),
    ]
    # Exactly what the sidecar reads.
    assert [Order(**each).path for each in orders][1] == "/train/run/best"


@pytest.mark.parametrize(
    ("image", "path", "words"),
    [
        (None, "/train", "cluster east makes no checkpoints: its bridge has no image"),
        ("r:1", "/mnt/data/run", "/mnt/data/run and the volume mount /nfs:/mnt/data lie in one"),
        ("r:1", "/mnt", "/mnt and the volume mount /nfs:/mnt/data lie in one another"),
        ("r:1", "/proc/x", "belongs to the system"),
        ("r:1", "work", "is no absolute path"),
    ],
)
def test_checkpoints_that_cannot_be_made_are_refused(
    image: str | None, path: str, words: str
) -> None:
    platform = Platform(default_mounts=["/nfs:/mnt/data"])
    pools = ClusterPools(
        pools={"default": Pool(platforms={"cpu": platform}, default_platform="cpu")}
    )
    where = Site("east", "cairn", pools, runtime_image=image)
    with pytest.raises(PlacementError) as caught:
        the_pod(where, group(task(0, checkpoints=[saved(path)])))
    assert words in str(caught.value)


def test_a_cluster_says_whether_it_makes_checkpoints() -> None:
    async def nobody() -> Any:
        raise AssertionError

    without = KubernetesDriver(nobody, Site("east"))
    assert Feature.CHECKPOINT not in without.features
    having = KubernetesDriver(nobody, Site("east", runtime_image="r:1"))
    assert having.features == without.features | {Feature.CHECKPOINT}


def test_queues_say_shares_in_the_units_of_kai() -> None:
    where = site(
        queue=Queue(
            cpu=Share(guarantee=2, maximum=4),
            memory=Share(guarantee=4e9),
            gpu=Share(guarantee=0, maximum=8, weight=3),
        ),
        topology_keys=ZONE_RACK,
    )
    objects = {(each["kind"], each["metadata"]["name"]): each for each in scheduler_objects(where)}
    queue = objects["Queue", "cairn-cairn-default"]["spec"]
    assert queue["parentQueue"] == "cairn-cairn"
    assert queue["resources"] == {
        "cpu": {"quota": 2000, "limit": 4000, "overQuotaWeight": 1},
        "memory": {"quota": 4000, "limit": -1, "overQuotaWeight": 1},
        "gpu": {"quota": 0, "limit": 8, "overQuotaWeight": 3},
    }
    assert objects["Topology", "cairn-cairn-default"]["spec"]["levels"] == [
        {"nodeLabel": "t/zone"},
        {"nodeLabel": "t/rack"},
    ]
    assert objects["PriorityClass", "cairn-low"]["value"] < 100
    assert objects["PriorityClass", "cairn-normal"]["value"] >= 100


def test_what_all_tasks_share_constrains_the_whole_group() -> None:
    tasks = [task(n, topology=[Topology(key="rack", required=False)]) for n in range(3)]
    layout = lay_out(tasks, ZONE_RACK, "topo")
    assert layout.constraint == {"topology": "topo", "preferredTopologyLevel": "t/rack"}
    assert layout.subgroups == []


def test_different_groups_of_a_level_become_subgroups_and_the_rest_has_its_own() -> None:
    def near(rack: str) -> list[Topology]:
        return [Topology(key="rack", group=rack), Topology(key="zone")]

    tasks = [
        task(0, topology=near("a")),
        task(1, topology=near("b")),
        task(2, topology=near("b")),
        task(3, topology=[Topology(key="zone")]),
    ]
    layout = lay_out(tasks, ZONE_RACK, "topo")
    assert layout.constraint == {"topology": "topo", "requiredTopologyLevel": "t/zone"}
    minima = {each["name"]: each["minMember"] for each in layout.subgroups}
    assert minima == {
        "zone-default-rack-a": 1,
        "zone-default-rack-b": 2,
        "zone-default-rest": 1,
    }
    assert layout.leaf_of[2] == "zone-default-rack-b"
    assert [leaf_for(each, ZONE_RACK, minima) for each in tasks] == [
        layout.leaf_of[each.index] for each in tasks
    ]


def test_a_retry_joins_the_subgroup_of_its_first_attempt() -> None:
    where = site(topology_keys=ZONE_RACK)
    tasks = [task(n, topology=[Topology(key="rack", group=f"r{n}")]) for n in range(2)]
    first = build(where, group(*tasks), None)
    again = build(where, group(tasks[1].model_copy(update={"attempt": 1})), None, first.pod_group)
    (pod,) = again.pods.values()
    assert pod["metadata"]["labels"]["kai.scheduler/subgroup-name"] == "rack-r1"


def test_a_gang_starts_together_and_goes_on_with_those_that_run() -> None:
    waiting, running = Member(None, bound=False), Member(None, bound=True)
    assert minimum([waiting, waiting]) == {None: 2}
    assert minimum([running, running, waiting]) == {None: 2}
    assert minimum([]) == {}
    assert minimum(
        [Member("a", bound=True), Member("a", bound=False), Member("b", bound=False)]
    ) == {
        "a": 1,
        "b": 1,
    }


def test_leaves_without_pods_go_and_take_empty_parents_along() -> None:
    subgroups = [
        {"name": "z1", "topologyConstraint": {}},
        {"name": "z1-a", "parent": "z1", "minMember": 2},
        {"name": "z2", "topologyConstraint": {}},
        {"name": "z2-a", "parent": "z2", "minMember": 1},
    ]
    assert shrunk(subgroups, {"z1-a": 1}) == [
        {"name": "z1", "topologyConstraint": {}},
        {"name": "z1-a", "parent": "z1", "minMember": 1},
    ]


def test_each_pod_mounts_its_own_pass_and_no_other() -> None:
    where = Site("east", "cairn", nats_url="nats://bus:4222")
    placement = group(*(task(index) for index in range(401)))
    passes = {f"{index:032x}-0": f"pass {index}" for index in range(401)}
    wanted = build(where, placement, None, passes=passes)
    secrets = {each["metadata"]["name"]: each["data"] for each in wanted.owned if "data" in each}
    assert [len(data) for data in secrets.values()] == [400, 1]
    for index, pod in enumerate(wanted.pods.values()):
        (volume,) = (each for each in pod["spec"]["volumes"] if each["name"] == "cairn-nats")
        ((key, path),) = ((each["key"], each["path"]) for each in volume["secret"]["items"])
        content = secrets[volume["secret"]["secretName"]][key]
        assert base64.b64decode(content).decode() == f"pass {index}"
        environment = {each["name"]: each["value"] for each in container(pod)["env"]}
        assert environment["NATS_URL"] == "nats://bus:4222"
        mounts = {each["name"]: each["mountPath"] for each in container(pod)["volumeMounts"]}
        assert environment["NATS_CREDS"] == f"{mounts['cairn-nats']}/{path}"
    bare = build(where, placement, None)
    assert not [each for each in bare.owned if "data" in each]
    assert "NATS_CREDS" not in str(bare.pods)


def test_more_mounts_take_none_away_though_they_share_a_volume() -> None:
    files = [InjectedFile(path=path, contents=path) for path in ("/a", "/b")]
    one = group(task(0, files=files, credentials={"maps": "/run/maps"}))
    where = site(
        credentials={"maps": Credential(secret="team-maps", keys=["user"])},
        template={
            "containers": [
                {"name": "task", "volumeMounts": [{"name": "more", "mountPath": "/more"}]}
            ]
        },
    )
    (pod,) = build(where, one, None, passes={f"{0:032x}-0": "pass"}).pods.values()
    assert {each["mountPath"]: each.get("subPath") for each in container(pod)["volumeMounts"]} == {
        "/more": None,
        "/osmo/data/output": "output",
        "/osmo/data/input": "input",
        "/a": "file-0",
        "/b": "file-1",
        "/run/maps": None,
        "/var/run/secrets/cairn": None,
    }
