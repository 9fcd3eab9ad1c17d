"""How a cluster finds runs by what they are, and begins them at times."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import count
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from build import parallel, program, step
from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleHandle,
    ScheduleSpec,
)
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import Replayer

from nano_vm import ExecutionVM, Program, tool
from nano_vm.errors import ProgramError, VMError
from nano_vm.store.protocol import RunFilter
from nano_vm.temporal import (
    NanoProgram,
    TemporalRuns,
    activities,
    data_converter,
    driver,
    worker,
    workflow,
)
from nano_vm.temporal import listed as listed_runs
from nano_vm.temporal import runs as runs_module
from nano_vm.temporal.lists import ENDED, ns_of, query_of
from nano_vm.temporal.schedules import PAUSED
from nano_vm.temporal.terms import TELLS_WAITS
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


APPROVAL: dict[str, Any] = {"type": "approval", "role": "boss", "show": {}}
EVENT: dict[str, Any] = {"type": "wait", "event": "paid"}


async def said(client: Client, run_id: str) -> list[str]:
    """The statuses that the workflow has had the lists say of a run, in order."""
    found = []
    async for one in client.list_workflows(f"WorkflowId = '{run_id}'"):
        history = await client.get_workflow_handle(run_id, run_id=one.run_id).fetch_history()
        told = [
            json.loads(fields.search_attributes.indexed_fields["NanoStatus"].data)
            for event in history.events
            if (fields := event.upsert_workflow_search_attributes_event_attributes).ByteSize()
        ]
        found[:0] = told  # the latest execution comes first
    return found


@asynccontextmanager
async def listed(server: Server, **tools: Any) -> AsyncIterator[TemporalRuns]:
    """Runs with search attributes, on a worker of this process."""
    client, queue = await server.client(), f"waits-{next(NUMBERS)}"
    vm = ExecutionVM(None, {"look": look, **tools})
    async with worker(client, vm, queue):
        yield TemporalRuns(client, queue, search_attributes=True)


async def asked(runs: TemporalRuns, run_id: str, path: str) -> dict[str, Any]:
    """What a run waits for at *path*, once it does."""
    for _ in range(400):
        for entry in await runs.waiting(run_id):
            if entry["path"] == path:
                return entry
        await asyncio.sleep(0.02)
    raise TimeoutError(path)


async def approved(runs: TemporalRuns, run_id: str, path: str) -> None:
    """Approve what a run asks at *path*, once it does."""
    entry = await asked(runs, run_id, path)
    await runs.approve(run_id, path, shown=entry["shown"], by="ann")


async def test_a_run_that_waits_is_found_as_suspended_and_as_running_once_it_goes_on(
    temporal_server: Server,
) -> None:
    go_on = asyncio.Event()

    @tool(effect="read")
    async def slow() -> None:
        await go_on.wait()

    made = program(
        {"id": "ok", **APPROVAL}, {"id": "ok2", **APPROVAL}, step(tool="slow"), {"id": "w", **EVENT}
    )
    async with listed(temporal_server, slow=slow) as runs:
        run_id = await runs.submit(made)

        async def stands(status: str) -> None:
            query = f"WorkflowId = '{run_id}' AND NanoStatus = '{status}'"
            assert await found(runs.client, query, 1) == [run_id]

        await stands("suspended")
        await approved(runs, run_id, "ok")
        await approved(runs, run_id, "ok2")
        await stands("running")
        go_on.set()
        await stands("suspended")
        await runs.send_event(run_id, "paid")
        assert (await runs.result(run_id)).ok
        await stands("success")
        # from one approval to the next nothing is said, nor from the event to the end
        told = await said(runs.client, run_id)
        assert told == ["suspended", "running", "suspended", "success"]
        history = await runs.client.get_workflow_handle(run_id).fetch_history()
    replayer = Replayer(workflows=[NanoProgram], data_converter=data_converter())
    await replayer.replay_workflow(history)


LOOK = step("l", tool="look", args={"x": 1})
UNTOLD: dict[str, list[dict[str, Any]]] = {
    "a wait of less than a minute": [{"id": "w", "type": "wait", "seconds": 0.3}, LOOK],
    "an approval that ends soon": [{"id": "ok", **APPROVAL, "timeout_seconds": 0.3}, LOOK],
    "a call without a wait": [LOOK],
    "a wait before another attempt": [
        step(tool="flaky", max_retries=1, retry={"delay_seconds": 0.2}),
        LOOK,
    ],
}


@pytest.mark.parametrize("steps", UNTOLD.values(), ids=UNTOLD)
async def test_a_short_wait_costs_no_event(
    temporal_server: Server, steps: list[dict[str, Any]]
) -> None:
    failures = [RuntimeError("not yet")]

    @tool(effect="read")
    async def flaky() -> None:
        if failures:
            raise failures.pop()

    async with listed(temporal_server, flaky=flaky) as runs:
        run_id = await runs.submit(program(*steps))
        trace = await runs.result(run_id)
        assert await said(runs.client, run_id) == [trace.status.value]


async def test_a_run_waits_once_each_of_its_branches_does(temporal_server: Server) -> None:
    go_on = asyncio.Event()

    @tool(effect="read")
    async def slow() -> None:
        await go_on.wait()

    brief = {"id": "t", "type": "wait", "seconds": 1.0}
    made = program(parallel([{"id": "ok", **APPROVAL}], [step(tool="slow")], [brief], id="p"))
    async with listed(temporal_server, slow=slow) as runs:
        run_id = await runs.submit(made)
        await asked(runs, run_id, "p/ok")
        assert await said(runs.client, run_id) == []
        go_on.set()
        await found(runs.client, f"WorkflowId = '{run_id}' AND NanoStatus = 'suspended'", 1)
        trace = await runs.trace(run_id)
        assert trace is not None
        assert [entry["path"] for entry in trace.waiting] == ["p/ok"]  # the short one is over
        await approved(runs, run_id, "p/ok")
        assert (await runs.result(run_id)).ok
        assert await said(runs.client, run_id) == ["suspended", "success"]


async def test_a_run_that_waits_and_is_cancelled_is_found_as_it_ends(
    temporal_server: Server,
) -> None:
    undone = []

    async def book() -> None:
        return None

    async def unbook() -> None:
        undone.append(1)

    booked = step("b", tool="book", undo={"tool": "unbook", "args": {}})
    async with listed(temporal_server, book=book, unbook=unbook) as runs:
        for steps, told in (
            ([{"id": "w", **EVENT}], ["suspended", "cancelled"]),
            ([booked, {"id": "w", **EVENT}], ["suspended", "running", "cancelled"]),
        ):
            run_id = await runs.submit(program(*steps))
            await asked(runs, run_id, "w")
            await runs.cancel(run_id)
            assert await said(runs.client, run_id) == told
    assert undone == [1]


async def test_what_was_said_last_goes_along_into_a_continuation(
    temporal_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workflow, "MAX_CALLS", 1)
    calls = [step(f"l{n}", tool="look", args={"x": 1}) for n in range(2)]
    made = program(LOOK, {"id": "ok", **APPROVAL}, *calls)
    async with listed(temporal_server) as runs:
        run_id = await runs.submit(made)
        await approved(runs, run_id, "ok")
        assert (await runs.result(run_id)).ok
        # the execution that waits ends where the next call is due, which says that it goes on
        assert await said(runs.client, run_id) == ["suspended", "running", "success"]


async def test_a_run_that_continues_as_new_while_a_branch_waits_says_nothing(
    temporal_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workflow, "MAX_CALLS", 1)
    calls = [step(f"l{n}", tool="look", args={"x": 1}) for n in range(3)]
    made = program(parallel([{"id": "ok", **APPROVAL}], calls, id="p"))
    async with listed(temporal_server) as runs:
        run_id = await runs.submit(made)
        await found(runs.client, f"WorkflowId = '{run_id}' AND NanoStatus = 'suspended'", 1)
        await approved(runs, run_id, "p/ok")
        assert (await runs.result(run_id)).ok
        assert await said(runs.client, run_id) == ["suspended", "success"]


async def test_a_run_that_ends_with_a_fault_while_a_branch_waits_is_found_as_failed(
    temporal_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fault(*given: Any) -> Any:
        raise ValueError("a fault of this test's")

    monkeypatch.setattr(driver.Driver, "call_tool", fault)
    made = program(parallel([{"id": "ok", **APPROVAL}], [LOOK], id="p"))
    async with listed(temporal_server) as runs:
        run_id = await runs.submit(made)
        with pytest.raises(VMError, match="did not end by itself"):
            await runs.result(run_id)
        assert await said(runs.client, run_id) == ["failed"]


async def test_a_run_of_an_older_interpreter_goes_on_as_it_began(
    temporal_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs_module, "INTERPRETER", TELLS_WAITS - 1)
    async with listed(temporal_server) as runs:
        run_id = await runs.submit(program({"id": "ok", **APPROVAL}, LOOK))
        await approved(runs, run_id, "ok")
        assert (await runs.result(run_id)).ok
        assert await said(runs.client, run_id) == ["success"]


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


async def test_a_cluster_lists_runs_by_what_they_are(temporal_server: Server) -> None:
    labels = {"team": "it's", "path": "ab' OR 'x' = 'x"}
    named = Program.from_dict({**MADE.to_dict(), "name": f"list'{next(NUMBERS)}"})
    since = time.time_ns() - 10**9
    async with listed(temporal_server) as runs:
        queue = runs.task_queue
        await runs.submit(named, {"x": 1}, run_id=f"{queue}-1", labels=labels, project="shop")
        await runs.submit(named, {"x": 0}, run_id=f"{queue}-0")
        await TemporalRuns(runs.client, queue).submit(named, {"x": 1}, run_id=f"{queue}-2")
        ended = await asyncio.gather(*(runs.result(f"{queue}-{n}") for n in range(3)))

        async def ids(**wanted: Any) -> list[str]:
            rows = await listed_runs(runs.client, RunFilter(**wanted), queue=queue)
            return sorted(row.run_id.removeprefix(f"{queue}-") for row in rows)

        assert [trace.status.value for trace in ended] == ["failed", "success", "success"]
        for _ in range(100):
            rows = await listed_runs(runs.client, RunFilter(), queue=queue)
            if [row.status for row in rows].count("running") == 0:
                break
            await asyncio.sleep(0.1)
        by_id = {row.run_id.removeprefix(f"{queue}-"): row for row in rows}
        first, bare = by_id["1"], by_id["2"]
        assert (first.program, first.version, first.status) == (named.name, "7.1", "success")
        assert (first.project, first.labels) == ("shop", labels)
        assert since < first.began_ns <= (first.finished_ns or 0) < time.time_ns() + 10**9
        assert (bare.program, bare.status, bare.labels) == (None, ENDED, {})
        assert by_id["0"].status == "failed"
        assert await ids(program=named.name) == ["0", "1"]
        assert await ids(status="failed") == ["0"]
        assert await ids(status=["failed", "success"]) == ["0", "1"]
        assert await ids(project="shop") == ["1"]
        assert await ids(project="default") == ["0", "2"]
        assert await ids(labels={"path": labels["path"]}) == ["1"]
        assert await ids(labels={"path": "a"}) == []
        assert await ids(since_ns=since) == ["0", "1", "2"]
        assert await ids(until_ns=since) == []
        newest = await listed_runs(runs.client, RunFilter(), queue=queue, limit=1)
        assert len(newest) == 1


async def test_a_run_that_the_server_ended_is_listed_as_it_did(temporal_server: Server) -> None:
    async with listed(temporal_server) as runs:
        queue = runs.task_queue
        run_id = await runs.submit(program({"id": "w", **EVENT}))
        await found(runs.client, f"WorkflowId = '{run_id}' AND NanoStatus = 'suspended'", 1)
        (row,) = await listed_runs(runs.client, RunFilter(status="suspended"), queue=queue)
        assert (row.run_id, row.status, row.finished_ns) == (run_id, "suspended", None)
        await runs.client.get_workflow_handle(run_id).terminate()
        await found(runs.client, f"WorkflowId = '{run_id}' AND ExecutionStatus = 'Terminated'", 1)
        (row,) = await listed_runs(runs.client, RunFilter(), queue=queue)
        assert row.status == "terminated"
        assert await listed_runs(runs.client, RunFilter(status="suspended"), queue=queue) == []


@pytest.mark.parametrize("mark", ["\\", '"'])
def test_marks_that_a_list_does_not_find_are_refused(mark: str) -> None:
    with pytest.raises(VMError, match="cannot look for 'team=a"):
        query_of(RunFilter(labels={"team": f"a{mark}b"}))


@pytest.mark.parametrize(
    "what",
    [
        {"parent": "r"},
        {"submitter": "ann"},
        {"min_cost_usd": 1},
        {"waiting": "event"},
        {"version": "a" * 64},
    ],
)
def test_what_a_cluster_does_not_find_runs_by(what: dict[str, Any]) -> None:
    with pytest.raises(VMError, match=f"does not find runs by their {next(iter(what))}"):
        query_of(RunFilter(**what))


async def test_a_list_that_the_server_refuses_says_why(
    temporal_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await temporal_server.client()

    async def refuse(request: Any, **options: Any) -> None:
        raise RPCError("NanoStatus is no search attribute", RPCStatusCode.INVALID_ARGUMENT, b"")

    monkeypatch.setattr(client.workflow_service, "list_workflow_executions", refuse)
    with pytest.raises(VMError, match=r"cannot be listed: .*no search attribute; .*--search-attr"):
        await listed_runs(client, RunFilter(status="failed"))


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
    scheduled = await runs.schedules.find(name)
    assert (scheduled.program, scheduled.cron, scheduled.time_zone) == (
        "p",
        "0 8 * * 1-5",
        "Europe/Berlin",
    )
    assert [begun for begun, _ in scheduled.begun] == [run_id]
    next_times = [
        datetime.fromtimestamp(ns / 1e9, ZoneInfo("Europe/Berlin")) for ns in scheduled.next_ns
    ]
    assert len(next_times) > 1
    assert {(at.hour, at.minute, at.weekday() < 5) for at in next_times} == {(8, 0, True)}
    await runs.schedules.remove(name)
    with pytest.raises(VMError, match=f"no schedule '{name}'.*nano-vm schedule list"):
        await runs.schedules.remove(name)


async def test_a_schedule_is_listed_paused_and_resumed(temporal_server: Server) -> None:
    client, name = await temporal_server.client(), f"hourly-{next(NUMBERS)}"
    runs = TemporalRuns(client, "scheduled")
    await runs.schedule(name, MADE, {"x": 1}, cron="0 * * * *")
    await runs.schedules.pause(name)
    scheduled = await runs.schedules.find(name)
    assert (scheduled.paused, scheduled.note, scheduled.next_ns) == (True, PAUSED, ())
    for _ in range(100):
        listed = [one for one in await runs.schedules.all() if one.name == name]
        if listed == [scheduled]:
            break
        await asyncio.sleep(0.1)
    assert listed == [scheduled]
    await runs.schedules.resume(name)
    resumed = await runs.schedules.find(name)
    assert not resumed.paused
    assert resumed.next_ns[1] - resumed.next_ns[0] == 3600 * 10**9
    await runs.schedules.pause(name, "a holiday")
    assert (await runs.schedules.find(name)).note == "a holiday"
    await runs.schedules.remove(name)
    for change in (runs.schedules.find, runs.schedules.pause, runs.schedules.resume):
        with pytest.raises(VMError, match=f"no schedule '{name}'"):
            await change(name)


async def test_a_schedule_of_another_workflow_is_neither_seen_nor_changed(
    temporal_server: Server,
) -> None:
    client, name = await temporal_server.client(), f"theirs-{next(NUMBERS)}"
    action = ScheduleActionStartWorkflow("Other", id=name, task_queue="other")
    theirs = await client.create_schedule(name, Schedule(action, ScheduleSpec()))
    schedules = TemporalRuns(client, "scheduled").schedules
    for change in (schedules.find, schedules.pause, schedules.resume, schedules.remove):
        with pytest.raises(VMError, match=f"'{name}' begins workflows that are no programs"):
            await change(name)
    ours = f"ours-{name}"
    await TemporalRuns(client, "scheduled").schedule(ours, MADE, {"x": 1}, cron="0 * * * *")
    listed: set[str] = set()
    for _ in range(100):
        listed = {one.name for one in await schedules.all()}
        if ours in listed:
            break
        await asyncio.sleep(0.1)
    assert ours in listed
    assert name not in listed
    assert not (await theirs.describe()).schedule.state.paused


async def test_a_server_that_lists_no_schedules_says_why(
    temporal_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await temporal_server.client()

    async def refuse(*arguments: Any, **options: Any) -> None:
        raise RPCError("not allowed here", RPCStatusCode.PERMISSION_DENIED, b"")

    monkeypatch.setattr(client, "list_schedules", refuse)
    monkeypatch.setattr(ScheduleHandle, "describe", refuse)
    schedules = TemporalRuns(client, "scheduled").schedules
    with pytest.raises(VMError, match="cannot be listed: the Temporal server says: not allowed"):
        await schedules.all()
    with pytest.raises(VMError, match="schedule 'w': the Temporal server says: not allowed here"):
        await schedules.pause("w")


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


@pytest.mark.parametrize("micros", [0, 1, 999_999, 1_764_201_600_123_457, -1])
def test_a_moment_is_exact_to_the_microsecond(micros: int) -> None:
    at = datetime.fromtimestamp(micros // 10**6, UTC).replace(microsecond=micros % 10**6)
    assert ns_of(at) == micros * 1000
    assert ns_of(at.astimezone(ZoneInfo("Asia/Kolkata"))) == micros * 1000
