"""What tasks may do: on NATS with the credentials in their pods, and on the node."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import nats
import pytest
from driver_harness import PATIENCE, World, keys_of, next_attempt
from nats.aio.client import RawCredentials

from cairn_bridge.cluster import AttemptKey, Phase, PlacementError
from cairn_bridge.drivers.kubernetes.api import Kind
from cairn_bridge.drivers.kubernetes.core import names
from cairn_bridge.drivers.kubernetes.passes import Passes
from cairn_common.events import Checkpoint, GroupPlacement, InjectedFile
from cairn_common.pools import ClusterPools, Platform, Pool
from cairn_common.security import PassIssuer, subjects_of
from cairn_common.security.natsjwt import claims_of
from securing import NatsServer, secured_nats


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    with secured_nats(tmp_path_factory.mktemp("nats"), ["north"]) as server:
        yield server


@pytest.fixture
def issuer(server: NatsServer) -> PassIssuer:
    return PassIssuer.from_file(server.folder / "tasks-north.json", 600)


async def mounted_pass(world: World, group: GroupPlacement, key: AttemptKey) -> str:
    """The credentials that a pod of the API server mounts: what its containers will read."""
    pod = await world.api.get(world.pods, world.pod_of(key, group))
    assert pod is not None
    (volume,) = (each for each in pod["spec"]["volumes"] if each["name"] == "cairn-nats")
    (item,) = volume["secret"]["items"]
    secret = await world.api.get(world.secrets, volume["secret"]["secretName"])
    assert secret is not None
    return base64.b64decode(secret["data"][item["key"]]).decode()


async def test_the_pass_in_a_pod_opens_its_own_subjects_and_nobody_elses(
    world: World, server: NatsServer, issuer: PassIssuer
) -> None:
    site = replace(world.site, nats_url=server.url)
    complaints: list[str] = []

    async def complain(error: Exception) -> None:
        complaints.append(str(error).lower())

    async with world.driver(site=site, issuer=issuer) as (driver, told):
        group = world.group(2, sim={"run": "forever"})
        mine, other = keys_of(group)
        await driver.place(group, None)
        await told.until(lambda: told.reached([mine, other], Phase.STARTED))
        own, others = (
            subjects_of("north", names.pass_name(task.uuid, 0)).removesuffix(">")
            for task in group.tasks
        )
        client = await nats.connect(
            server.url,
            user_credentials=RawCredentials(await mounted_pass(world, group, mine)),
            error_cb=complain,
        )
        try:
            heard = await client.subscribe(f"{own}>")
            await client.publish(f"{own}x", b"me")
            assert (await heard.next_msg(5)).data == b"me"
            assert not complaints
            await client.publish(f"{others}x", b"you")
            await client.subscribe(f"{others}>")
            await client.flush()
            async with asyncio.timeout(PATIENCE):
                while len(complaints) < 2:
                    await asyncio.sleep(0.01)
            assert all("permissions violation" in each for each in complaints)
        finally:
            await client.close()
        assert await mounted_pass(world, group, other) != await mounted_pass(world, group, mine)


async def test_passes_are_renewed_while_their_attempts_live_and_vanish_with_the_group(
    world: World, server: NatsServer, issuer: PassIssuer
) -> None:
    site = replace(world.site, nats_url=server.url)
    async with world.driver(site=site, issuer=issuer) as (driver, told):
        group = world.group(2, sim={"run": "forever"})
        live, ended = keys_of(group)
        await driver.place(group, None)
        await told.until(lambda: told.reached([live, ended], Phase.STARTED))
        await driver.stop([ended], "again", 1)
        await told.until_ended(ended)
        before = [await mounted_pass(world, group, key) for key in (live, ended)]
        await Passes(driver._api, site, issuer, driver._register).renew()
        after = [await mounted_pass(world, group, key) for key in (live, ended)]
        assert before[0] != after[0]
        assert before[1] == after[1], "who has ended needs no new one"
        old, new = (claims_of(text.splitlines()[1]) for text in (before[0], after[0]))
        assert (new["name"], new["exp"] >= old["exp"]) == (old["name"], True)
        again = next_attempt(group, 1)
        await driver.place(again, None)
        (key,) = keys_of(again)
        await told.until(lambda: told.reached([key], Phase.STARTED))
        fresh = claims_of((await mounted_pass(world, again, key)).splitlines()[1])
        assert fresh["name"].endswith("-1"), "an old attempt's pass is not good for a new one"
        await driver.stop([live, key], "done", 1)
        await told.until_ended(live, key)
        await driver.settle([live, ended, key])
        await world.until_gone(world.pods, world.secrets)


async def test_a_bridge_that_starts_renews_what_it_finds(
    world: World, server: NatsServer, issuer: PassIssuer
) -> None:
    site = replace(world.site, nats_url=server.url)
    group = world.group(sim={"run": "forever"})
    (key,) = keys_of(group)
    async with world.driver(site=site, issuer=issuer) as (driver, told):
        await driver.place(group, None)
        await told.until(lambda: told.reached([key], Phase.STARTED))
        before = await mounted_pass(world, group, key)
    async with world.driver(site=site, issuer=issuer), asyncio.timeout(PATIENCE):
        while await mounted_pass(world, group, key) == before:
            await asyncio.sleep(0.05)


STRICT = {
    "spec": {
        "securityContext": {"runAsNonRoot": True, "runAsUser": 1000},
        "containers": [
            {
                "name": "task",
                "securityContext": {
                    "capabilities": {"drop": ["ALL"]},
                    "readOnlyRootFilesystem": True,
                },
            }
        ],
    }
}


@pytest.mark.parametrize(
    ("level", "pools"),
    [
        ("baseline", ClusterPools()),
        ("restricted", ClusterPools(pools={"default": Pool(template=STRICT)})),
    ],
)
async def test_pods_pass_the_clusters_own_security_standards(
    world: World, server: NatsServer, issuer: PassIssuer, level: str
) -> None:
    """Kubernetes' Pod Security Admission refuses what asks for more than its level allows."""
    enforced = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": level}}}
    await world.api.patch(Kind("v1", "namespaces"), world.site.namespace, enforced)
    site = replace(world.site, nats_url=server.url, runtime_image="cairn:0.1.0")
    async with world.driver(site=site, issuer=issuer) as (driver, told):
        files = [InjectedFile(path="/tmp/run.sh", contents="true")]
        saves = [Checkpoint(path="/train", url="file:///saved", frequency=60)]
        group = world.group(2, sim={"run": "0.2s"}, files=files, checkpoints=saves)
        await driver.place(group, None)
        for outcome in await told.until_ended(*keys_of(group)):
            assert outcome.exit_code == 0
        for pod in await world.all(world.pods):
            assert_few_rights(pod["spec"], {} if level == "restricted" else MORE)


