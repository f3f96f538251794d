"""What `deploy/kubernetes` holds for operators, as the API server sees it."""

from __future__ import annotations

from testcluster.account import manifest
from testcluster.kubeapi import collection, request
from testcluster.reached import Reached


async def test_the_api_server_accepts_the_bridge_strictly(north: Reached, namespace: str) -> None:
    """Unknown fields, wrong types and what a kind's own validation refuses are errors."""
    async with north.api() as api:
        for one in manifest(namespace):
            if one["kind"] == "Namespace":
                continue
            made = await request(
                api,
                "POST",
                collection(one),
                one,
                query={"dryRun": "All", "fieldValidation": "Strict"},
            )
            assert made["metadata"]["name"] == one["metadata"]["name"]
