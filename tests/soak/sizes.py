"""The largest programs on a Temporal cluster: their histories, beside the limits at which a server
ends a run, and what a worker needs for them.

python -m soak.sizes                            # all
python -m soak.sizes --only map --items 100     # one

One server serves all but the year, which passes on the test server of the SDK, where time can be
skipped. Each size has a worker of its own, in a process of its own, so that its processor time and
its memory are that worker's alone. Payloads over 64 kB are in a database, as in production.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from build import mapped, program, step
from processes import own_output, peak_bytes, processor_seconds, running
from temporal.cluster import TEST_SERVER, Server
from temporalio.client import Client
from temporalio.converter import DataConverter
from temporalio.testing import WorkflowEnvironment

from nano_vm import ExecutionVM, Program, Trace, tool
from nano_vm.store.protocol import open_payloads
from nano_vm.temporal import TemporalRuns, connect, data_converter, worker
from nano_vm.temporal.storage import external_storage

LIMITS = {
    "largest_events": 51_200,
    "largest_bytes": 50 * 2**20,
    "largest_event_bytes": 2 * 2**20,
}
"""At which a server ends a run, or refuses what it is sent: `limit.historyCount.error`,
`limit.historySize.error` and `limit.blobSize.error` of its configuration, by default.
"""

CALL_EVENTS, BASE_EVENTS = 6, 20
"""Events of a call at most, and those of a run or an execution beside its calls."""

AT_ONCE = 24
"""Requests of the client at a time."""

IDLE_SECONDS = 5.0
YEAR_SECONDS = 365 * 24 * 3600
LIMIT_SECONDS = 3_000.0
"""After how long a size hangs."""


@tool(effect="read")
async def double(x: int) -> int:
    return x * 2


@tool(effect="read")
async def grown(size: int) -> str:
    return "x" * size


@tool(effect="read")
async def same(x: Any) -> Any:
    return x


@tool(effect="read")
async def length(x: Any) -> int:
    return len(x)


WARM = program({"id": "warm", "type": "set", "values": {"x": 1}})
TOOLS = {"double": double, "grown": grown, "same": same, "length": length}


# --- a worker -------------------------------------------------------------------------------------


def converter(payloads: str) -> DataConverter:
    """What client and worker share; *payloads* is the URL of a database."""
    return data_converter(None, external_storage(open_payloads(payloads)))


async def work(address: str, queue: str, payloads: str) -> None:
    """Work until this process is killed."""
    # not `connect`, which asks what the test server does not know
    client = await Client.connect(address, data_converter=converter(payloads))
    async with worker(client, ExecutionVM(None, TOOLS), queue):
        await asyncio.Event().wait()


def working(address: str, queue: str, payloads: str) -> AbstractContextManager[int]:
    """A worker in a process of its own; its id."""
    command = [sys.executable, "-m", "soak.sizes", "--worker", address]
    return running([*command, "--queue", queue, "--payloads", payloads])


# --- the sizes ------------------------------------------------------------------------------------


@dataclass(slots=True)
class Site:
    """Where a size is tried: its runs, the process of its worker, and what was found besides."""

    runs: TemporalRuns
    pid: int
    skip: Callable[[float], Awaitable[None]] | None = None  # time, where that can be
    ids: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    async def submit(self, made: Program, inputs: dict[str, Any] | None = None) -> str:
        """Begin a run that is measured."""
        run_id = await self.runs.submit(made, inputs, seed=1)
        self.ids.append(run_id)
        return run_id

    async def compared(self, made: Program, inputs: dict[str, Any] | None = None) -> Trace:
        """Run to the end; the trace must be that of the same run in one process."""
        run_id = await self.submit(made, inputs)
        trace = await self.runs.result(run_id)
        local = await ExecutionVM(None, TOOLS).run(made, inputs, run_id=run_id, seed=1)
        if not (trace.ok and local.ok) or trace.digest != local.digest:
            self.faults.append(f"{trace.status.value}, or another digest: {trace.error}")
        return trace


async def wide(site: Site, size: int) -> None:
    """A map over so many items, 16 at a time."""
    call = step("b", tool="double", args={"x": "$item"})
    made = program(mapped(call, over="$items", max_items=size, max_concurrency=16))
    trace = await site.compared(made, {"items": list(range(size))})
    if trace.final_output != [2 * n for n in range(size)]:
        site.faults.append("another output")


async def long(site: Site, size: int) -> None:
    """So many calls one after the other: the plan alone takes longer than a workflow task may."""
    calls = (step(f"s{n}", tool="double", args={"x": n}) for n in range(size))
    trace = await site.compared(program(*calls))
    if len(trace.steps) != size:
        site.faults.append(f"{len(trace.steps)} steps")


async def large(site: Site, size: int) -> None:
    """A value of so many bytes that is made once, and handed on four times."""
    made = program(
        step("a", tool="grown", args={"size": size}),
        step("b", tool="same", args={"x": "$a.output"}),
        step("c", tool="same", args={"x": "$b.output"}),
        step("d", tool="length", args={"x": "$c.output"}),
        step("e", tool="length", args={"x": "$c.output"}),
    )
    if (await site.compared(made)).final_output != size:
        site.faults.append("another output")


async def many(site: Site, size: int) -> None:
    """So many approvals that wait at the same time, and are then given."""
    made = program({"id": "ok", "type": "approval", "role": "boss", "show": {}})
    shown: dict[str, str] = {}

    async def begun(_: int) -> None:
        run_id = await site.submit(made)
        shown[run_id] = (await asked(site.runs, run_id))["shown"]

    async def decided(run_id: str) -> None:
        await site.runs.approve(run_id, "ok", shown=shown[run_id], by="ann")
        if not (await site.runs.result(run_id)).ok:
            site.faults.append(f"{run_id} was approved, and did not succeed")

    await at_once(map(begun, range(size)))
    before = processor_seconds(site.pid)
    await asyncio.sleep(IDLE_SECONDS)
    used = (processor_seconds(site.pid) - before) / IDLE_SECONDS
    site.figures["idle_percent"] = round(used * 100, 2)
    await at_once(map(decided, list(shown)))


async def year(site: Site, size: int) -> None:
    """A wait of so many years."""
    seconds = size * YEAR_SECONDS
    wait = {"id": "w", "type": "wait", "seconds": seconds}
    run_id = await site.submit(program(wait, step(tool="double", args={"x": 4})))
    await asked(site.runs, run_id)
    assert site.skip is not None
    await site.skip(seconds + 1)
    trace = await site.runs.result(run_id)
    if trace.final_output != 8 or (trace.duration_ms or 0) < seconds * 1000:
        site.faults.append(f"{trace.final_output!r} after {trace.duration_ms} ms")


async def asked(runs: TemporalRuns, run_id: str) -> dict[str, Any]:
    """What a run waits for, once it does."""
    while True:
        for entry in await runs.waiting(run_id):
            return entry
        await asyncio.sleep(0.1)


async def at_once(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Do *work*, some of it at a time."""
    free = asyncio.Semaphore(AT_ONCE)

    async def one(part: Coroutine[Any, Any, None]) -> None:
        async with free:
            await part

    await asyncio.gather(*map(one, work))


