"""Temporal: a workflow of activities, worker and client in this process, and the development server
over a SQLite file.

WAL and ``synchronous=FULL`` are asked for; the interface is left out and the workflow is not
sandboxed, which it would pay for. Each activity is stored as scheduled, started and finished.
(Local activities are cheaper, and not stored one by one.)
"""

from __future__ import annotations

import asyncio
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from durable_peer import IN_FLIGHT, STEPS, folder, free_port, options, serve, server
from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

PATIENCE = timedelta(seconds=60)


@activity.defn
async def noop(x: str) -> str:
    return x


@workflow.defn
class Program:
    @workflow.run
    async def run(self, x: str) -> str:
        for _ in range(STEPS):
            x = await workflow.execute_activity(noop, x, start_to_close_timeout=PATIENCE)
        return x


async def main() -> None:
    port = free_port()
    command = [
        options().server,
        "server",
        "start-dev",
        "--headless",
        "--ip",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    command += ["--db-filename", str(folder() / "temporal.sqlite"), "--log-level", "error"]
    command += ["--sqlite-pragma", "journal_mode=WAL", "--sqlite-pragma", "synchronous=FULL"]
    with server(command, port) as process, ThreadPoolExecutor(IN_FLIGHT) as threads:
        client = await connected(f"127.0.0.1:{port}")

        async def run(text: str) -> str:
            return await client.execute_workflow(
                Program.run, text, id=uuid.uuid4().hex, task_queue="durable"
            )

        worker = Worker(
            client,
            task_queue="durable",
            workflows=[Program],
            activities=[noop],
            workflow_runner=UnsandboxedWorkflowRunner(),
            activity_executor=threads,
        )
        async with worker:
            await serve(run, [process.pid])


async def connected(address: str) -> Client:
    """A client, once the server has made its namespace."""
    for attempt in range(100):
        try:
            client = await Client.connect(address)
            await client.count_workflows()
            return client
        except Exception:
            if attempt == 99:
                raise
            await asyncio.sleep(0.2)
    raise AssertionError


asyncio.run(main())
