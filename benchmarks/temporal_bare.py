"""What the benchmarks of a Temporal cluster hold our interpreter against: a bare one, which is a
workflow that makes an activity of each entry of a list and does nothing else, so that what it takes
is what Temporal itself costs. Both run the same steps, of a tool that returns its argument.
"""

from __future__ import annotations

from datetime import timedelta

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from nano_vm import Program, tool


@tool(effect="idempotent")
async def echo(n: int) -> int:
    return n


def echoes(count: int) -> Program:
    """So many steps, one after the other."""
    steps = [
        {"id": f"s{n}", "type": "tool", "tool": "echo", "args": {"n": n}} for n in range(count)
    ]
    return Program.from_dict({"name": "echoes", "steps": steps})


@activity.defn
async def bare_step(n: int) -> int:
    return n


@workflow.defn
class Bare:
    """The bare interpreter."""

    @workflow.run
    async def run(self, steps: list[int]) -> int:
        last = 0
        for n in steps:
            last = await workflow.execute_activity(
                bare_step,
                n,
                start_to_close_timeout=timedelta(seconds=60),
                heartbeat_timeout=timedelta(seconds=3),
            )
        return last


BARE_QUEUE = "bare"


def bare_worker(client: Client) -> Worker:
    """What runs it."""
    return Worker(
        client,
        task_queue=BARE_QUEUE,
        workflows=[Bare],
        activities=[bare_step],
        workflow_runner=UnsandboxedWorkflowRunner(),
    )


async def run_bare(client: Client, run_id: str, count: int) -> int:
    """Run so many steps."""
    return await client.execute_workflow(
        Bare.run, list(range(count)), id=run_id, task_queue=BARE_QUEUE
    )
