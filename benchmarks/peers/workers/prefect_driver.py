"""Prefect: flows that are run in this process, or by a process worker.

    python prefect_driver.py in-process WORK
    python prefect_driver.py process-pool WORK

The server is at PREFECT_API_URL. With `process-pool` this program deploys the flows, starts a
worker, asks for runs through the API and follows them there.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import prefect_flows
from prefect import get_client
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.flows import flow as flow_api
from work import Work, end, measure

POOL = "benchmark"
_GLANCE = 0.05
"""Seconds between two looks at a run: there is no event to wait for in the client."""


async def in_process() -> None:
    """Run the flows here; every run and task run is recorded by the server."""
    (await measure(Work.from_arguments(), prefect_flows.chain, prefect_flows.fan)).tell()


async def _deploy(client: PrefectClient, name: str) -> UUID:
    source = await flow_api.from_source(
        source=str(Path(__file__).parent), entrypoint=f"prefect_flows.py:{name}"
    )
    deployment = await source.to_deployment(name, work_pool_name=POOL)
    return await deployment.apply()


async def _run(client: PrefectClient, deployment: UUID) -> None:
    run = await client.create_flow_run_from_deployment(deployment)
    while True:
        state = (await client.read_flow_run(run.id)).state
        if state is not None and state.is_final():
            if not state.is_completed():
                raise RuntimeError(f"a flow run ended {state.name}: {state.message}")
            return
        await asyncio.sleep(_GLANCE)


async def process_pool() -> None:
    """Have a worker run them, a process for each flow run."""
    async with get_client() as client:
        await client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
        chain, fan = await _deploy(client, "chain"), await _deploy(client, "fan")
        worker = subprocess.Popen(
            [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL],
            stdout=subprocess.DEVNULL,
        )
        try:
            measured = await measure(
                Work.from_arguments(), lambda: _run(client, chain), lambda: _run(client, fan)
            )
        finally:
            end(worker)
    measured.tell()


if __name__ == "__main__":
    asyncio.run(in_process() if sys.argv[1] == "in-process" else process_pool())
