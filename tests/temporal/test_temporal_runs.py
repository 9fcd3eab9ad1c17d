"""Runs on a development server: waiting and deciding, lost workers, cancelling, continuing as new."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import count
from typing import Any

import pytest
from build import NOW, llm, mapped, parallel, program, step
from patience import HANGS_SECONDS
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowHandle, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import Worker

from nano_vm import ExecutionVM, Program, Trace, TraceStatus, tool
from nano_vm.errors import (
    AlreadyDecided,
    Changed,
    Expired,
    NotPermitted,
    ProgramError,
    UnknownRun,
    VMError,
)
from nano_vm.temporal import NanoPlugin, TemporalRuns, activities, driver, life, worker, workflow
from nano_vm.temporal import runs as run_module
from nano_vm.temporal.plans import PlanNotReady
from nano_vm.temporal.terms import ADMITS_HERE, INTERPRETER
from temporal.cluster import Server

NUMBERS = count(1)

WAIT = {"id": "w", "type": "wait", "event": "paid"}
APPROVAL = {"id": "ok", "type": "approval", "role": "boss", "show": {"sum": "$a.output"}}


@asynccontextmanager
async def runs_of(
    server: Server, tools: dict[str, Callable[..., Any]] | None = None, **host: Any
) -> AsyncIterator[TemporalRuns]:
    """Runs on a worker of this process, whose tools are *tools*."""
    client = await server.client()
    queue = f"runs-{next(NUMBERS)}"
    vm = ExecutionVM(host.pop("llm", None), tools or {}, **host)
    async with worker(client, vm, queue, graceful_shutdown_timeout=timedelta(0)):
        yield TemporalRuns(client, queue, vm=vm)


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(400):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise TimeoutError


async def pending(runs: TemporalRuns, run_id: str) -> dict[str, Any]:
    """The one request that a run waits with."""
    for _ in range(400):
        entries = await runs.waiting(run_id)
        if entries:
            (entry,) = entries
            return entry
        await asyncio.sleep(0.02)
    raise TimeoutError


async def read(x: Any = None) -> Any:
    return x


read = tool(effect="read")(read)


# --- waiting --------------------------------------------------------------------------------------


async def test_an_approval_is_decided_once_by_what_was_shown(temporal_server: Server) -> None:
    async with runs_of(temporal_server, {"t": read}) as runs:
        made = program(step(args={"x": 5}), APPROVAL, step("b"))
        trace = await runs.run(made, run_id="approved")
        assert trace.status is TraceStatus.SUSPENDED
        (entry,) = await runs.waiting("approved")
        assert entry["show"] == {"sum": 5}
        with pytest.raises(Changed, match="is not the digest"):
            await runs.approve("approved", "ok", shown="f" * 64, by="ann")
        with pytest.raises(Changed, match="asks no approval"):
            await runs.approve("approved", "b", shown=entry["shown"], by="ann")
        await runs.approve("approved", "ok", shown=entry["shown"], by="ann", reason="fine")
        trace = await runs.result("approved")
        assert trace.final_output is None
        decided = trace.steps[1]
        assert decided.output == {"approved": True, "reason": "fine"}
        assert decided.extra is not None
        assert decided.extra["by"] == "ann"
        for late in (
            runs.approve("approved", "ok", shown=entry["shown"], by="bob"),
            runs.reject("approved", "ok", by="bob"),
            runs.send_event("approved", "paid"),
            runs.resolve("approved", "a", retry=True, by="bob"),
        ):
            with pytest.raises(Expired, match="run 'approved' has ended"):
                await late


async def test_a_decision_needs_the_role_also_where_the_run_cannot_be_looked_at(
    temporal_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with runs_of(temporal_server, {"t": read}) as runs:
        runs.roles = {"ann": ["boss"], "bob": "bossy", "cy": "boss"}.__getitem__
        await runs.run(program({**APPROVAL, "show": {}}), run_id="roles")
        with pytest.raises(NotPermitted, match="'bob' lacks the role 'boss'"):
            await runs.reject("roles", "ok", by="bob")

        async def nothing(run_id: str) -> list[dict[str, Any]]:
            return []

        with monkeypatch.context() as patched:
            patched.setattr(runs, "waiting", nothing)
            with pytest.raises(Changed, match="asks another role at 'ok' by now"):
                await runs.reject("roles", "ok", by="bob")
        await runs.reject("roles", "ok", by="cy")
        assert (await runs.result("roles")).error_kind == "refused"


async def test_what_the_server_refuses_is_an_error_of_this_package(
    temporal_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = RPCError("namespace rate limit exceeded", RPCStatusCode.RESOURCE_EXHAUSTED, b"")
    already = WorkflowAlreadyStartedError("there", "NanoProgram")

    def failing(error: Exception) -> Callable[..., Any]:
        async def fail(*arguments: Any, **options: Any) -> Any:
            raise error

        return fail

    async with runs_of(temporal_server, {"t": read}) as runs:
        monkeypatch.setattr(runs.client, "start_workflow", failing(full))
        with pytest.raises(VMError, match="the Temporal server says: namespace rate limit"):
            await runs.submit(program(step()), run_id="there")
        monkeypatch.setattr(runs.client, "start_workflow", failing(already))
        monkeypatch.setattr(WorkflowHandle, "describe", failing(full))
        with pytest.raises(VMError, match="the Temporal server says: namespace rate limit"):
            await runs.submit(program(step()), run_id="there")
        failed = WorkflowUpdateFailedError(ApplicationError("no such update", type="Other"))
        monkeypatch.setattr(WorkflowHandle, "execute_update", failing(failed))
        with pytest.raises(VMError, match="run 'there': Other: no such update"):
            await runs._settle("there")
        ended = ApplicationError("over", type=run_module.ENDED_MEANWHILE)
        failing_so = failing(WorkflowUpdateFailedError(ended))
        monkeypatch.setattr(WorkflowHandle, "execute_update", failing_so)
        assert await runs._settle("there") == ""


async def test_two_decisions_at_once_are_one(temporal_server: Server) -> None:
    async with runs_of(temporal_server, {"t": read}) as runs:
        made = program(step(), {**APPROVAL, "show": {}}, {"id": "w", "type": "wait", "event": "e"})
        await runs.run(made, run_id="twice")
        (entry,) = await runs.waiting("twice")
        decided = await asyncio.gather(
            *(runs.reject("twice", "ok", by=name) for name in ("ann", "bob")),
            return_exceptions=True,
        )
        refused = [one for one in decided if one is not None]
        assert len(refused) == 1
        assert isinstance(refused[0], AlreadyDecided | Expired)
        trace = await runs.result("twice")
        assert (trace.status, trace.error_kind) == (TraceStatus.FAILED, "refused")
        assert entry["shown"]


async def test_a_deadline_of_an_approval_passes(temporal_server: Server) -> None:
    async with runs_of(temporal_server, {"t": read}) as runs:
        late = {**APPROVAL, "show": {}, "timeout_seconds": 0.3, "otherwise": "c", "then": "b"}
        made = program(step(), late, step("b", next="$end"), step("c", args={"x": "late"}))
        await runs.submit(made, run_id="late")
        trace = await runs.result("late")
        assert trace.final_output == "late"
        assert trace.steps[1].output["approved"] is False


async def test_a_timer_passes_without_anybody(temporal_server: Server) -> None:
    async with runs_of(temporal_server, {"t": read}) as runs:
        made = program({"id": "w", "type": "wait", "seconds": 0.3}, step(args={"x": 1}))
        trace = await runs.run(made, run_id="timer")
        assert trace.status is TraceStatus.SUSPENDED
        trace = await runs.result("timer")
        assert trace.final_output == 1
        assert (trace.duration_ms or 0) >= 300


async def test_an_event_that_comes_early_is_kept(temporal_server: Server) -> None:
    async with runs_of(temporal_server, {"t": read}) as runs:
        made = program(
            {"id": "go", "type": "wait", "event": "go"},
            {**WAIT, "match": {"id": 7}, "output_schema": {"type": "object"}},
        )
        await runs.run(made, run_id="early")
        assert await runs.send_event("early", "paid", {"id": 8}, id="e-8")
        assert await runs.send_event("early", "paid", {"id": 7, "sum": 3}, id="e-7")
        assert not await runs.send_event("early", "paid", {"id": 7, "sum": 4}, id="e-7")
        await runs.send_event("early", "go")
        trace = await runs.result("early")
        assert trace.final_output == {"id": 7, "sum": 3}


async def test_an_event_that_does_not_fit_the_schema_is_refused(temporal_server: Server) -> None:
    async with runs_of(temporal_server, {"t": read}) as runs:
        schema = {"type": "object", "required": ["sum"]}
        await runs.run(program({**WAIT, "output_schema": schema}), run_id="misfit")
        with pytest.raises(VMError, match="does not fit"):
            await runs.send_event("misfit", "paid", {"amount": 3})
        await runs.send_event("misfit", "paid", {"sum": 3})
        assert (await runs.result("misfit")).ok


# --- ids and refusals -----------------------------------------------------------------------------


async def test_the_same_id_joins_only_the_same_run(temporal_server: Server) -> None:
    calls = []

    async def once(x: int) -> int:
        calls.append(x)
        return x

    async with runs_of(temporal_server, {"t": once}) as runs:
        made = program(step(args={"x": "$n"}))
        first = await runs.run(made, {"n": 1}, run_id="same")
        again = await runs.run(made, {"n": 1}, run_id="same")
        assert first.to_dict() == again.to_dict()
        assert calls == [1]
        with pytest.raises(VMError, match="another program or other inputs"):
            await runs.run(made, {"n": 2}, run_id="same")


async def test_a_program_is_refused_before_it_is_sent_and_by_the_worker(
    temporal_server: Server,
) -> None:
    async with runs_of(temporal_server, {"t": read}) as runs:
        made = program(step(tool="missing"))
        with pytest.raises(ProgramError, match="missing"):
            await runs.submit(made, run_id="refused")
        with pytest.raises(UnknownRun):
            await runs.result("refused")
        blind = TemporalRuns(runs.client, runs.task_queue)
        trace = await blind.run(made, run_id="refused")
        assert trace.status is TraceStatus.FAILED
        assert [one.code for one in trace.diagnostics] == ["V020"]
        assert trace.steps == []


async def test_a_value_that_the_policy_refuses_is_not_called(temporal_server: Server) -> None:
    paid = []

    async def pay(amount: int) -> int:
        paid.append(amount)
        return amount

    policy = {
        "tools": {"pay": {"args": {"amount": {"trusted": False, "check": "$value <= limit"}}}}
    }
    policy["values"] = {"limit": 100}  # type: ignore[dict-item]
    policy["tools"]["pay"]["args"]["amount"]["check"] = "$value <= $limit"
    made = program(step(tool="pay", args={"amount": "$n"}))
    async with runs_of(temporal_server, {"pay": pay}, policy=policy) as runs:
        good = await runs.run(made, {"n": 100})
        bad = await runs.run(made, {"n": 101})
        local = await runs.vm.run(made, {"n": 101})  # type: ignore[union-attr]
    assert good.ok
    assert (bad.error_kind, bad.error) == ("refused", local.error)
    assert bad.digest == local.digest
    assert paid == [100]


async def test_a_worker_that_does_not_know_the_program_learns_it(temporal_server: Server) -> None:
    """A checked call may reach a worker that did not admit the run."""

    async def pay(amount: int) -> int:
        return amount

    policy = {"tools": {"pay": {"args": {"amount": "$value <= 100"}}}}
    async with runs_of(temporal_server, {"pay": pay}, policy=policy) as runs:
        known = activities.Activities.known

        def forgetful(self: Any, document: Any) -> Any:
            found = known(self, document)
            self._prepared.clear()
            return found

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(activities.Activities, "known", forgetful)
            made = program(WAIT, step(tool="pay", args={"amount": "$n"}))
            await runs.run(made, {"n": 100}, run_id="unknown")
            await runs.run(program(step(tool="pay", args={"amount": "$n"})), {"n": 1})
            await runs.send_event("unknown", "paid")
            assert (await runs.result("unknown")).final_output == 100


# --- lost workers ---------------------------------------------------------------------------------


class Frozen:
    """A tool whose first calls hang in a worker that gives no sign of life."""

    def __init__(self, patch: pytest.MonkeyPatch, times: int = 1) -> None:
        self.calls: list[str] = []
        self.times = times
        patch.setattr(driver, "HEARTBEAT_SECONDS", 0.5)
        patch.setattr(life, "BEATS", 1e-3)

    async def __call__(self, idempotency_key: str) -> str:
        self.calls.append(idempotency_key)
        if len(self.calls) <= self.times:
            await asyncio.Event().wait()
        return "done"


@pytest.mark.parametrize("effect", ["read", "idempotent"])
async def test_a_call_that_may_be_repeated_is_made_again_with_its_key(
    temporal_server: Server, monkeypatch: pytest.MonkeyPatch, effect: Any
) -> None:
    frozen = Frozen(monkeypatch)

    async def call(idempotency_key: str) -> str:
        return await frozen(idempotency_key)

    async with runs_of(temporal_server, {"t": tool(effect=effect)(call)}) as runs:
        trace = await runs.run(program(step()), run_id=f"frozen-{effect}")
    assert trace.final_output == "done"
    assert len(frozen.calls) == 2
    assert len(set(frozen.calls)) == 1
    assert trace.steps[0].extra is not None
    assert len(trace.steps[0].extra["lost"]) == 1


async def test_an_effect_whose_worker_died_is_in_doubt(
    temporal_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen = Frozen(monkeypatch, times=3)

    async def pay(idempotency_key: str) -> str:
        return await frozen(idempotency_key)

    made = program(step(tool="pay"), step("b", args={"x": "$a.output"}))
    async with runs_of(temporal_server, {"pay": pay, "t": read}) as runs:
        for run_id in ("doubt-done", "doubt-fail", "doubt-again"):
            await runs.submit(made, run_id=run_id)
        for run_id in ("doubt-done", "doubt-fail", "doubt-again"):
            entry = await pending(runs, run_id)
            assert (entry["kind"], entry["tool"], entry["path"]) == ("in_doubt", "pay", "a")
        assert len(frozen.calls) == 3
        stood = await runs.trace("doubt-done")
        assert stood is not None
        assert (stood.status, stood.steps[0].status.value) == (TraceStatus.SUSPENDED, "in_doubt")
        with pytest.raises(Changed):
            await runs.approve("doubt-done", "a", shown="0" * 64, by="ann")
        with pytest.raises(Changed, match="is not the digest"):
            await runs.resolve("doubt-done", "a", retry=True, by="ann", shown="0" * 64)
        (seen,) = await runs.waiting("doubt-done")
        await runs.resolve("doubt-done", "a", done="paid", by="ann", shown=seen["shown"])
        await runs.resolve("doubt-fail", "a", fail="it did not", by="ann")
        await runs.resolve("doubt-again", "a", retry=True, by="ann")
        done, failed, again = [
            await runs.result(run_id) for run_id in ("doubt-done", "doubt-fail", "doubt-again")
        ]
    assert done.final_output == "paid"
    assert (failed.status, failed.error) == (
        TraceStatus.FAILED,
        "Step 'a' failed: Resolved: it did not",
    )
    assert again.final_output == "done"
    assert len(frozen.calls) == 4
    for trace in (done, again):
        assert trace.steps[0].extra is not None
        assert len(trace.steps[0].extra["lost"]) == 1


async def test_a_lost_call_inside_a_fork_is_made_again_and_its_siblings_are_not(
    temporal_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen, others = Frozen(monkeypatch), []

    async def pay(idempotency_key: str) -> str:
        return await frozen(idempotency_key)

    async def other(x: int) -> int:
        others.append(x)
        return x

    branches = [step("a", tool="pay"), step("b", tool="other", args={"x": 1})]
    made = program(parallel(*branches), step("c", tool="other", args={"x": 2}))
    async with runs_of(temporal_server, {"pay": pay, "other": other}) as runs:
        await runs.submit(made, run_id="doubt-fork")
        entry = await pending(runs, "doubt-fork")
        await runs.resolve("doubt-fork", entry["path"], retry=True, by="ann")
        trace = await runs.result("doubt-fork")
    assert trace.steps[-2].output == {"a": "done", "b": 1}
    assert (len(frozen.calls), others) == (2, [1, 2])


async def test_a_reconcile_is_asked_before_a_person(
    temporal_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen = Frozen(monkeypatch)

    async def pay(idempotency_key: str) -> str:
        return await frozen(idempotency_key)

    async def look(x: int, idempotency_key: str) -> Any:
        return {"done": True, "output": "found" if idempotency_key in frozen.calls else "another"}

    made = program(step(tool="pay", reconcile={"tool": "look", "args": {"x": 1}}))
    async with runs_of(temporal_server, {"pay": pay, "look": tool(effect="read")(look)}) as runs:
        trace = await runs.run(made, run_id="reconciled")
    assert trace.final_output == "found"
    assert len(frozen.calls) == 1


async def test_a_call_that_kills_its_workers_is_not_made_for_ever(
    temporal_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen = Frozen(monkeypatch, times=100)
    monkeypatch.setattr(driver, "MAX_LOST", 2)

    async def call(idempotency_key: str) -> str:
        return await frozen(idempotency_key)

    async with runs_of(temporal_server, {"t": tool(effect="read")(call)}) as runs:
        trace = await runs.run(program(step()), run_id="killer")
    assert (
        trace.error
        == "Step 'a' failed: LostCall: it was lost or could not be begun 2 times in a row"
    )
    assert trace.error_kind == "tool"
    assert len(frozen.calls) == 3


async def test_a_model_call_that_kills_its_workers_fails_as_one_of_a_model(
    temporal_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen = Frozen(monkeypatch, times=100)
    monkeypatch.setattr(driver, "MAX_LOST", 1)

    class Model:
        async def complete(self, messages: list[dict[str, Any]]) -> str:
            return await frozen("asked")

    async with runs_of(temporal_server, llm=Model()) as runs:
        trace = await runs.run(program(llm("q")), run_id="model-killer")
    assert (trace.error_kind, len(frozen.calls)) == ("model", 2)


# --- cancelling -----------------------------------------------------------------------------------


async def test_cancelling_undoes_what_was_done_and_reaches_the_tool(
    temporal_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(life, "HEARTBEAT_SECONDS", 0.5)
    monkeypatch.setattr(driver, "HEARTBEAT_SECONDS", 0.5)
    told: list[str] = []

    async def book(x: int) -> int:
        told.append(f"book {x}")
        return x

    async def unbook(x: int) -> None:
        told.append(f"unbook {x}")

    @tool(effect="read")
    async def hang() -> None:
        told.append("hang")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            told.append("cancelled")
            raise

    made = program(
        step(tool="book", args={"x": 1}, undo={"tool": "unbook", "args": {"x": "$a.output"}}),
        step("b", tool="hang"),
        step("c", tool="book", args={"x": 2}),
    )
    tools = {"book": book, "unbook": unbook, "hang": hang}
    async with runs_of(temporal_server, tools) as runs:
        await runs.submit(made, run_id="cancelled")
        await until(lambda: "hang" in told)
        trace = await runs.cancel("cancelled")
        assert trace.status is TraceStatus.CANCELLED
        assert told == ["book 1", "hang", "cancelled", "unbook 1"]
        assert (await runs.cancel("cancelled")).status is TraceStatus.CANCELLED


async def test_how_to_write_a_list_as_text_is_said_of_the_call_that_it_is_for(
    temporal_server: Server,
) -> None:
    async def save(text: Any) -> Any:
        return text

    async def remove(text: str) -> None:
        raise AssertionError("it was called")

    @tool(effect="read")
    async def fails() -> None:
        raise ValueError

    undo = {"tool": "remove", "args": {"text": "$a.output"}}
    made = program(
        step(tool="save", args={"text": {"expr": "[$x, 2]"}}, undo=undo), step("b", tool="fails")
    )
    tools = {"save": save, "remove": remove, "fails": fails}
    async with runs_of(temporal_server, tools) as runs:
        trace = await runs.run(made, {"x": 1})
    (undone,) = (one for one in trace.steps if one.path == "a/undo")
    assert undone.error is not None
    assert 'for its JSON text write {expr: "str($a.output)"}' in undone.error


async def test_a_run_that_waits_is_cancelled_in_its_forks_too(temporal_server: Server) -> None:
    async with runs_of(temporal_server, {"t": read}) as runs:
        made = program(parallel(WAIT, {**WAIT, "id": "v"}, step()), step("b"))
        await runs.run(made, run_id="cancelled-wait")
        trace = await runs.cancel("cancelled-wait")
    assert trace.status is TraceStatus.CANCELLED
    assert [(one.path, one.status.value) for one in trace.steps if one.path != "p/a"] == [
        ("p/w", "cancelled"),
        ("p/v", "cancelled"),
        ("p", "cancelled"),
    ]


# --- continuing as new ----------------------------------------------------------------------------


async def executions(client: Client, run_id: str) -> int:
    """How many executions the workflow of a run has had."""
    return len([one async for one in client.list_workflows(f"WorkflowId = '{run_id}'")])


async def continued(runs: TemporalRuns, made: Program, **options: Any) -> tuple[Trace, int]:
    trace = await runs.run(made, **options)
    for _ in range(100):
        number = await executions(runs.client, options["run_id"])
        if number > 1:
            return trace, number
        await asyncio.sleep(0.05)
    return trace, number


class Yes:
    """A model that agrees at its third attempt."""

    def __init__(self) -> None:
        self.asked = 0

    async def complete(self, messages: list[dict[str, str]], **options: Any) -> str:
        self.asked += 1
        return "yes" if self.asked % 3 == 0 else "maybe"


async def test_a_run_that_continues_as_new_is_the_same_run(
    temporal_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workflow, "MAX_CALLS", 7)
    inner = [step("i", args={"x": "$item"}), step("j", args={"x": {"k": "$i.output", "a": 1}})]
    made = program(
        mapped(*inner, over="$items", max_concurrency=4),
        llm("q", allowed_outputs=["yes", "no"], max_retries=3),
        step("b", args={"x": "$m.output"}),
        parallel(step("c"), step("d"), id="p"),
    )
    items = list(range(20))
    async with runs_of(temporal_server, {"t": read}, llm=Yes()) as runs:
        trace, number = await continued(
            runs, made, context={"items": items}, run_id="continued", seed=3
        )
    local = await ExecutionVM(Yes(), {"t": read}).run(
        made, {"items": items}, run_id="continued", seed=3
    )
    assert trace.ok, trace.error
    assert trace.digest == local.digest
    assert number > 4


async def test_waiting_goes_on_over_a_continuation(
    temporal_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workflow, "MAX_CALLS", 3)
    late = {"id": "late", "type": "wait", "seconds": 2.5}
    asked = {**APPROVAL, "show": {}}
    chain = [step(f"s{n}", args={"x": n}) for n in range(8)]
    made = program(
        parallel([asked], [late], [*chain], [{**WAIT, "match": {"id": 1}}], id="p"),
        {"id": "w2", "type": "wait", "event": "second"},
    )
    async with runs_of(temporal_server, {"t": read}) as runs:
        await runs.submit(made, run_id="waits")
        for _ in range(200):
            if await executions(runs.client, "waits") > 2:
                break
            await asyncio.sleep(0.05)
        assert await runs.send_event("waits", "second", "kept", id="s")
        entries = {entry["path"]: entry for entry in await runs.waiting("waits")}
        await runs.approve("waits", "p/ok", shown=entries["p/ok"]["shown"], by="ann")
        await runs.send_event("waits", "paid", {"id": 1})
        trace = await runs.result("waits")
    assert trace.ok, trace.error
    assert trace.final_output == "kept"
    seconds = next(one for one in trace.steps if one.path == "p/late")
    assert 2.5 <= (seconds.duration_ms or 0) / 1000 < 6


async def test_a_failed_attempt_waits_in_the_workflow(temporal_server: Server) -> None:
    calls = []

    async def flaky() -> str:
        calls.append(1)
        if len(calls) < 3:
            raise RuntimeError("not yet")
        return "now"

    made = program(step(max_retries=3, retry=NOW))
    async with runs_of(temporal_server, {"t": tool(effect="read")(flaky)}) as runs:
        trace = await runs.run(made, run_id="flaky")
    assert trace.final_output == "now"
    assert len(trace.steps[0].attempts) == 2


async def test_calls_after_a_standstill_are_made_once_it_is_over(
    temporal_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then each would be refused, and given again at once, ten times."""
    monkeypatch.setattr(life, "SETTLE_SECONDS", 3.0)

    async def still(x: int) -> int:
        time.sleep(life.STANDSTILL_SECONDS + 0.1)  # noqa: ASYNC251 - as a busy processor does
        return x

    tools = {"still": tool(effect="read")(still), "t": read}
    made = program(step("a", tool="still", args={"x": 1}), step("b", args={"x": 2}))
    async with runs_of(temporal_server, tools) as runs:
        trace = await runs.run(made)
    assert trace.final_output == 2, trace.error
    assert len(trace.steps) == 2


