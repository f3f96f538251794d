"""The simulated kubelet: every way a pod's life goes, and the streams of its containers."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from kubernetes_asyncio import client
from kubernetes_asyncio.stream import WsApiClient
from testcluster import kwok, nodes
from testcluster.cluster import Cluster, is_ready
from testcluster.kubeapi import create_all, request, until
from testcluster.workloads import pod

pytestmark = pytest.mark.simulator

NODE = "cpu-0"
INIT = {"name": "fetch", "image": "busybox:stable"}
SIDECAR = {"name": "control", "image": "busybox:stable", "restartPolicy": "Always"}


@pytest.fixture
async def api(simulated: Cluster) -> AsyncIterator[client.ApiClient]:
    async with simulated.api() as connected:
        yield connected


async def status_of(api: client.ApiClient, namespace: str, name: str) -> dict[str, Any]:
    path = f"/api/v1/namespaces/{namespace}/pods/{name}"
    return dict((await request(api, "GET", path)).get("status", {}))


async def ended(api: client.ApiClient, namespace: str, name: str) -> dict[str, Any]:
    """The status of the pod once it is over."""

    async def probe() -> dict[str, Any] | None:
        status = await status_of(api, namespace, name)
        return status if status.get("phase") in {"Succeeded", "Failed"} else None

    return await until(probe, f"{name} is over")


def end_of(status: Mapping[str, Any], field: str = "containerStatuses") -> tuple[int, str]:
    """Exit code and reason of the first container."""
    terminated = status[field][0]["state"]["terminated"]
    return terminated["exitCode"], terminated["reason"]


@pytest.mark.parametrize(
    ("sim", "phase", "code", "reason"),
    [
        ({"run": "100ms"}, "Succeeded", 0, "Completed"),
        ({"run": "100ms", "exit-code": "3"}, "Failed", 3, "Error"),
        ({"run": "100ms", "end": "OOMKilled"}, "Failed", 137, "OOMKilled"),
        ({"run": "100ms", "end": "Evicted"}, "Failed", 137, "Error"),
    ],
    ids=["success", "failure", "out-of-memory", "evicted"],
)
async def test_how_a_pod_ends(
    api: client.ApiClient,
    namespace: str,
    sim: Mapping[str, str],
    phase: str,
    code: int,
    reason: str,
) -> None:
    await create_all(api, [pod(namespace, "one", node=NODE, sim=sim)])
    status = await ended(api, namespace, "one")
    assert status["phase"] == phase
    assert end_of(status) == (code, reason)
    evicted = "end" in sim and sim["end"] == "Evicted"
    assert status.get("reason") == ("Evicted" if evicted else None)
    disrupted = [one for one in status["conditions"] if one["type"] == "DisruptionTarget"]
    assert [one["reason"] for one in disrupted] == (["TerminationByKubelet"] if evicted else [])


async def test_an_image_that_cannot_be_pulled(api: client.ApiClient, namespace: str) -> None:
    one = pod(namespace, "one", node=NODE)
    one["spec"]["containers"][0]["image"] = "missing/image:1"
    await create_all(api, [one])
    seen: set[str] = set()

    async def both() -> bool:
        for container in (await status_of(api, namespace, "one")).get("containerStatuses", []):
            seen.add(container["state"]["waiting"]["reason"])
        return {"ErrImagePull", "ImagePullBackOff"} <= seen

    await until(both, "the kubelet tries, fails and backs off", pause=0.02)
    assert (await status_of(api, namespace, "one"))["phase"] == "Pending"


async def test_a_slow_start_waits_in_container_creating(
    api: client.ApiClient, namespace: str
) -> None:
    sim = {"start-after": "2s", "run": "forever"}
    await create_all(api, [pod(namespace, "one", node=NODE, sim=sim)])

    async def accepted() -> bool:
        return bool((await status_of(api, namespace, "one")).get("startTime"))

    await until(accepted, "the kubelet has the pod")
    await asyncio.sleep(0.5)
    status = await status_of(api, namespace, "one")
    assert status["phase"] == "Pending"
    assert status["containerStatuses"][0]["state"]["waiting"]["reason"] == "ContainerCreating"

    async def running() -> bool:
        return (await status_of(api, namespace, "one"))["phase"] == "Running"

    await until(running, "it starts in the end")


async def test_init_containers_end_before_and_sidecars_after_the_main_container(
    api: client.ApiClient, namespace: str
) -> None:
    sim = {"init-run": "300ms", "run": "300ms", "sidecar-run": "1500ms"}
    await create_all(api, [pod(namespace, "one", node=NODE, init=[INIT, SIDECAR], sim=sim)])

    async def main_ended() -> dict[str, Any] | None:
        status = await status_of(api, namespace, "one")
        states = [one["state"] for one in status.get("containerStatuses", [])]
        return status if any("terminated" in state for state in states) else None

    status = await until(main_ended, "the main container ends")
    fetch, control = status["initContainerStatuses"]
    assert fetch["state"]["terminated"]["exitCode"] == 0
    assert "running" in control["state"]
    assert status["phase"] == "Running"
    status = await ended(api, namespace, "one")
    assert status["phase"] == "Succeeded"
    assert all("terminated" in one["state"] for one in status["initContainerStatuses"])


async def test_a_failed_init_container_fails_the_pod(api: client.ApiClient, namespace: str) -> None:
    told = {**INIT, "env": [{"name": "SIM_INIT_EXIT_CODE", "value": "4"}]}
    await create_all(api, [pod(namespace, "one", node=NODE, init=[told])])
    status = await ended(api, namespace, "one")
    assert status["phase"] == "Failed"
    assert end_of(status, "initContainerStatuses") == (4, "Error")
    assert "waiting" in status["containerStatuses"][0]["state"]


async def test_environment_variables_tell_a_pod_its_life(
    api: client.ApiClient, namespace: str
) -> None:
    one = pod(namespace, "one", node=NODE)
    one["spec"]["containers"][0]["env"] = [
        {"name": "SIM_RUN", "value": "100ms"},
        {"name": "SIM_EXIT_CODE", "value": "7"},
    ]
    await create_all(api, [one])
    assert end_of(await ended(api, namespace, "one")) == (7, "Error")


async def test_a_deleted_pod_ends_its_containers_before_it_is_gone(
    api: client.ApiClient, namespace: str
) -> None:
    sim = {"run": "forever", "stop": "1s"}
    await create_all(api, [pod(namespace, "one", node=NODE, sim=sim)])

    async def running() -> bool:
        return (await status_of(api, namespace, "one")).get("phase") == "Running"

    await until(running, "it runs")
    path = f"/api/v1/namespaces/{namespace}/pods"
    await request(api, "DELETE", f"{path}/one")
    assert (await status_of(api, namespace, "one"))["phase"] == "Running"

    async def gone() -> bool:
        return not (await request(api, "GET", path))["items"]

    await until(gone, "it is gone")


async def test_a_lost_node_becomes_unready_and_its_pods_are_evicted(
    simulated: Cluster, api: client.ApiClient, namespace: str
) -> None:
    await simulated.add_nodes([nodes.node(nodes.CPU, "short-lived")])
    await create_all(api, [pod(namespace, "one", node="short-lived", sim={"run": "forever"})])
    await simulated.lose_node("short-lived")

    async def unready() -> dict[str, Any] | None:
        found = await request(api, "GET", "/api/v1/nodes/short-lived")
        return None if is_ready(found) else dict(found)

    lost = await until(unready, "the node counts as lost", seconds=60)
    [ready] = [one for one in lost["status"]["conditions"] if one["type"] == "Ready"]
    assert (ready["status"], ready["reason"]) == ("Unknown", "NodeStatusUnknown")

    async def evicted() -> dict[str, Any] | None:
        found = await request(api, "GET", f"/api/v1/namespaces/{namespace}/pods/one")
        return dict(found) if "deletionTimestamp" in found["metadata"] else None

    pod_now = await until(evicted, "the pod is evicted from the lost node", seconds=60)
    reasons = {
        one["type"]: one["reason"] for one in pod_now["status"]["conditions"] if "reason" in one
    }
    assert reasons["DisruptionTarget"] == "DeletionByTaintManager"
    # Nobody on the node ends it: it takes force.
    path = f"/api/v1/namespaces/{namespace}/pods/one"
    await request(api, "DELETE", path, query={"gracePeriodSeconds": "0"})
    await simulated.remove_nodes(["short-lived"])


async def test_a_drained_node_evicts_through_the_api(
    simulated: Cluster, api: client.ApiClient, namespace: str
) -> None:
    await simulated.add_nodes([nodes.node(nodes.CPU, "drained")])
    await create_all(
        api, [pod(namespace, "one", node="drained", sim={"run": "forever", "stop": "2s"})]
    )

    async def running() -> bool:
        return (await status_of(api, namespace, "one")).get("phase") == "Running"

    await until(running, "it runs")
    await simulated.drain("drained")
    conditions = (await status_of(api, namespace, "one"))["conditions"]
    assert "EvictionByEvictionAPI" in {one.get("reason") for one in conditions}

    async def gone() -> bool:
        return not (await request(api, "GET", f"/api/v1/namespaces/{namespace}/pods"))["items"]

    await until(gone, "the pod is gone from the drained node")
    await simulated.remove_nodes(["drained"])


@pytest.fixture
async def running_pod(api: client.ApiClient, namespace: str, tmp_path: Path) -> str:
    """A running pod, `one`, whose log, commands and port 80 lead to this machine."""
    (tmp_path / "log").write_text(
        "2026-01-01T00:00:00.000000000Z stdout F first\n"
        "2026-01-01T00:00:01.000000000Z stderr F second\n"
    )
    await create_all(
        api,
        [
            pod(namespace, "one", node=NODE, sim={"run": "forever"}),
            kwok.pod_log(namespace, "one", tmp_path / "log"),
            kwok.pod_exec(namespace, "one", tmp_path, COLOR="green"),
        ],
    )

    async def running() -> bool:
        return (await status_of(api, namespace, "one")).get("phase") == "Running"

    await until(running, "it runs")
    return "one"


async def test_logs_are_read_and_followed(
    api: client.ApiClient, namespace: str, running_pod: str, tmp_path: Path
) -> None:
    core = client.CoreV1Api(api)

    async def known() -> bool:  # kwok learns of the pod's Logs by a watch
        text = await core.read_namespaced_pod_log(running_pod, namespace, container="main")
        return text == "first\nsecond\n"

    await until(known, "the pod's own log is served")
    response = await core.read_namespaced_pod_log(
        running_pod, namespace, follow=True, tail_lines=1, timestamps=True, _preload_content=False
    )
    async with asyncio.timeout(20):
        assert await response.content.readline() == b"2026-01-01T00:00:01.000000000Z second\n"
        with (tmp_path / "log").open("a") as file:
            file.write("2026-01-01T00:00:02.000000000Z stdout F third\n")
        assert await response.content.readline() == b"2026-01-01T00:00:02.000000000Z third\n"
    response.close()


async def test_commands_are_run(
    simulated: Cluster, namespace: str, running_pod: str, tmp_path: Path
) -> None:
    async with simulated.api() as plain:
        streaming = WsApiClient(plain.configuration)
        core = client.CoreV1Api(streaming)

        async def run(*command: str) -> str:
            return str(
                await core.connect_get_namespaced_pod_exec(
                    running_pod,
                    namespace,
                    container="main",
                    command=list(command),
                    stderr=True,
                    stdin=False,
                    stdout=True,
                    tty=False,
                )
            )

        async def known() -> bool:
            return (await run("sh", "-c", "echo $COLOR")).strip() == "green"

        await until(known, "the pod's own commands are served")
        assert (await run("pwd")).strip() == str(tmp_path)
        await streaming.close()


async def test_a_port_is_forwarded(
    simulated: Cluster, api: client.ApiClient, namespace: str, running_pod: str
) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip(
            "this asks kwok by kubectl, which is not installed; test_driver_streams asks it without"
        )

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"echo " + await reader.readline())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    target = server.sockets[0].getsockname()[1]
    await create_all(api, [kwok.pod_port(namespace, running_pod, 80, target)])
    kubectl = await asyncio.create_subprocess_exec(
        *("kubectl", f"--kubeconfig={simulated.kubeconfig}", "-n", namespace),
        *("port-forward", "--address=127.0.0.1", running_pod, ":80"),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert kubectl.stdout is not None
        async with asyncio.timeout(20):
            line = (await kubectl.stdout.readline()).decode()
            port = int(line.split("127.0.0.1:")[1].split(" ")[0])
            assert await _answer(port) == b"echo hello\n"
    finally:
        kubectl.kill()
        await kubectl.wait()
        server.close()
        await server.wait_closed()


async def _answer(port: int) -> bytes:
    """What the forwarded port answers; asked again while kwok does not know the target yet."""
    while True:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(b"hello\n")
            await writer.drain()
            answer = await reader.readline()
            if answer:
                return answer
        except ConnectionError:
            await asyncio.sleep(0.1)
        finally:
            writer.close()
