"""How a cluster finds runs by what they are, and begins them at times."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import Any

import pytest
from build import program, step
from temporalio.client import Client, ScheduleHandle
from temporalio.service import RPCError, RPCStatusCode

from nano_vm import ExecutionVM, Program, tool
from nano_vm.errors import ProgramError, VMError
from nano_vm.temporal import TemporalRuns, activities, worker, workflow
from temporal.cluster import Server

NUMBERS = count(1)


@tool(effect="read")
async def look(x: int) -> int:
    return 1 // x


VM = ExecutionVM(None, {"look": look})
MADE = program(step(tool="look", args={"x": "$x"}), version="7.1")


async def found(client: Client, query: str, number: int) -> list[str]:
    """The ids of runs that *query* finds, once it finds so many: a list lags behind its runs."""
    for _ in range(100):
        ids = [one.id async for one in client.list_workflows(query)]
        if len(ids) >= number:
            return sorted(ids)
        await asyncio.sleep(0.1)
    raise TimeoutError(query)


async def test_runs_are_found_by_program_version_status_project_and_labels(
    temporal_server: Server,
) -> None:
    client = await temporal_server.client()
    named = Program.from_dict({**MADE.to_dict(), "name": "found"})
    runs = TemporalRuns(client, "lists", search_attributes=True)
    await runs.submit(named, {"x": 1}, run_id="found-1", labels={"team": "pay", "tier": "1"})
    await runs.submit(named, {"x": 0}, run_id="found-0", project="shop")
    assert await found(client, "NanoProgram = 'found' AND NanoStatus = 'running'", 2)
    async with worker(client, VM, "lists"):
        await asyncio.gather(runs.result("found-0"), runs.result("found-1"))
    for query, ids in {
        "NanoProgram = 'found' AND NanoVersion = '7.1'": ["found-0", "found-1"],
        "NanoProgram = 'found' AND NanoStatus = 'success'": ["found-1"],
        "NanoProgram = 'found' AND NanoStatus = 'failed'": ["found-0"],
        "NanoProject = 'shop' AND NanoProgram = 'found'": ["found-0"],
        "NanoLabels = 'team=pay' AND NanoProgram = 'found'": ["found-1"],
    }.items():
        assert await found(client, query, len(ids)) == ids, query
    again = TemporalRuns(client, "lists", search_attributes=True)
    await again.submit(named, {"x": 1}, run_id="found-2")  # they are registered already


@pytest.mark.parametrize("where", ["the workflow", "its admission"])
async def test_a_run_that_ends_with_a_fault_is_found_as_failed(
    temporal_server: Server, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def fault(*given: Any, **options: Any) -> Any:
        raise (VMError if where == "its admission" else ValueError)("a fault of this test's")

    if where == "the workflow":
        monkeypatch.setattr(workflow, "Computed", fault)
    else:
        monkeypatch.setattr(activities.Activities, "verdict", fault)
    client, end = await temporal_server.client(), next(NUMBERS)
    runs = TemporalRuns(client, f"faults-{end}", search_attributes=True)
    async with worker(client, VM, f"faults-{end}"):
        run_id = await runs.submit(MADE, {"x": 1}, run_id=f"fault-{end}")
        with pytest.raises(VMError, match=f"run '{run_id}' did not end by itself"):
            await runs.result(run_id)
    assert await found(client, f"WorkflowId = '{run_id}' AND NanoStatus = 'failed'", 1) == [run_id]


async def test_what_cannot_be_registered_says_what_to_run(
    temporal_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await temporal_server.client()

    async def refuse(request: Any) -> None:
        raise RPCError("not allowed here", RPCStatusCode.PERMISSION_DENIED, b"")

    monkeypatch.setattr(client.operator_service, "add_search_attributes", refuse)
    with pytest.raises(
        VMError, match=r"not allowed here; .*create --namespace default --name Nano"
    ):
        await TemporalRuns(client, "lists", search_attributes=True).submit(MADE, {"x": 1})


async def test_a_schedule_begins_runs_and_ends(temporal_server: Server) -> None:
    client, name = await temporal_server.client(), f"daily-{next(NUMBERS)}"
    runs = TemporalRuns(client, "scheduled", vm=VM)
    await runs.schedule(name, MADE, {"x": 1}, cron="0 8 * * 1-5", time_zone="Europe/Berlin")
    handle: ScheduleHandle = client.get_schedule_handle(name)
    async with worker(client, VM, "scheduled"):
        await handle.trigger()
        (run_id,) = await found(client, f"WorkflowId STARTS_WITH '{name}-'", 1)
        trace = await runs.result(run_id)
    assert (trace.run_id, trace.final_output) == (run_id, 1)
    assert trace.digest == (await VM.run(MADE, {"x": 1}, run_id=run_id)).digest
    with pytest.raises(VMError, match=f"there is a schedule '{name}'"):
        await runs.schedule(name, MADE, {"x": 1}, cron="0 8 * * *")
    await runs.unschedule(name)
    with pytest.raises(VMError, match=f"no schedule '{name}'"):
        await runs.unschedule(name)


async def test_what_is_wrong_with_a_schedule(temporal_server: Server) -> None:
    client = await temporal_server.client()
    runs = TemporalRuns(client, "scheduled", vm=VM)
    with pytest.raises(
        VMError, match=r"schedule 'w': the Temporal server says: .*Minute is not in range"
    ):
        await runs.schedule("w", MADE, {"x": 1}, cron="99 8 * * *")
    with pytest.raises(VMError, match="leave out run_id"):
        await runs.schedule("w", MADE, {"x": 1}, cron="0 8 * * *", run_id="r")
    with pytest.raises(VMError, match="the name of a schedule"):
        await runs.schedule("a b", MADE, {"x": 1}, cron="0 8 * * *")
    with pytest.raises(ProgramError):
        await runs.schedule("w", program(step(tool="nowhere")), cron="0 8 * * *")
