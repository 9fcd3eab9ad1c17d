"""Programs in one process, on a store and on a Temporal cluster, and a bare interpreter on the same
cluster: the table of docs/how-to/temporal.md.

    python benchmarks/temporal.py            # prints the table
    python benchmarks/temporal.py --write    # and writes it into the page

Each program has 20 steps, one after the other, of a tool that returns its argument. The bare
interpreter is a workflow that makes an activity of each entry of a list: what Temporal itself costs.
All run on one development server in memory, in turns, so that what else the machine does hits all.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from report import put
from temporal.cluster import Server
from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from nano_vm import ExecutionVM, Program, tool
from nano_vm.temporal import TemporalRuns, worker

PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "temporal.md"
BEGIN, END = "<!-- written by benchmarks/temporal.py -->", "<!-- end of what it writes -->"
STEPS, ROUNDS, AT_ONCE, PROGRAMS = 20, 3, 20, 20


@tool(effect="idempotent")
async def echo(n: int) -> int:
    return n


def program() -> Program:
    steps = [
        {"id": f"s{n}", "type": "tool", "tool": "echo", "args": {"n": n}} for n in range(STEPS)
    ]
    return Program.from_dict({"name": "twenty", "steps": steps})


@activity.defn
async def bare_step(n: int) -> int:
    return n


@workflow.defn
class Bare:
    """What a generic interpreter costs that does nothing else."""

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


Run = Callable[[str], Awaitable[Any]]


async def timed(run: Run, name: str) -> tuple[float, float, float]:
    """Milliseconds of a step alone, programs a second of many at once, processor milliseconds of
    this process a step.
    """
    await run(f"{name}-warm")
    started = time.perf_counter()
    await run(f"{name}-alone")
    alone = (time.perf_counter() - started) / STEPS * 1000
    free = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> None:
        async with free:
            await run(f"{name}-{number}")

    started, used = time.perf_counter(), time.process_time()
    await asyncio.gather(*(one(number) for number in range(PROGRAMS)))
    seconds, cpu = time.perf_counter() - started, time.process_time() - used
    return alone, PROGRAMS / seconds, cpu / PROGRAMS / STEPS * 1000


async def history(client: Client, run_id: str) -> tuple[float, float]:
    """Events and bytes of a step of a run."""
    found = await client.get_workflow_handle(run_id).fetch_history()
    size = sum(len(event.SerializeToString()) for event in found.events)
    return len(found.events) / STEPS, size / STEPS


async def measured(folder: Path) -> list[list[str]]:
    server = Server()
    server.start()
    try:
        client = await server.client()
        made, plain = program(), ExecutionVM(None, {"echo": echo})
        stored = ExecutionVM(None, {"echo": echo}, store=f"sqlite:///{folder}/runs.db")
        runs = TemporalRuns(client, "bench", vm=plain)
        ways: dict[str, Run] = {
            "one process": lambda run_id: plain.run(made, run_id=run_id),
            "a store (SQLite)": lambda run_id: stored.run(made, run_id=run_id),
            "a Temporal cluster": lambda run_id: runs.run(made, run_id=run_id),
            "Temporal, a bare interpreter": lambda run_id: client.execute_workflow(
                Bare.run, list(range(STEPS)), id=run_id, task_queue="bare"
            ),
        }
        bare = Worker(
            client,
            task_queue="bare",
            workflows=[Bare],
            activities=[bare_step],
            workflow_runner=UnsandboxedWorkflowRunner(),
        )
        found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in ways}
        async with worker(client, plain, "bench"), bare:
            for number in range(ROUNDS):
                for name, run in ways.items():
                    label = f"{number}-{name.replace(' ', '-')}"
                    found[name].append(await timed(run, label))
        stored.close()
        ours = await history(client, "0-a-Temporal-cluster-1")
        theirs = await history(client, "0-Temporal,-a-bare-interpreter-1")
        events = dict(zip(list(ways)[2:], (ours, theirs), strict=True))
    finally:
        server.stop()
    rows = []
    for name, rounds in found.items():
        alone, rate, cpu = (median(column) for column in zip(*rounds, strict=True))
        counts = events.get(name)
        told = f"{counts[0]:.1f}, {counts[1]:.0f}" if counts else "-"
        rows.append([name, f"{alone:.3g} ms", f"{rate:.3g}", f"{cpu:.3g} ms", told])
    return rows


def table(rows: list[list[str]]) -> str:
    head = ["20 steps", "a step, alone", "programs/s, 20 at once", "CPU of a step", "events, bytes"]
    lines = [f"| {' | '.join(line)} |" for line in (head, ["---", *["---:"] * 4], *rows)]
    load = os.getloadavg()[0]
    told = f"Median of {ROUNDS} rounds in turns, {os.cpu_count()} cores at load {load:.0f}."
    return "\n".join([*lines, "", told])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the table into the page")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        text = table(asyncio.run(measured(Path(folder))))
    print(text)
    if given.write:
        put(PAGE, BEGIN, END, text)
    sys.stdout.flush()
    os._exit(0)  # threads of the SDK now and then abort a process that ends the usual way


if __name__ == "__main__":
    main()