MORE = {names.FETCH_CONTAINER: ["DAC_OVERRIDE"], names.KEEP_CONTAINER: ["DAC_OVERRIDE", "KILL"]}
"""Capabilities of the containers that read what any user wrote, and end what any user runs."""


def assert_few_rights(spec: dict[str, Any], more: dict[str, list[str]]) -> None:
    """As the API server has admitted the pod, whatever its controllers have added."""
    assert spec["automountServiceAccountToken"] is False
    assert not [each for each in spec["volumes"] if "projected" in each], "no token"
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not any(spec.get(each) for each in ("hostNetwork", "hostPID", "hostIPC"))
    for each in [*spec["containers"], *spec["initContainers"]]:
        context = each["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert not context.get("privileged")
    for helper in spec["initContainers"]:
        assert helper["securityContext"]["readOnlyRootFilesystem"] is True
        capabilities = helper["securityContext"]["capabilities"]
        assert capabilities["drop"] == ["ALL"]
        assert capabilities.get("add", []) == more.get(helper["name"], [])
        mounts = {mount["name"] for mount in helper["volumeMounts"]}
        assert (
            mounts
            == {
                names.FETCH_CONTAINER: {names.DATA_VOLUME},
                names.KEEP_CONTAINER: {names.DATA_VOLUME, "cairn-checkpoint-0"},
                names.BARRIER_CONTAINER: {names.BARRIER_VOLUME},
            }[helper["name"]]
        )


@pytest.mark.parametrize(
    "pools",
    [ClusterPools(pools={"default": Pool(platforms={"bold": Platform(privileged_allowed=True)})})],
)
async def test_what_the_pool_allows_the_cluster_may_still_refuse(world: World) -> None:
    enforced = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "baseline"}}}
    await world.api.patch(Kind("v1", "namespaces"), world.site.namespace, enforced)
    async with world.driver() as (driver, _):
        with pytest.raises(PlacementError, match="PodSecurity"):
            await driver.place(world.group(privileged=True), None)
        with pytest.raises(PlacementError, match="does not have hostNetwork flag enabled"):
            await driver.place(world.group(host_network=True), None)
        assert await world.all(world.pods) == []