@dataclass(frozen=True, slots=True)
class Size:
    """A size: its option on the command line, how much of it is legal, and how it is tried."""

    option: str
    whole: int
    tried: Callable[[Site, int], Awaitable[None]]
    calls: bool = False  # whether each of it is a call, which has six events at most


SIZES = {
    "map": Size("items", 1_000, wide, calls=True),
    "steps": Size("steps", 10_000, long, calls=True),
    "value": Size("bytes", 16_000_000, large),
    "approvals": Size("approvals", 2_000, many),
    "year": Size("years", 1, year),
}


# --- histories ------------------------------------------------------------------------------------


async def executions(client: Client, run_id: str) -> AsyncIterator[list[bytes]]:
    """The events of each execution of a run, one that continues as new after the other."""
    described = await client.get_workflow_handle(run_id).describe()
    execution = described.raw_description.workflow_execution_info.first_run_id
    while execution:
        handle = client.get_workflow_handle(run_id, run_id=execution)
        events = (await handle.fetch_history()).events
        yield [event.SerializeToString() for event in events]
        last = events[-1].workflow_execution_continued_as_new_event_attributes
        execution = last.new_execution_run_id


async def histories(client: Client, run_ids: Iterable[str]) -> dict[str, int]:
    """What the histories of runs hold, and the largest of them."""
    found = dict.fromkeys((*LIMITS, "executions", "events", "bytes"), 0)
    for run_id in run_ids:
        async for events in executions(client, run_id):
            sizes = [len(event) for event in events]
            found["executions"] += 1
            found["events"] += len(sizes)
            found["bytes"] += sum(sizes)
            for name, figure in zip(LIMITS, (len(sizes), sum(sizes), max(sizes)), strict=True):
                found[name] = max(found[name], figure)
    return found


