"""The control planes are real: what only a real API server and its controllers do."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from kubernetes_asyncio import client
from testcluster.kubeapi import create_all, request, until
from testcluster.reached import Reached


def secret(namespace: str, name: str, owner: object = None) -> dict[str, object]:
    metadata = {"name": name, "namespace": namespace}
    if owner is not None:
        metadata["ownerReferences"] = [owner]
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata}


async def test_deleting_an_owner_deletes_what_it_owns(north: Reached, namespace: str) -> None:
    async with north.api() as api:
        core = client.CoreV1Api(api)
        parent = await core.create_namespaced_secret(namespace, secret(namespace, "parent"))
        owner = {"apiVersion": "v1", "kind": "Secret", "name": "parent", "uid": parent.metadata.uid}
        await create_all(api, [secret(namespace, "child", owner), secret(namespace, "stranger")])
        await core.delete_namespaced_secret("parent", namespace)

        async def names() -> bool:
            found = await core.list_namespaced_secret(namespace)
            return {one.metadata.name for one in found.items} == {"stranger"}

        await until(names, "the owned secret is collected and the other is left")


async def test_clusters_are_independent(clusters: Sequence[Reached], south: Reached) -> None:
    north = clusters[0]
    async with north.namespace("only-north") as name, south.api() as api:
        with pytest.raises(client.ApiException) as refused:
            await client.CoreV1Api(api).read_namespace(name)
    assert refused.value.status == 404


async def test_a_service_account_may_do_what_roles_say_and_no_more(
    north: Reached, namespace: str
) -> None:
    async with north.api() as api:
        await create_all(
            api,
            [
                {
                    "apiVersion": "rbac.authorization.k8s.io/v1",
                    "kind": "Role",
                    "metadata": {"name": "reader", "namespace": namespace},
                    "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}],
                },
                {
                    "apiVersion": "rbac.authorization.k8s.io/v1",
                    "kind": "RoleBinding",
                    "metadata": {"name": "reader", "namespace": namespace},
                    "roleRef": {
                        "apiGroup": "rbac.authorization.k8s.io",
                        "kind": "Role",
                        "name": "reader",
                    },
                    "subjects": [
                        {"kind": "ServiceAccount", "name": "default", "namespace": namespace}
                    ],
                },
            ],
        )
        token = await request(
            api,
            "POST",
            f"/api/v1/namespaces/{namespace}/serviceaccounts/default/token",
            {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}},
        )
        settings = client.Configuration()
        settings.host = api.configuration.host
        settings.ssl_ca_cert = api.configuration.ssl_ca_cert
        settings.api_key["BearerToken"] = f"Bearer {token['status']['token']}"
        async with client.ApiClient(settings) as limited:
            core = client.CoreV1Api(limited)

            async def allowed() -> bool:  # the API server learns of a binding by a watch
                try:
                    await core.list_namespaced_pod(namespace)
                except client.ApiException as error:
                    if error.status == 403:
                        return False
                    raise
                return True

            await until(allowed, "the role is in force")
            with pytest.raises(client.ApiException) as refused:
                await core.list_namespaced_secret(namespace)
    assert refused.value.status == 403
