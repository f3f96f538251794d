"""The bridge's own account, as `deploy/kubernetes/bridge.yaml` gives it to operators.

Tests that drive a whole system use it instead of an administrator's rights: what the file forgets
is refused here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml

from testcluster.kubeapi import collection, create_all, documents, request
from testcluster.reached import Reached

MANIFEST = Path(__file__).parents[3] / "deploy/kubernetes/bridge.yaml"
_NAMESPACE, _NAME = "cairn", "cairn-bridge"
_RIGHTS = {"ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"}


def manifest(namespace: str) -> list[dict[str, Any]]:
    """The file's objects for another namespace; names of what has none say which."""
    renamed: list[dict[str, Any]] = _renamed(documents(MANIFEST), namespace)
    for one in renamed:
        if one["kind"].startswith("ClusterRole"):
            one["metadata"]["name"] += f"-{namespace}"
        if one["kind"] == "ClusterRoleBinding":
            one["roleRef"]["name"] += f"-{namespace}"
    return renamed


def _renamed(value: Any, namespace: str) -> Any:
    if isinstance(value, list):
        return [_renamed(each, namespace) for each in value]
    if not isinstance(value, Mapping):
        return value
    changed = {key: _renamed(each, namespace) for key, each in value.items()}
    if changed.get("namespace") == _NAMESPACE:
        changed["namespace"] = namespace
    if changed.get("kind") == "Namespace":
        changed["metadata"]["name"] = namespace
    return changed


@asynccontextmanager
async def bridge_account(
    reached: Reached, namespace: str, file: Path, *, without: tuple[str, str] | None = None
) -> AsyncIterator[None]:
    """An account in a namespace that exists, and a kubeconfig with its token; it vanishes after.

    `without`: a kind of role and the resource that it says nothing of.
    """
    objects = [one for one in manifest(namespace) if one["kind"] in _RIGHTS]
    for one in objects:
        if without is not None and one["kind"] == without[0]:
            one["rules"] = [each for each in one["rules"] if each["resources"] != [without[1]]]
    async with reached.api() as api:
        await create_all(api, objects)
        try:
            account = f"/api/v1/namespaces/{namespace}/serviceaccounts/{_NAME}/token"
            wanted = {
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenRequest",
                "spec": {"expirationSeconds": 24 * 3600},
            }
            token = (await request(api, "POST", account, wanted))["status"]["token"]
            _write_kubeconfig(reached, token, file)
            yield
        finally:
            for one in objects:
                await request(api, "DELETE", f"{collection(one)}/{one['metadata']['name']}")


def _write_kubeconfig(reached: Reached, token: str, file: Path) -> None:
    """A kubeconfig for the same cluster with nothing but a token."""
    given = yaml.safe_load(reached.kubeconfig.read_text())
    (context,) = (each for each in given["contexts"] if each["name"] == reached.context)
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            each for each in given["clusters"] if each["name"] == context["context"]["cluster"]
        ],
        "users": [{"name": "bridge", "user": {"token": token}}],
        "contexts": [
            {
                "name": "bridge",
                "context": {"cluster": context["context"]["cluster"], "user": "bridge"},
            }
        ],
        "current-context": "bridge",
    }
    file.write_text(yaml.safe_dump(config))
    file.chmod(0o600)