def over(found: dict[str, int], calls: int) -> list[str]:
    """What a server would have refused, or more events than so many *calls* may have."""
    faults = [
        f"{name}: {found[name]:,}, and a server allows {limit:,}"
        for name, limit in LIMITS.items()
        if found[name] >= limit
    ]
    if calls and found["events"] > CALL_EVENTS * calls + BASE_EVENTS * found["executions"]:
        faults.append(f"{found['events']:,} events for {calls:,} calls")
    return faults


# --- the campaign ---------------------------------------------------------------------------------


@asynccontextmanager
async def site_of(name: str, server: Server, folder: Path) -> AsyncIterator[Site]:
    """A site for the size *name*: on *server*, or for a year on one whose time can be skipped."""
    payloads = f"sqlite:///{folder}/{name}.db"
    if name != "year":
        client = await connect(server.address, payloads=payloads)
        with working(server.address, name, payloads) as pid:
            yield Site(TemporalRuns(client, name), pid)
        return
    async with await WorkflowEnvironment.start_time_skipping(
        test_server_existing_path=str(TEST_SERVER), data_converter=converter(payloads)
    ) as world:
        address = world.client.service_client.config.target_host
        with working(address, name, payloads) as pid, world.auto_time_skipping_disabled():
            yield Site(TemporalRuns(world.client, name), pid, world.sleep)


async def measured(name: str, count: int, server: Server, folder: Path) -> dict[str, Any]:
    """What a size of so much takes."""
    size = SIZES[name]
    async with asyncio.timeout(LIMIT_SECONDS), site_of(name, server, folder) as site:
        await site.runs.result(await site.runs.submit(WARM))
        started, used = time.monotonic(), processor_seconds(site.pid)
        await size.tried(site, count)
        seconds, cpu = time.monotonic() - started, processor_seconds(site.pid) - used
        found = await histories(site.runs.client, site.ids)
        return {
            "tried": count,
            **found,
            "seconds": round(seconds, 1),
            "cpu_seconds": round(cpu, 2),
            "peak_bytes": peak_bytes(site.pid),
            **site.figures,
            "faults": site.faults + over(found, count if size.calls else 0),
        }


async def campaign(counts: dict[str, int], folder: Path) -> dict[str, Any]:
    """Try sizes one after the other, each of so much."""
    server = Server()
    server.start()
    try:
        await server.client()
        sizes = {name: await measured(name, counts[name], server, folder) for name in counts}
    finally:
        server.stop()
    faults = [f"{name}: {fault}" for name, row in sizes.items() for fault in row.pop("faults")]
    return {"sizes": sizes, "limits": LIMITS, "faults": faults}


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=SIZES)
    for size in SIZES.values():
        parser.add_argument(f"--{size.option}", type=int, default=size.whole)
    for name in ("--worker", "--queue", "--payloads"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        asyncio.run(work(given.worker, given.queue, given.payloads))
        return 0
    counts = {
        name: getattr(given, size.option)
        for name, size in SIZES.items()
        if given.only in (None, name)
    }
    output = own_output()  # the SDK warns of payloads
    with tempfile.TemporaryDirectory() as folder:
        result = asyncio.run(campaign(counts, Path(folder)))
    print(json.dumps(result, indent=1), file=output, flush=True)
    return 1 if result["faults"] else 0


if __name__ == "__main__":
    # threads of the SDK may abort a process that ends the usual way
    code = main()
    sys.stdout.flush()
    os._exit(code)
