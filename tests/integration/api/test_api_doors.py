"""Who is let in: hosts, origins, kinds and sizes of bodies, versions of clients."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator

import httpx
import pytest

from cairn_common.asyncapi import asyncapi_document
from integration.api.harness import Cluster, fresh, serving, spec
from servers import Servers


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "a@localhost"])
async def test_other_hosts_are_not_served(api: httpx.AsyncClient, host: str) -> None:
    answer = await api.get("/api/version", headers={"host": host})
    assert answer.status_code == 421


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1:1", "[::1]:9"])
async def test_this_machine_by_any_of_its_names(api: httpx.AsyncClient, host: str) -> None:
    assert (await api.get("/api/version", headers={"host": host})).status_code == 200


async def test_a_name_that_the_operator_allows(servers: Servers) -> None:
    async with serving(servers, allowed_hosts=["Cairn.example"]) as api:
        answer = await api.get("/api/version", headers={"host": "cairn.example:8000"})
        assert answer.status_code == 200


async def test_no_web_page_of_another_origin_gets_in(api: httpx.AsyncClient) -> None:
    own = str(api.base_url).rstrip("/")
    body = {"file": spec(fresh())}
    url = "/api/pool/default/workflow"
    for origin in ("https://evil.example", "null", "http://localhost:1", "https" + own[4:]):
        answer = await api.post(url, json=body, headers={"origin": origin})
        assert answer.status_code == 403, origin
        assert not [name for name in answer.headers if name.startswith("access-control")]
    preflight = await api.options(
        url, headers={"origin": "https://evil.example", "access-control-request-method": "POST"}
    )
    assert preflight.status_code == 403
    cross = await api.get("/api/version", headers={"sec-fetch-site": "cross-site"})
    assert cross.status_code == 403
    same = await api.post(url, json=body, headers={"origin": own, "sec-fetch-site": "same-origin"})
    assert same.status_code == 200


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
)
async def test_only_json_is_taken(api: httpx.AsyncClient, kind: str) -> None:
    answer = await api.post(
        "/api/pool/default/workflow",
        content=json.dumps({"file": spec(fresh())}),
        headers={"content-type": kind},
    )
    assert answer.status_code == 415


async def test_bodies_are_bounded(servers: Servers) -> None:
    async with serving(servers, max_body_bytes=10_000, max_spec_bytes=5_000) as api:
        url = "/api/pool/default/workflow"
        large = json.dumps({"file": "x" * 20_000}).encode()
        headers = {"content-type": "application/json"}
        assert (await api.post(url, content=large, headers=headers)).status_code == 413

        async def pieces() -> AsyncIterator[bytes]:
            for start in range(0, len(large), 1000):
                yield large[start : start + 1000]

        chunked = await api.post(url, content=pieces(), headers=headers)
        assert chunked.status_code == 413, chunked.text
        spec_too_large = await api.post(url, json={"file": "x" * 6_000})
        assert spec_too_large.status_code == 400
        assert "more than 5,000 bytes" in spec_too_large.json()["message"]
        assert (await api.post(url, content=b"{", headers=headers)).status_code == 422


async def test_the_version_handshake(api: httpx.AsyncClient) -> None:
    async def hello(version: str) -> httpx.Response:
        return await api.get("/api/pool", headers={"x-osmo-client-version": version})

    same = await hello("6.4.0")
    assert same.headers["x-osmo-service-version"] == "6.4.0"
    assert "x-osmo-warning" not in same.headers
    older = await hello("6.2.1.rc1")
    assert older.status_code == 200
    assert b"6.2.1.rc1" in base64.b64decode(older.headers["x-osmo-warning"])
    ancient = await hello("5.9.9")
    assert (ancient.status_code, ancient.json()["error_code"]) == (400, "OSMO_ERROR")
    assert (await hello("junk")).status_code == 400
    assert "x-osmo-service-version" not in (await api.get("/api/pool")).headers


async def test_the_documents(api: httpx.AsyncClient) -> None:
    openapi = (await api.get("/api/openapi.json")).json()
    assert "/api/pool/{pool_name}/workflow" in openapi["paths"]
    for path, methods in openapi["paths"].items():
        for operation in methods.values():
            assert operation.get("description"), path
    assert (await api.get("/api/asyncapi")).json() == asyncapi_document()


async def test_user_names_are_names(api: httpx.AsyncClient) -> None:
    answer = await api.get("/api/workflow", headers={"x-osmo-user": "a b"})
    assert answer.status_code == 400


async def test_with_tracing_the_api_is_the_same(servers: Servers, cluster: Cluster) -> None:
    async with serving(servers, otlp_endpoint="http://127.0.0.1:9/v1/traces") as api:
        answer = await api.post("/api/pool/default/workflow", json={"file": spec(fresh())})
        assert answer.status_code == 200
        evil = await api.get("/api/version", headers={"host": "evil.example"})
        assert evil.status_code == 421
