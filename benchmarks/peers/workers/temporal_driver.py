"""Temporal: a worker process, and a client process that starts workflows and waits for them.

    python temporal_driver.py ADDRESS worker
    python temporal_driver.py ADDRESS client WORK

The client makes the namespace, starts the worker and ends it.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import uuid
from datetime import timedelta

from google.protobuf.duration_pb2 import Duration
from temporalio import activity, workflow
from temporalio.api.workflowservice.v1 import RegisterNamespaceRequest
from temporalio.client import Client
from temporalio.service import RPCError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker
from work import TASKS_OF_A_CHAIN, WIDTH, Work, end, measure

NAMESPACE = "benchmark"
QUEUE = "benchmark"
_LIMIT = timedelta(minutes=1)
_PATIENCE = 60.0
"""Seconds that the server gets to start and to know its new namespace."""


@activity.defn
async def noop() -> None:
    """An activity that does nothing."""


@workflow.defn
class Chain:
    """Activities one after the other."""

    @workflow.run
    async def run(self) -> None:
        """Run them."""
        for _ in range(TASKS_OF_A_CHAIN):
            await workflow.execute_activity(noop, start_to_close_timeout=_LIMIT)


@workflow.defn
class Fan:
    """One activity, then many beside each other."""

    @workflow.run
    async def run(self) -> None:
        """Run them."""
        await workflow.execute_activity(noop, start_to_close_timeout=_LIMIT)
        await asyncio.gather(
            *(workflow.execute_activity(noop, start_to_close_timeout=_LIMIT) for _ in range(WIDTH))
        )


async def serve(address: str) -> None:
    """Be the worker until killed."""
    client = await Client.connect(address, namespace=NAMESPACE)
    worker = Worker(
        client,
        task_queue=QUEUE,
        workflows=[Chain, Fan],
        activities=[noop],
        # The checks of determinism cost time and are needed only while a workflow is written.
        workflow_runner=UnsandboxedWorkflowRunner(),
        max_concurrent_workflow_task_polls=10,
        max_concurrent_activity_task_polls=10,
    )
    await worker.run()


async def _connect(address: str) -> Client:
    """The client, once the server is up and the namespace can be used."""
    async with asyncio.timeout(_PATIENCE):
        while True:
            try:
                client = await Client.connect(address, namespace=NAMESPACE)
                break
            except RuntimeError:
                await asyncio.sleep(0.2)
        request = RegisterNamespaceRequest(
            namespace=NAMESPACE, workflow_execution_retention_period=Duration(seconds=86_400)
        )
        while True:
            try:
                await client.workflow_service.register_namespace(request)
                break
            except RPCError:
                await asyncio.sleep(0.2)
        while True:
            try:
                await client.start_workflow(Chain.run, id="first", task_queue=QUEUE)
                break
            except RPCError:
                await asyncio.sleep(0.2)
    return client


async def drive(address: str) -> None:
    """Be the client: measure."""
    client = await _connect(address)
    # This program starts itself a second time.
    worker = subprocess.Popen([sys.executable, __file__, address, "worker"])
    try:

        async def run_chain() -> None:
            await client.execute_workflow(Chain.run, id=uuid.uuid4().hex, task_queue=QUEUE)

        async def run_fan() -> None:
            await client.execute_workflow(Fan.run, id=uuid.uuid4().hex, task_queue=QUEUE)

        (await measure(Work.from_arguments(), run_chain, run_fan)).tell()
    finally:
        end(worker)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]) if sys.argv[2] == "worker" else drive(sys.argv[1]))