# --- workers --------------------------------------------------------------------------------------


async def test_a_worker_that_is_there_takes_programs_by_a_plugin(temporal_server: Server) -> None:
    vm = ExecutionVM(None, {"t": read})
    made = program(step(args={"x": {"b": 1, "a": 2}}))
    plugged = await Client.connect(temporal_server.address, plugins=[NanoPlugin(vm)])
    plain = await temporal_server.client()
    for name, theirs in {
        "by-client": Worker(plugged, task_queue="by-client"),
        "by-worker": Worker(plain, task_queue="by-worker", plugins=[NanoPlugin(vm)]),
    }.items():
        settings = NanoPlugin(vm).configure_worker(theirs.config())
        assert settings["sticky_queue_schedule_to_start_timeout"] == timedelta(seconds=2)
        async with theirs:
            trace = await TemporalRuns(plugged, name).run(made, run_id=name)
        assert list(trace.final_output) == ["b", "a"]


@pytest.mark.parametrize("how", ["own", "plugin"])
async def test_a_task_may_take_longer_than_the_sdk_lets_it(
    temporal_server: Server, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """As that does which makes the trace of large values on a busy processor: the SDK would begin
    it again, and again, until it takes the run for one that cannot be evicted.
    """

    def slow(recording: Any) -> Trace:
        time.sleep(2.2)  # the SDK waits 2 s
        return Trace(recording)

    monkeypatch.setattr(workflow, "Trace", slow)
    vm, client = ExecutionVM(None, {"t": read}), await temporal_server.client()
    theirs = {
        "own": lambda: worker(client, vm, "own"),
        "plugin": lambda: Worker(client, task_queue="plugin", plugins=[NanoPlugin(vm)]),
    }
    async with theirs[how]():
        trace = await TemporalRuns(client, how).run(program(step()), run_id=f"slow-{how}")
    assert trace.ok
    history = await client.get_workflow_handle(f"slow-{how}").fetch_history()
    kinds = [EventType.Name(event.event_type) for event in history.events]
    assert "EVENT_TYPE_WORKFLOW_TASK_FAILED" not in kinds


async def test_a_tool_that_only_reads_and_is_inline_costs_one_event(
    temporal_server: Server,
) -> None:
    @tool(effect="read", inline=True)
    def look(x: int) -> int:
        if x == 3:
            raise ValueError("three")
        return x * 2

    steps = [step(f"s{n}", args={"x": n}, on_error="skip") for n in range(6)]
    made = program(*steps)
    async with runs_of(temporal_server, {"t": look}) as runs:
        await runs.submit(made, run_id="inline")
        trace = await runs.result("inline")
        history = await runs.client.get_workflow_handle("inline").fetch_history()
    local = await ExecutionVM(None, {"t": look}).run(made, run_id="inline")
    assert trace.digest == local.digest
    assert [one.status.value for one in trace.steps].count("skipped") == 1
    kinds = [EventType.Name(event.event_type) for event in history.events]
    assert kinds.count("EVENT_TYPE_MARKER_RECORDED") == len(steps) + 1  # the admission
    assert kinds.count("EVENT_TYPE_ACTIVITY_TASK_SCHEDULED") == 0


async def test_an_admission_costs_one_event_and_no_second_copy_of_the_program(
    temporal_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interpreter of the first version had it made by an activity, as it is in flight still."""
    made = program(step(args={"x": "a mark of this test's"}))
    events: dict[int, int] = {}
    async with runs_of(temporal_server, {"t": read}) as runs:
        for version in (ADMITS_HERE - 1, ADMITS_HERE):
            monkeypatch.setattr(run_module, "INTERPRETER", version)
            run_id = await runs.submit(made)
            assert (await runs.result(run_id)).ok
            history = await runs.client.get_workflow_handle(run_id).fetch_history()
            events[version] = len(history.events)
            kinds = [EventType.Name(event.event_type) for event in history.events]
            here = version >= ADMITS_HERE
            assert kinds.count("EVENT_TYPE_MARKER_RECORDED") == here
            assert kinds.count("EVENT_TYPE_ACTIVITY_TASK_SCHEDULED") == 2 - here
            copies = [event for event in history.events if b'"steps"' in event.SerializeToString()]
            assert len(copies) == 2 - here  # where the run began, and for its admission
    assert events[ADMITS_HERE] == events[ADMITS_HERE - 1] - 5


async def test_an_admission_that_takes_long_goes_on(
    temporal_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    beats: list[Any] = []
    verdict = activities.Activities.verdict

    def slow(self: Any, *given: Any) -> Any:
        time.sleep(0.2)
        return verdict(self, *given)

    monkeypatch.setattr(life, "BEATS", 100)
    monkeypatch.setattr(activities.Activities, "verdict", slow)
    monkeypatch.setattr(activities.activity, "heartbeat", lambda *told: beats.append(told))
    async with runs_of(temporal_server, {"t": read}) as runs:
        runs.vm = None
        run_id = await runs.submit(program(step(args={"x": 1})))
        assert (await runs.result(run_id)).ok
    # the server knows no activity of that: what keeps it is the task of the run
    assert beats == []


async def test_a_further_call_is_six_events_and_one_workflow_task(temporal_server: Server) -> None:
    kinds: dict[int, list[str]] = {}
    async with runs_of(temporal_server, {"t": read}) as runs:
        for count_ in (2, 12):
            steps = [step(f"s{number}", args={"x": number}) for number in range(count_)]
            await runs.submit(program(*steps), run_id=f"counted-{count_}")
            await runs.result(f"counted-{count_}")
            handle = runs.client.get_workflow_handle(f"counted-{count_}")
            history = await handle.fetch_history()
            kinds[count_] = [EventType.Name(event.event_type) for event in history.events]
    tasks = {n: found.count("EVENT_TYPE_WORKFLOW_TASK_COMPLETED") for n, found in kinds.items()}
    assert len(kinds[12]) - len(kinds[2]) <= 10 * 6
    assert tasks[12] - tasks[2] <= 10


async def test_calls_go_to_the_queue_that_has_their_tool(temporal_server: Server) -> None:
    """The worker of the run knows a tool by its contract, and another makes its calls."""
    made_by = []

    def tool_of(place: str) -> Callable[..., Any]:
        async def far(x: int) -> str:
            made_by.append(place)
            return f"{place} {x}"

        return far

    client = await temporal_server.client()
    here, there = (ExecutionVM(None, {"far": tool_of(name)}) for name in ("here", "there"))
    made = program(step(tool="far", args={"x": 1}))
    async with (
        worker(client, here, "near", queues={"far": "bank"}),
        worker(client, there, "bank"),
    ):
        trace = await TemporalRuns(client, "near").run(made, run_id="routed")
    assert trace.final_output == "there 1"
    assert made_by == ["there"]


async def test_a_call_whose_tool_no_worker_of_its_queue_has_is_not_made(
    temporal_server: Server,
) -> None:
    client, end = await temporal_server.client(), next(NUMBERS)
    made = program(
        step(tool="far", args={"x": 1}, catch=[{"errors": ["NoTool"], "next": "b"}]),
        {"id": "b", "type": "set", "values": {"x": 2}},
    )
    near = ExecutionVM(None, {"far": tool(effect="write")(read)})
    async with (
        worker(client, near, f"near-{end}", queues={"far": f"bank-{end}"}),
        worker(client, ExecutionVM(), f"bank-{end}"),
    ):
        trace = await TemporalRuns(client, f"near-{end}").run(made)
    assert trace.ok, trace.error
    assert "NoTool: no worker that took the call has a tool 'far'" in (trace.steps[0].error or "")


async def test_a_worker_with_another_contract_makes_no_call(temporal_server: Server) -> None:
    async def far(x: int) -> int:
        raise AssertionError("it was called")

    client = await temporal_server.client()
    as_read, as_write = tool(effect="read")(read), far
    made = program(step(tool="far", args={"x": 1}))
    async with (
        worker(client, ExecutionVM(None, {"far": as_read}), "near-2", queues={"far": "bank-2"}),
        worker(client, ExecutionVM(None, {"far": as_write}), "bank-2"),
    ):
        trace = await TemporalRuns(client, "near-2").run(made, run_id="changed")
    assert trace.error_kind == "refused"
    assert "ContractChanged" in (trace.error or "")


CHECKED = {"tools": {"far": {"args": {"x": {"check": "$value <= 100"}}}}}


async def test_a_worker_of_another_queue_checks_what_the_run_calls_untrusted(
    temporal_server: Server,
) -> None:
    called: list[int] = []

    async def far(x: int) -> int:
        called.append(x)
        return x

    client = await temporal_server.client()
    made = program(step(tool="far", args={"x": "$x"}))
    near, there = (ExecutionVM(None, {"far": far}, policy=CHECKED) for _ in range(2))
    async with (
        worker(client, near, "near-3", queues={"far": "bank-3"}),
        worker(client, there, "bank-3"),
    ):
        runs = TemporalRuns(client, "near-3")
        trusted = await runs.run(made, {"x": 700})
        refused = await runs.run(made, {"x": 700}, untrusted=["x"])
    assert trusted.final_output == 700
    assert refused.error_kind == "refused"
    assert "PolicyRefused" in (refused.error or "")
    assert called == [700]


@pytest.mark.parametrize("old", [False, True])
async def test_a_worker_that_cannot_run_the_program_fails_its_step_alone(
    temporal_server: Server, monkeypatch: pytest.MonkeyPatch, old: bool
) -> None:
    """It lacks a tool of the program; an *old* one says only that it does not know it."""
    undone: list[int] = []

    async def far(x: int) -> int:
        raise AssertionError("it was called")

    async def book(x: int) -> int:
        return x

    async def unbook(x: int) -> None:
        undone.append(x)

    if old:

        async def unknown(self: Any, call: Any) -> None:
            return None

        monkeypatch.setattr(activities.Activities, "prepared", unknown)
    calls = step(tool="far", args={"x": "$x"})
    booked = step("b", tool="book", args={"x": 1}, undo={"tool": "unbook", "args": {"x": 1}})
    caught = {**calls, "catch": [{"errors": ["ProgramRefused"], "next": "c"}]}
    tools = {"far": far, "book": book, "unbook": unbook}
    near = ExecutionVM(None, tools, policy=CHECKED)
    there = ExecutionVM(None, {"far": far}, policy=CHECKED)
    end = f"-{next(NUMBERS)}"
    client = await temporal_server.client()
    async with (
        worker(client, near, f"near{end}", queues={"far": f"bank{end}"}),
        worker(client, there, f"bank{end}"),
    ):
        runs = TemporalRuns(client, f"near{end}")
        failed = await runs.run(program(booked, calls), {"x": 700}, untrusted=["x"])
        made = program(booked, caught, step("c", tool="book", args={"x": 2}))
        goes_on = await runs.run(made, {"x": 700}, untrusted=["x"])
    assert (failed.status, failed.error_kind) == (TraceStatus.FAILED, "refused")
    assert "ProgramRefused: the worker that took the call cannot run its program" in (
        failed.error or ""
    )
    assert undone == [1]
    assert goes_on.final_output == 2


async def test_a_program_that_changes_under_a_run_is_not_picked_up(
    temporal_server: Server,
) -> None:
    """Each of the workers that drive it in turns knows another program by the name that it calls."""
    made = program(WAIT, {"id": "c", "type": "call", "program": "sub"})
    client, queue = await temporal_server.client(), f"changing-{next(NUMBERS)}"

    def host(number: int) -> ExecutionVM:
        sub = program(step("s", args={"x": number}), name="sub")
        return ExecutionVM(None, {"t": read}, programs={"sub": sub})

    runs = TemporalRuns(client, queue)
    digests = []
    for number, run_id in enumerate(("changing-1", "changing-2"), start=1):
        async with worker(client, host(number), queue):
            await runs.run(made, run_id=run_id)
    async with worker(client, host(3), queue):
        for number, run_id in enumerate(("changing-1", "changing-2"), start=1):
            await runs.send_event(run_id, "paid")
            trace = await runs.result(run_id)
            assert trace.final_output == number
            digests.append(trace.program_digest)
    assert len(set(digests)) == 2


async def test_a_worker_that_is_too_old_leaves_the_run_to_another(
    temporal_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = program(step(args={"x": 1}))
    async with runs_of(temporal_server, {"t": read}) as runs:
        monkeypatch.setattr(run_module, "INTERPRETER", INTERPRETER + 1)
        await runs.submit(made, run_id="newer")
        handle = runs.client.get_workflow_handle("newer")
        failed: list[Any] = []
        while not failed:
            history = await handle.fetch_history()
            failed = [
                event.workflow_task_failed_event_attributes
                for event in history.events
                if event.HasField("workflow_task_failed_event_attributes")
            ]
        assert "upgrade it" in failed[0].failure.message
        assert await runs.fault("newer") == failed[0].failure.message
        monkeypatch.setattr(workflow, "INTERPRETER", INTERPRETER + 1)  # the worker is upgraded
        assert (await runs.result("newer")).ok


async def test_a_run_whose_plan_is_being_made_has_no_fault(
    temporal_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The task that it fails meanwhile is given again, and finds the plan."""

    class Slow:
        def of(self, *given: Any) -> Any:
            raise PlanNotReady("the plan is not made within 1.5 s")

    client = await temporal_server.client()
    with monkeypatch.context() as patched:
        patched.setattr(workflow, "PLANS", Slow())
        async with runs_of(temporal_server) as runs:
            run_id = await runs.submit(program(WAIT))
            failed: list[str] = []
            async with asyncio.timeout(HANGS_SECONDS):
                while not failed:
                    await asyncio.sleep(0.05)
                    history = await client.get_workflow_handle(run_id).fetch_history()
                    failed = [
                        event.workflow_task_failed_event_attributes.failure.message
                        for event in history.events
                        if event.HasField("workflow_task_failed_event_attributes")
                    ]
            assert failed == ["the plan is not made within 1.5 s"]
            assert await runs.fault(run_id) is None
