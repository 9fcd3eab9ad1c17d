"""Durable runs on a real database: what is left of a run when its process goes, and how another
goes on with it.

A process that dies is played by leaving its VM as it is (its lease is given up by hand); tests/soak
kills real ones.
"""

from __future__ import annotations

import asyncio
import io
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from build import NOW, llm, mapped, parallel, program, statuses, step
from killed import die, settled
from patience import HANGS_SECONDS

from nano_vm import ExecutionVM, Program, ProgramError, Trace, TraceStatus, VMError, tool
from nano_vm.errors import Changed, UnknownRun
from nano_vm.records.status import StepStatus
from nano_vm.replay import replay, subject_of, verify
from nano_vm.run.durable.stored import Unfinished, begun_calls, trace_of
from nano_vm.store.records import INTENT, PAUSED, STEP, Row
from nano_vm.store.seals import seal_of
from nano_vm.store.sql.store import SqlStore
from nano_vm.testing import ScriptedLLM

SUCCESS, SUSPENDED, FAILED, CANCELLED = (
    TraceStatus.SUCCESS,
    TraceStatus.SUSPENDED,
    TraceStatus.FAILED,
    TraceStatus.CANCELLED,
)


class Host:
    """VMs over one database; ``calls`` are those of their tools, in order."""

    def __init__(self, path: Path) -> None:
        self.url = f"sqlite:///{path / 'runs.db'}"
        self.calls: list[Any] = []
        self.vms: list[ExecutionVM] = []
        self.hang: set[str] = set()
        self.fail: set[str] = set()
        self.more: dict[str, Any] = {}

    def tool(self, name: str, function: Any) -> None:
        """Another tool, of the VMs that are made from now on."""
        self.more[name] = function

    def tools(self) -> dict[str, Any]:
        def made(name: str, effect: Any) -> Any:
            @tool(effect=effect)
            async def call(x: Any = None) -> Any:
                self.calls.append(name if x is None else (name, x))
                if name in self.hang:
                    await asyncio.Event().wait()
                if name in self.fail:
                    raise ValueError(f"{name} failed")
                return {"of": name, "x": x}

            return call

        effects = {
            "read": "read",
            "same": "idempotent",
            "write": "write",
            "pay": "irreversible",
            "back": "write",
        }
        return {name: made(name, effect) for name, effect in effects.items()} | self.more

    def vm(self, **options: Any) -> ExecutionVM:
        vm = ExecutionVM(ScriptedLLM({"": "yes"}), self.tools(), store=self.url, **options)
        self.vms.append(vm)
        return vm


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    yield made
    for vm in made.vms:
        vm.close()


async def called(host: Host, what: str) -> None:
    async with asyncio.timeout(HANGS_SECONDS):
        while what not in [call if isinstance(call, str) else call[0] for call in host.calls]:  # noqa: ASYNC110 - calls are all there is
            await asyncio.sleep(0.005)


async def killed(
    host: Host, one: Program, at: str, inputs: dict[str, Any] | None = None
) -> ExecutionVM:
    """A new VM over the records of run ``r``, whose process died while the tool *at* was called."""
    vm = host.vm()
    host.hang.add(at)
    task = asyncio.create_task(vm.run(one, inputs, run_id="r"))
    await called(host, at)
    await settled(vm)
    await die(vm, task)
    host.hang.discard(at)
    host.calls.clear()
    return host.vm()


class Ahead:
    """A clock that is set ahead by so many seconds."""

    seconds = 0
    monotonic_ns, sleep = staticmethod(time.monotonic_ns), staticmethod(asyncio.sleep)

    def time_ns(self) -> int:
        return time.time_ns() + self.seconds * 10**9


def sealed(vm: ExecutionVM, run_id: str) -> bool:
    """Whether the stored seal fits the stored rows."""
    assert vm.store is not None
    run = vm.store.load(run_id)
    return run.seal == seal_of(run)


# --- going on -------------------------------------------------------------------------------------


@pytest.mark.parametrize("said", [{"done": "receipt"}, {"fail": "refused"}])
async def test_what_a_person_said_counts_also_where_the_tool_may_be_called_again_by_now(
    host: Host, said: dict[str, Any]
) -> None:
    """The next version of the host declares the tool as one that may be repeated."""
    one = program(step("a", "pay"))
    vm = await killed(host, one, "pay")
    assert (await vm.resume("r")).status is SUSPENDED
    vm.resolve("r", "a", by="ann", **said)

    @tool(effect="idempotent")
    async def pay(idempotency_key: str) -> str:
        host.calls.append("pay")
        return idempotency_key

    host.tool("pay", pay)
    later = host.vm()
    trace = await later.resume("r")
    assert (trace.status, trace.output) == (
        (TraceStatus.SUCCESS, "receipt") if "done" in said else (FAILED, None)
    )
    assert host.calls == []
    assert later.require_store().load("r").inbox == []
    assert replay(later.load("r"), one).identical


@pytest.mark.parametrize("at", ["read", "same"])
async def test_what_was_finished_is_not_called_again_and_what_may_be_repeated_is(
    host: Host, at: str
) -> None:
    one = program(
        step("a", "write", args={"x": 1}),
        llm("m"),
        step("b", at),
        step("c", "write", args={"x": 2}),
    )
    vm = await killed(host, one, at)
    (trace,) = await vm.recover()
    assert trace.status is SUCCESS
    assert host.calls == [at, ("write", 2)]
    undisturbed = await ExecutionVM(ScriptedLLM({"": "yes"}), host.tools()).run(one)
    assert trace.digest == undisturbed.digest == vm.load("r").digest
    assert sealed(vm, "r")


async def test_no_record_is_made_of_a_call_of_which_only_the_value_is_handed_over(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nearly all are such calls of tools: that once they were tried, gave nothing, or did not
    succeed is said by records.
    """
    host.tool("nothing", tool(effect="read")(lambda: None))
    host.fail.add("back")
    one = program(
        step("a", "write", args={"x": 1}),
        step("n", "nothing"),
        step("f", "back", on_error="skip"),
        llm("m"),
        step("w", "write", when="$a.output.x == 1"),
        step("b", "read", args={"x": "$a.output.x"}),
        step("end", "same"),
    )
    vm = await killed(host, one, "same")
    made: list[str] = []
    record = Row.record
    monkeypatch.setattr(Row, "record", lambda row: made.append(row.path) or record(row))  # type: ignore[func-returns-value]
    trace = await vm.resume("r")
    assert trace.status is SUCCESS
    assert host.calls == ["same"]
    assert made == ["n", "f", "m", "w"]
    monkeypatch.undo()
    undisturbed = await ExecutionVM(ScriptedLLM({"": "yes"}), host.tools()).run(one)
    assert trace.digest == undisturbed.digest == vm.load("r").digest


@pytest.mark.parametrize("at", ["write", "pay"])
async def test_an_effect_without_outcome_is_in_doubt_and_never_repeated(
    host: Host, at: str
) -> None:
    vm = await killed(
        host, program(step("a", at, on_error="retry", retry=NOW), step("b", "read")), at
    )
    (trace,) = await vm.recover()
    assert trace.status is SUSPENDED
    assert [(entry["kind"], entry["path"], entry["tool"]) for entry in trace.waiting] == [
        ("in_doubt", "a", at)
    ]
    assert host.calls == []
    assert await vm.work(until_idle=True) == []  # nobody said anything: nothing to do


@pytest.mark.parametrize(
    ("said", "status", "calls", "output"),
    [
        ({"done": {"paid": 5}}, SUCCESS, ["read"], {"paid": 5}),
        ({"retry": True}, SUCCESS, ["pay", "read"], {"of": "pay", "x": None}),
        ({"fail": "the bank says no"}, FAILED, [], None),
    ],
)
async def test_a_person_resolves_what_is_in_doubt(
    host: Host, said: dict[str, Any], status: TraceStatus, calls: list[str], output: Any
) -> None:
    vm = await killed(host, program(step("a", "pay"), step("b", "read")), "pay")
    await vm.recover()
    with pytest.raises(VMError, match="has nothing in doubt at 'b'; it does at 'a'"):
        vm.resolve("r", "b", retry=True)
    with pytest.raises(VMError, match="say one of"):
        vm.resolve("r", "a")
    vm.resolve("r", "a", by="ann", **said)
    with pytest.raises(VMError, match="resolved already"):
        vm.resolve("r", "a", retry=True)
    trace = await vm.resume("r")
    assert (trace.status, host.calls) == (status, calls)
    if output is not None:
        assert trace.steps[0].output == output
    else:
        assert trace.error is not None
        assert "the bank says no" in trace.error
    assert sealed(vm, "r")
    with pytest.raises(VMError, match="has ended"):
        vm.resolve("r", "a", retry=True)


async def test_a_word_on_a_call_does_not_count_for_a_later_one(host: Host) -> None:
    vm = await killed(host, program(step("a", "pay")), "pay")
    await vm.recover()
    (first,) = vm.waiting("r")
    vm.resolve("r", "a", retry=True, shown=first["shown"])
    host.hang.add("pay")
    task = asyncio.create_task(vm.resume("r"))
    await called(host, "pay")
    await settled(vm)
    await die(vm, task)
    host.hang.discard("pay")
    later = host.vm()
    await later.recover()
    (second,) = later.waiting("r")
    assert second["path"] == first["path"]
    with pytest.raises(Changed, match="asks something else at 'a'"):
        later.resolve("r", "a", retry=True, shown=first["shown"])
    later.resolve("r", "a", done="paid", shown=second["shown"])
    assert (await later.resume("r")).final_output == "paid"


async def test_a_reconcile_tool_is_asked_instead_of_a_person(host: Host) -> None:
    one = program(step("a", "pay", reconcile={"tool": "asked"}), step("b", "read"))

    @tool(effect="read")
    async def asked() -> Any:
        host.calls.append("asked")
        return {"done": True, "output": "paid before"}

    first = host.vm()
    first.register_tool("asked", asked)
    host.hang.add("pay")
    task = asyncio.create_task(first.run(one, run_id="r"))
    await called(host, "pay")
    await die(first, task)
    host.calls.clear()
    vm = host.vm()
    vm.register_tool("asked", asked)
    (trace,) = await vm.recover()
    assert (trace.status, host.calls) == (SUCCESS, ["asked", "read"])
    assert trace.steps[1].output == "paid before"


class Asked:
    """A reconcile tool that does not know; while it has ``answers`` it gives the next of them, each
    once the test lets it.
    """

    def __init__(self, host: Host) -> None:
        self.begun, self.go = asyncio.Event(), asyncio.Event()
        self.answers: list[dict[str, Any]] = []

        @tool(effect="read")
        async def asked() -> Any:
            if not self.answers:
                raise ConnectionError("not today")
            self.begun.set()
            await self.go.wait()
            self.begun.clear()
            self.go.clear()
            return self.answers.pop(0)

        host.tool("asked", asked)


@pytest.mark.parametrize("answer", [{"done": False}, {"done": True, "output": "of the tool"}])
@pytest.mark.parametrize(
    ("said", "status", "calls"),
    [
        ({"done": "of ann"}, SUCCESS, ["read"]),
        ({"retry": True}, SUCCESS, ["pay", "read"]),
        ({"fail": "ann says no"}, FAILED, []),
    ],
)
async def test_what_a_person_says_while_the_reconcile_is_asked_counts_for_more(
    host: Host, answer: dict[str, Any], said: dict[str, Any], status: TraceStatus, calls: list[str]
) -> None:
    asked = Asked(host)
    one = program(step("a", "pay", reconcile={"tool": "asked"}), step("b", "read"))
    vm = await killed(host, one, "pay")
    assert (await vm.resume("r")).status is SUSPENDED
    asked.answers = [answer]
    task = asyncio.create_task(vm.resume("r"))
    await asyncio.wait_for(asked.begun.wait(), HANGS_SECONDS)
    other = host.vm()
    await asyncio.to_thread(other.resolve, "r", "a", by="ann", **said)
    asked.go.set()
    trace = await asyncio.wait_for(task, HANGS_SECONDS)
    assert (trace.status, host.calls) == (status, calls)
    if "done" in said:
        assert trace.steps[0].output == "of ann"
    if "fail" in said:
        assert "ann says no" in (trace.error or "")
    stored = other.require_store().load("r")
    assert ([m.by for m in stored.decided], stored.inbox) == (["ann"], [])
    assert sealed(vm, "r")
    assert replay(vm.load("r"), one).identical


async def test_a_word_that_came_before_a_call_was_made_again_is_no_answer_to_its_reconcile(
    host: Host,
) -> None:
    """It was said of the call before, which its reconcile had told of by then."""
    asked = Asked(host)
    one = program(
        step("a", "pay", reconcile={"tool": "asked"}, max_retries=2, retry=NOW, timeout_seconds=0.2)
    )
    vm = await killed(host, one, "pay")
    assert (await vm.resume("r")).status is SUSPENDED
    asked.answers = [{"done": False}, {"done": True, "output": "of the tool"}]
    asked.go.set()
    host.hang.add("pay")
    task = asyncio.create_task(vm.resume("r"))
    await called(host, "pay")
    await asyncio.to_thread(host.vm().resolve, "r", "a", by="ann", fail="ann says no")
    await asyncio.wait_for(asked.begun.wait(), HANGS_SECONDS)
    asked.go.set()
    trace = await asyncio.wait_for(task, HANGS_SECONDS)
    assert trace.final_output == "of the tool"


async def test_branches_and_items_go_on_where_each_was(host: Host) -> None:
    one = program(
        mapped(step("each", "write", args={"x": "$item"}), over=[1, 2, 3], id="m"),
        parallel(
            step("quick", "write", args={"x": "q"}),
            [step("slow", "read"), step("end", "write", args={"x": "e"})],
        ),
    )
    vm = await killed(host, one, "read")
    (trace,) = await vm.recover()
    assert trace.status is SUCCESS
    assert host.calls == ["read", ("write", "e")]
    assert trace.digest == (await ExecutionVM(tools=host.tools()).run(one)).digest
    assert statuses(vm.load("r")) == statuses(trace)


@pytest.mark.parametrize("before", ["same", "write"])
async def test_what_came_before_a_fork_is_stored_before_what_is_in_it(
    host: Host, before: str
) -> None:
    one = program(
        step("a", before, args={"x": 1}),
        parallel(step("b", "read"), step("c", "write", args={"x": 2}), id="fork"),
        budget={"max_tool_calls": 5},
    )
    vm = await killed(host, one, "read")
    (trace,) = await vm.recover()
    assert (trace.status, host.calls) == (SUCCESS, ["read"])
    assert verify(subject_of(vm.require_store().load("r")))


async def test_a_lost_model_call_is_repeated_and_its_reservation_is_spent(host: Host) -> None:
    one = program(llm("m", "ask", max_tokens=10), budget={"max_llm_calls": 2, "max_tokens": 60})
    first = ExecutionVM(Hanging(), store=host.url)
    host.vms.append(first)
    task = asyncio.create_task(first.run(one, run_id="r"))
    await Hanging.reached.wait()
    await die(first, task)
    vm = host.vm()
    (trace,) = await vm.recover()
    assert trace.status is SUCCESS
    (lost,) = trace.steps[0].extra["lost"]
    assert trace.steps[0].extra == {"model": "scripted", "finish_reason": "stop", "lost": [lost]}
    assert vm.load("r").steps[0].extra == trace.steps[0].extra
    assert trace.digest == vm.load("r").digest
    once = program(llm("m", "ask", max_tokens=10), budget={"max_llm_calls": 1})
    Hanging.reached.clear()
    task = asyncio.create_task(first_of(host).run(once, run_id="s"))
    await Hanging.reached.wait()
    await die(host.vms[-1], task)
    (trace,) = await host.vm().recover()
    assert trace.error_kind in (None, "budget")


class Hanging:
    """A model that never answers."""

    reached = asyncio.Event()
    model = "scripted"

    async def complete(self, messages: Any, **_: Any) -> str:
        self.reached.set()
        await asyncio.Event().wait()
        raise AssertionError


def first_of(host: Host) -> ExecutionVM:
    vm = ExecutionVM(Hanging(), store=host.url)
    host.vms.append(vm)
    return vm


async def test_what_was_done_is_undone_once_also_after_a_crash(host: Host) -> None:
    one = program(
        step("a", "write", args={"x": 1}, undo={"tool": "back", "args": {"x": "$a.output.x"}}),
        step("b", "read"),
        step("c", "same"),
    )
    host.fail.add("same")
    vm = await killed(host, one, "read")
    (trace,) = await vm.recover()
    assert trace.status is FAILED
    assert host.calls == ["read", "same", ("back", 1)]
    assert statuses(trace) == {"a": "success", "b": "success", "c": "failed", "a/undo": "success"}


async def test_an_undo_that_was_cut_off_is_in_doubt(host: Host) -> None:
    one = program(step("a", "write", undo={"tool": "back"}), step("b", "same"))
    host.fail.add("same")
    vm = await killed(host, one, "back")
    (trace,) = await vm.recover()
    assert trace.status is SUSPENDED
    assert trace.waiting[0]["path"] == "a/undo"
    vm.resolve("r", "a/undo", done=None)
    trace = await vm.resume("r")
    assert (trace.status, host.calls) == (FAILED, [])


# --- budgets, and what a crash lost of them -------------------------------------------------------


class Times:
    """Calls that the world saw, of one run over all its processes; a call hangs for as long as its
    name is in *hang*.
    """

    def __init__(self, host: Host) -> None:
        self.host = host
        self.calls: list[str] = []
        self.fail: list[str] = []  # each takes the next call of its name

    def vm(self) -> ExecutionVM:
        def made(name: str, effect: Any) -> Any:
            @tool(effect=effect)
            async def call(x: Any = None) -> Any:
                await self.called(name)
                return {"done": False} if name == "asked" else x

            return call

        effects = {
            "read": "read",
            "same": "idempotent",
            "write": "write",
            "pay": "irreversible",
            "asked": "read",
        }
        vm = ExecutionVM(
            self,
            {name: made(name, effect) for name, effect in effects.items()},
            store=self.host.url,
        )
        self.host.vms.append(vm)
        return vm

    async def complete(self, messages: Any, **_: Any) -> str:
        await self.called("llm")
        return "yes"

    async def called(self, name: str) -> None:
        self.calls.append(name)
        self.host.calls.append(name)
        if name in self.fail:
            self.fail.remove(name)
            raise ConnectionError(f"{name} failed")
        if name in self.host.hang:
            await asyncio.Event().wait()

    async def killed(self, one: Program, at: str, inputs: dict[str, Any] | None = None) -> None:
        """A process takes up the run and dies in its first call of *at*."""
        self.host.calls.clear()
        self.host.hang = {at}
        vm = self.vm()
        try:
            vm.load("r")
            task = asyncio.create_task(vm.resume("r"))
        except UnknownRun:
            task = asyncio.create_task(vm.run(one, inputs, run_id="r"))
        await called(self.host, at)
        await settled(vm)
        await die(vm, task)
        self.host.hang = set()

    async def end(self) -> Trace:
        """A process that lives takes up the run; its trace, after it was verified as it was driven
        and as it is stored.
        """
        vm = self.vm()
        (trace,) = await vm.recover()
        self.proven(vm, trace)
        return trace

    def proven(self, vm: ExecutionVM, trace: Trace) -> None:
        stored = vm.require_store().load("r")
        subject = subject_of(stored)
        assert verify(subject), str(verify(subject))
        assert replay(trace, subject.program).identical, str(replay(trace, subject.program))
        assert trace.digest == vm.load("r").digest


@pytest.mark.parametrize(
    ("first", "budget", "name"),
    [
        (llm("a"), "max_llm_calls", "llm"),
        (step("a", "read"), "max_tool_calls", "read"),
        (step("a", "same"), "max_tool_calls", "same"),
    ],
)
@pytest.mark.parametrize(
    ("limit", "kills"), [(1, 1), (2, 1), (2, 2), (3, 1), (3, 2), (3, 3), (4, 2)]
)
async def test_a_call_that_was_lost_counts(
    host: Host, first: dict[str, Any], budget: str, name: str, limit: int, kills: int
) -> None:
    """In truth, in the run that goes on, and in its replay: never more calls than the budget
    has.
    """
    times = Times(host)
    one = program(first, {**first, "id": "b"}, budget={budget: limit})
    for _ in range(kills):
        await times.killed(one, name)
    trace = await times.end()
    if limit >= kills + 2:
        assert trace.status is SUCCESS
    else:
        assert trace.status is FAILED
        assert trace.error_kind == "budget"
    assert len(times.calls) == min(limit, kills + 2)


async def test_attempts_that_failed_before_a_crash_count(host: Host) -> None:
    times = Times(host)
    one = program(step("a", "read", max_retries=5, retry=NOW), budget={"max_tool_calls": 4})
    times.fail, host.hang = ["read"], {"read"}
    vm = times.vm()
    task = asyncio.create_task(vm.run(one, run_id="r"))
    while len(times.calls) < 2:  # noqa: ASYNC110 - calls are all there is
        await asyncio.sleep(0.005)
    await die(vm, task)
    host.hang = set()
    times.fail = ["read", "read"]
    trace = await times.end()
    assert (trace.status, trace.error_kind, len(times.calls)) == (FAILED, "budget", 4)


@pytest.mark.parametrize("effect", ["write", "pay"])
async def test_a_lost_effect_counts_once_if_it_took_place_and_twice_if_it_is_made_again(
    host: Host, effect: str
) -> None:
    times = Times(host)
    one = program(step("a", effect), step("b", effect), budget={"max_tool_calls": 2})
    await times.killed(one, effect)
    vm = times.vm()
    assert (await vm.resume("r")).status is SUSPENDED
    vm.resolve("r", "a", done=None)
    trace = await vm.resume("r")
    assert (trace.status, len(times.calls)) == (SUCCESS, 2)
    assert trace.steps[0].extra["settled"] is True
    times.proven(vm, trace)


@pytest.mark.slow
async def test_a_lost_effect_that_is_made_again_counts_twice(host: Host) -> None:
    times = Times(host)
    one = program(step("a", "pay"), step("b", "pay"), budget={"max_tool_calls": 2})
    await times.killed(one, "pay")
    vm = times.vm()
    await vm.resume("r")
    vm.resolve("r", "a", retry=True)
    trace = await vm.resume("r")
    assert (trace.status, trace.error_kind, len(times.calls)) == (FAILED, "budget", 2)
    times.proven(vm, trace)


@pytest.mark.parametrize(("limit", "status"), [(1, FAILED), (2, SUCCESS)])
async def test_a_reconcile_that_says_no_lets_it_be_made_again_within_the_budget(
    host: Host, limit: int, status: TraceStatus
) -> None:
    times = Times(host)
    one = program(
        step("a", "pay", reconcile={"tool": "asked"}, max_retries=2, retry=NOW),
        budget={"max_tool_calls": limit},
    )
    await times.killed(one, "pay")
    trace = await times.end()
    assert (trace.status, times.calls.count("pay")) == (status, limit)


async def test_what_a_reconcile_lost_is_not_its_step_s(host: Host) -> None:
    """The effect is lost, and then the process that asks what became of it; the budget has not one
    call to spare.
    """
    times = Times(host)
    one = program(step("a", "pay", reconcile={"tool": "same"}), budget={"max_tool_calls": 1})
    await times.killed(one, "pay")
    await times.killed(one, "same")
    vm = times.vm()
    trace = await vm.resume("r")
    assert len(next(found for found in trace.steps if found.path == "a").extra["lost"]) == 1
    times.proven(vm, trace)


@pytest.mark.parametrize(("limit", "status"), [(3, FAILED), (4, SUCCESS), (9, SUCCESS)])
async def test_what_a_branch_lost_counts_in_the_branch_and_in_the_run(
    host: Host, limit: int, status: TraceStatus
) -> None:
    times = Times(host)
    one = program(
        mapped(llm("q", "ask $item"), over=[1, 2, 3], max_items=3, max_concurrency=1),
        budget={"max_llm_calls": limit},
    )
    await times.killed(one, "llm")
    trace = await times.end()
    assert trace.status is status
    assert len(times.calls) == min(limit, 4)


# --- identity -------------------------------------------------------------------------------------


async def test_the_same_run_id_joins_over_processes(host: Host) -> None:
    one = program(step("a", "write", args={"x": "$x"}))
    first = await host.vm().run(one, {"x": 1}, run_id="r")
    again = await host.vm().run(Program.from_dict(one.to_dict()), {"x": 1}, run_id="r")
    assert (again.digest, again.run_id, host.calls) == (first.digest, "r", [("write", 1)])
    with pytest.raises(VMError, match="another program or other inputs"):
        await host.vm().run(one, {"x": 2}, run_id="r")


async def test_one_of_two_processes_has_the_run(host: Host) -> None:
    one = program(step("a", "read"))
    vm, other = host.vm(), host.vm()
    host.hang.add("read")
    task = asyncio.create_task(vm.run(one, run_id="r"))
    await called(host, "read")
    with pytest.raises(VMError, match="is under way in another process"):
        await other.resume("r")
    assert await other.work(until_idle=True) == []
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await other.resume("r")).status is CANCELLED


@pytest.mark.slow
async def test_who_lost_the_lease_begins_no_call(host: Host) -> None:
    one = program(step("a", "read"), step("b", "pay"))
    vm = host.vm()
    host.hang.add("read")
    reached = asyncio.create_task(vm.run(one, run_id="r"))
    await called(host, "read")
    assert vm._durable is not None
    assert vm.store is not None
    vm._durable.lease._stopped.set()
    vm._durable.lease.until = 0.0  # frozen for longer than the lease
    vm.store.forget_owner(vm._durable.lease.owner)
    host.hang.discard("read")
    other = host.vm()
    trace = await other.resume("r")
    assert trace.status is SUCCESS
    assert host.calls.count("pay") == 1
    reached.cancel()
    await asyncio.wait([reached])
    assert host.calls.count("pay") == 1


async def test_a_worker_that_stops_leaves_its_runs(host: Host) -> None:
    one = program(step("a", "read"), step("b", "write"))
    vm = host.vm()
    await vm.submit(one, run_id="r")
    host.hang.add("read")
    worker = asyncio.create_task(vm.work())
    await called(host, "read")
    worker.cancel()
    (journal,) = vm._durable.journals
    async with asyncio.timeout(HANGS_SECONDS):
        while not journal.leaving:  # noqa: ASYNC110 - nothing else tells of it
            await asyncio.sleep(0)
    host.hang.discard("read")
    for task in asyncio.all_tasks() - {asyncio.current_task(), worker}:
        task.cancel()  # the grace is over
    await asyncio.wait([worker])
    assert vm.load("r").status is TraceStatus.RUNNING
    host.calls.clear()
    (trace,) = await host.vm().work(until_idle=True)
    assert (trace.status, host.calls) == (SUCCESS, ["read", "write"])


# --- waiting --------------------------------------------------------------------------------------

ASK = {
    "id": "ask",
    "type": "approval",
    "role": "boss",
    "show": {"x": "$x"},
    "then": [step("p", "pay", args={"x": "$x"})],
}


async def test_an_approval_waits_over_processes_and_is_used_once(host: Host) -> None:
    vm = host.vm(roles=lambda by: ["boss"] if by == "ann" else [])
    one = program(
        {**ASK, "otherwise": [step("n", "read")]},
        {"id": "z", "type": "set", "values": {"r": "$ask.output"}},
    )
    trace = await vm.run(one, {"x": 7}, run_id="r")
    assert trace.status is SUSPENDED
    (asked,) = vm.waiting("r")
    with pytest.raises(VMError, match="asks something else"):
        vm.approve("r", "ask", shown="0" * 64, by="ann")
    with pytest.raises(VMError, match="shown is the digest"):
        vm.approve("r", "ask", shown=None, by="ann")  # type: ignore[arg-type]
    with pytest.raises(VMError, match="'bob' lacks the role 'boss'"):
        vm.approve("r", "ask", shown=asked["shown"], by="bob")
    with pytest.raises(VMError, match="asks no approval at 'other'; it does at 'ask'"):
        vm.approve("r", "other", shown=asked["shown"], by="ann")
    vm.approve("r", "ask", shown=asked["shown"], by="ann", reason="fine")
    with pytest.raises(VMError, match="decided already: approve by 'ann'"):
        vm.reject("r", "ask", by="ann")
    (trace,) = await host.vm().work(until_idle=True)
    assert (trace.status, host.calls) == (SUCCESS, [("pay", 7)])
    approved = next(found for found in trace.steps if found.path == "ask")
    assert approved.output == {"approved": True, "reason": "fine"}
    assert approved.extra == {"by": "ann", "branch": "then"}
    with pytest.raises(VMError, match="has ended"):
        vm.approve("r", "ask", shown=asked["shown"], by="ann")


async def test_who_approves_is_not_told_to_the_program_nor_in_the_digest(host: Host) -> None:
    digests = set()
    for by in ("ann", "eve"):
        vm = host.vm()
        await vm.run(program(ASK), {"x": 7}, run_id=by)
        vm.approve(by, "ask", shown=vm.waiting(by)[0]["shown"], by=by)
        digests.add((await vm.resume(by)).digest)
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("fields", "status", "calls"),
    [
        ({"otherwise": [step("n", "read")]}, SUCCESS, ["read"]),
        ({"otherwise": "$fail"}, FAILED, []),
        ({}, FAILED, []),
        ({"catch": [{"errors": ["refused"], "next": "n2"}]}, SUCCESS, ["same"]),
    ],
)
async def test_a_rejection(
    host: Host, fields: dict[str, Any], status: TraceStatus, calls: list[str]
) -> None:
    vm = host.vm()
    await vm.run(
        program({**ASK, **fields, "next": "$end"}, step("n2", "same")), {"x": 7}, run_id="r"
    )
    vm.reject("r", "ask", by="ann", reason="too much")
    trace = await vm.resume("r")
    assert (trace.status, host.calls) == (status, calls)
    if status is FAILED and not fields:
        assert trace.error == "Step 'ask' failed: Rejected: rejected: too much"
        assert trace.error_kind == "refused"


@pytest.mark.parametrize("otherwise", [None, [step("n", "read")]])
async def test_an_approval_that_comes_too_late(host: Host, otherwise: Any) -> None:
    clock = Ahead()
    vm = host.vm(clock=clock)
    more = {"otherwise": otherwise} if otherwise else {}
    await vm.run(program({**ASK, "timeout_seconds": 3600, **more}), {"x": 7}, run_id="r")
    clock.seconds = 3601
    await vm.work(until_idle=True)
    trace = vm.load("r")
    assert trace.status is (SUCCESS if otherwise else FAILED)
    assert host.calls == (["read"] if otherwise else [])


async def test_a_timer_survives_its_process_and_starts_once(host: Host) -> None:
    one = program(
        parallel(
            [{"id": "w", "type": "wait", "seconds": 3600}, step("t", "write")], step("u", "read")
        )
    )
    clock = Ahead()
    trace = await host.vm(clock=clock).run(one, run_id="r")
    assert trace.status is SUSPENDED
    assert await host.vm(clock=clock).work(until_idle=True) == []
    clock.seconds = 1800
    # resumed early: it goes on waiting for the same moment
    assert (await host.vm(clock=clock).resume("r")).status is SUSPENDED
    clock.seconds = 3601
    (trace,) = await host.vm(clock=clock).work(until_idle=True)
    assert (trace.status, host.calls) == (SUCCESS, ["read", "write"])


@pytest.mark.parametrize(
    ("fields", "text"),
    [({"seconds": "$x"}, "it is a number of at least 0"), ({"until": "$x"}, "it is a time like")],
)
async def test_a_wait_for_nonsense(host: Host, fields: dict[str, Any], text: str) -> None:
    trace = await host.vm().run(program({"id": "w", "type": "wait", **fields}), {"x": "soon"})
    assert trace.status is FAILED
    assert trace.error is not None
    assert text in trace.error


async def test_max_seconds_leaves_waiting_out(host: Host) -> None:
    one = program(
        {"id": "w", "type": "wait", "seconds": 3600},
        step("t", "read"),
        budget={"max_seconds": HANGS_SECONDS},
    )
    clock = Ahead()
    vm = host.vm(clock=clock)
    await vm.run(one, run_id="r")
    clock.seconds = 3601
    assert (await vm.resume("r")).status is SUCCESS


async def test_events_are_kept_used_once_and_held_against_their_schema(host: Host) -> None:
    wait = {
        "type": "wait",
        "event": "paid-$x",
        "output_schema": {"type": "object", "required": ["sum"]},
    }
    one = program(
        {"id": "a", **wait},
        {"id": "b", **wait},
        {"id": "z", "type": "set", "values": {"s": "$b.output.sum"}},
    )
    vm = host.vm()
    await vm.run(one, {"x": 1}, run_id="r")
    with pytest.raises(VMError, match="does not fit what 'a' waits for"):
        vm.send_event("r", "paid-1", {"total": 1})
    vm.send_event("r", "paid-1", {"sum": 1})
    vm.send_event("r", "other", None)
    (trace,) = await vm.work(until_idle=True)
    assert [entry["path"] for entry in trace.waiting] == ["b"]
    vm.send_event("r", "paid-1", {"sum": 2})
    trace = await vm.resume("r")
    assert (trace.status, trace.final_output) == (SUCCESS, {"s": 2})
    with pytest.raises(VMError, match="has ended"):
        vm.send_event("r", "paid-1", {"sum": 3})


async def test_an_event_that_comes_before_its_wait_is_kept(host: Host) -> None:
    vm = host.vm()
    one = program(
        {"id": "first", "type": "wait", "event": "go"},
        {"id": "w", "type": "wait", "event": "early"},
    )
    await vm.run(one, run_id="r")
    vm.send_event("r", "early", 5)
    await vm.work(until_idle=True)
    vm.send_event("r", "go")
    trace = await vm.resume("r")
    assert (trace.status, trace.final_output) == (SUCCESS, 5)


async def test_a_waiting_run_is_cancelled_and_undone(host: Host) -> None:
    vm = host.vm()
    await vm.run(program(step("a", "write", undo={"tool": "back"}), ASK), {"x": 7}, run_id="r")
    host.calls.clear()
    trace = await host.vm().cancel("r")
    assert (trace.status, host.calls) == (CANCELLED, ["back"])
    with pytest.raises(VMError, match="has ended"):
        await vm.cancel("r")


WAIT = {"type": "wait", "event": "go"}
SUSPENDING = {
    "approval": program(step("a", "read"), ASK),
    "wait": program(step("a", "write"), {"id": "w", **WAIT}, step("z", "read")),
    "branches": program(
        parallel(
            [step("a", "write"), {"id": "w", **WAIT}],
            step("b", "read"),
            [step("c", "read"), {**ASK, "id": "q", "then": [step("d", "read")]}],
            id="fork",
        )
    ),
    "items": program(
        mapped(step("a", "write", args={"x": "$item"}), {"id": "w", **WAIT}, over=[1, 2, 3])
    ),
    "loop": program(
        {
            "id": "l",
            "type": "loop",
            "max_iterations": 3,
            "steps": [step("a", "read"), {"id": "w", **WAIT}],
            "until": "true",
        }
    ),
    "call": program(
        {
            "id": "c",
            "type": "call",
            "program": {
                "name": "inner",
                "steps": [step("a", "write"), parallel({"id": "w", **WAIT}, step("b", "read"))],
            },
        }
    ),
    "timer": program({"id": "w", "type": "wait", "seconds": 3600}),
}


@pytest.mark.parametrize("name", SUSPENDING)
async def test_a_run_that_waits_is_loaded_as_it_was_driven(host: Host, name: str) -> None:
    """With the steps at which it waits; also when it was looked at in vain, exported, and went
    on.
    """
    vm = host.vm()
    trace = await vm.run(SUSPENDING[name], {"x": 7}, run_id="r")
    assert trace.status is SUSPENDED
    store: Any = vm.require_store()
    for again in (vm.load("r"), await vm.resume("r"), vm.load("r")):
        assert (again.digest, statuses(again)) == (trace.digest, statuses(trace))
        assert [found.request for found in again.steps] == [found.request for found in trace.steps]
        assert replay(again, SUSPENDING[name]).identical
    rows = len(store.load("r").rows)
    await vm.resume("r")
    assert len(store.load("r").rows) == rows, "it waits at the same place"
    assert store.check() == []
    assert verify(subject_of(store.load("r")))
    out = io.StringIO()
    store.export(["r"], out)
    with SqlStore("sqlite://") as other:
        other.import_(out.getvalue().splitlines(keepends=True), unfinished=True)
        assert trace_of(other.load("r")).digest == trace.digest
    if name in ("wait", "branches"):
        vm.send_event("r", "go")
        later = await vm.resume("r")
        assert later.digest == vm.load("r").digest != trace.digest
        assert statuses(later) == statuses(vm.load("r"))


async def test_a_run_in_doubt_is_loaded_as_it_was_driven(host: Host) -> None:
    @tool(effect="read")
    async def asked() -> Any:
        raise ConnectionError("not today")

    one = program(parallel(step("a", "pay", reconcile={"tool": "asked"}), step("b", "read")))
    first = host.vm()
    first.register_tool("asked", asked)
    host.hang.add("pay")
    task = asyncio.create_task(first.run(one, run_id="r"))
    await called(host, "pay")
    await settled(first)
    await die(first, task)
    vm = host.vm()
    vm.register_tool("asked", asked)
    (trace,) = await vm.recover()
    assert "p/a/reconcile" in statuses(trace)
    assert vm.load("r").digest == trace.digest
    assert statuses(vm.load("r")) == statuses(trace)


@pytest.mark.slow
async def test_two_callers_of_one_vm_get_the_same_trace(host: Host) -> None:
    vm = host.vm()
    one = SUSPENDING["wait"]
    await vm.run(one, run_id="r")
    vm.send_event("r", "go")
    traces = await asyncio.gather(
        vm.resume("r"), vm.resume("r"), vm.run(one, run_id="r"), vm.resume("r")
    )
    assert {trace.status for trace in traces} == {SUCCESS}
    assert len({trace.digest for trace in traces}) == 1
    assert host.calls == ["write", "read"]


class Race:
    """Two callers of a VM: one resumes run ``r``, and when it is about to claim it, another that
    calls ``vm.run`` has the mark of the run, since it asks the store whether it is new.

    The clock sleeps until `may_wake`.
    """

    monotonic_ns, time_ns = staticmethod(time.monotonic_ns), staticmethod(time.time_ns)

    def __init__(self) -> None:
        self.sleeps, self.may_wake = asyncio.Event(), asyncio.Event()

    async def sleep(self, _: float) -> None:
        self.sleeps.set()
        await self.may_wake.wait()

    async def between(self, vm: ExecutionVM, one: Program) -> tuple[Trace, Trace]:
        """The traces of who joins, which is answered first, and of who resumes."""
        assert vm.store is not None
        assert vm._durable is not None
        begin, spared = vm.store.begin, vm._durable.lease.spared
        begins, may_begin = asyncio.Event(), asyncio.Event()
        claims, may_claim = threading.Event(), threading.Event()

        async def begin_slowly(*given: Any, **options: Any) -> bool:
            begins.set()
            await may_begin.wait()
            return await begin(*given, **options)

        def spared_slowly() -> list[str]:
            claims.set()
            assert may_claim.wait(HANGS_SECONDS)
            return spared()

        vm.store.begin = begin_slowly  # type: ignore[method-assign]
        vm._durable.lease.spared = spared_slowly  # type: ignore[method-assign]
        resumes = asyncio.create_task(vm.resume("r"))
        assert await asyncio.to_thread(claims.wait, HANGS_SECONDS)
        joins = asyncio.create_task(vm.run(one, run_id="r"))
        await begins.wait()
        may_claim.set()
        await self.sleeps.wait()  # it could not claim the run, and looks again later
        may_begin.set()
        joined = await joins
        self.may_wake.set()
        return joined, await resumes


async def test_who_joins_a_run_with_a_word_waiting_goes_on_with_it(host: Host) -> None:
    race, one = Race(), SUSPENDING["wait"]
    vm = host.vm(clock=race)
    await vm.run(one, run_id="r")
    vm.send_event("r", "go")
    joined, resumed = await race.between(vm, one)
    assert joined.status is SUCCESS
    assert joined.digest == resumed.digest


async def test_a_run_that_is_due_is_gone_on_with_by_who_joins_it(host: Host) -> None:
    one = program({"id": "w", "type": "wait", "seconds": 3600}, step("a", "write"))
    clock = Ahead()
    vm = host.vm(clock=clock)
    assert (await vm.run(one, run_id="r")).status is SUSPENDED
    assert (await vm.run(one, run_id="r")).status is SUSPENDED
    clock.seconds = 3600
    assert (await vm.run(one, run_id="r")).status is SUCCESS


async def in_doubt_with_a_late_answer(host: Host) -> tuple[Program, list[str]]:
    """Run ``r`` of a program is in doubt, and its reconcile knows what is put into the list."""
    known: list[str] = []

    @tool(effect="read")
    async def find() -> Any:
        return {"done": True, "output": known[0]}

    one = program(step("a", "pay", reconcile={"tool": "find"}), step("b", "read"))
    host.tool("find", find)
    trace = await (await killed(host, one, "pay")).resume("r")
    assert trace.status is SUSPENDED
    return one, known


async def test_a_resume_is_made_though_another_caller_had_the_mark_of_the_run(host: Host) -> None:
    one, known = await in_doubt_with_a_late_answer(host)
    known.append("paid")
    race = Race()
    joined, resumed = await race.between(host.vm(clock=race), one)
    assert joined.status is SUSPENDED, "nobody said anything to it"
    assert resumed.status is SUCCESS


async def test_a_resume_is_made_though_another_caller_is_just_looking(host: Host) -> None:
    one, known = await in_doubt_with_a_late_answer(host)
    known.append("paid")
    vm = host.vm()
    joined, resumed = await asyncio.gather(vm.run(one, run_id="r"), vm.resume("r"))
    assert joined.status is SUSPENDED
    assert resumed.status is SUCCESS


async def test_a_run_that_was_held_for_a_moment_is_resumed_and_not_another_process_s(
    host: Host,
) -> None:
    """Who records a word holds the run while it does; a claim then passes it over."""
    vm, one = host.vm(), SUSPENDING["wait"]
    await vm.run(one, run_id="r")
    vm.send_event("r", "go")
    assert vm.store is not None
    claim, passed_over = vm.store.claim, []

    def claimed(run_ids: Any, *given: Any, **options: Any) -> Any:
        if not passed_over:
            passed_over.extend(run_ids)
            return {}
        return claim(run_ids, *given, **options)

    vm.store.claim = claimed  # type: ignore[method-assign]
    assert (await vm.resume("r")).status is SUCCESS
    assert passed_over == ["r"]


# --- the end of a VM ------------------------------------------------------------------------------


def owners(host: Host) -> list[str]:
    """Whose leases the store has."""
    with SqlStore(host.url) as store:
        return list(store.owners())


async def test_a_vm_is_closed_at_the_end_of_its_block(host: Host) -> None:
    one = SUSPENDING["wait"]
    async with host.vm() as vm:
        assert (await vm.run(one, run_id="r")).status is SUSPENDED
        assert len(owners(host)) == 1
    assert owners(host) == []
    with host.vm() as vm:
        assert (await vm.resume("r")).status is SUSPENDED
    assert owners(host) == []
    async with ExecutionVM() as plain:  # which has nothing to close
        assert plain.tools == {}


# --- bad input ------------------------------------------------------------------------------------


async def test_a_vm_without_a_store_says_so() -> None:
    vm = ExecutionVM()
    for call in (lambda: vm.waiting("r"), lambda: vm.load("r"), lambda: vm.send_event("r", "x")):
        with pytest.raises(VMError, match="store="):
            call()
    with pytest.raises(VMError, match="store="):
        await vm.work()


async def test_an_unknown_run(host: Host) -> None:
    vm = host.vm()
    for call in (
        lambda: vm.waiting("x"),
        lambda: vm.load("x"),
        lambda: vm.reject("x", "a", by="b"),
    ):
        with pytest.raises(UnknownRun, match="x"):
            call()
    with pytest.raises(UnknownRun):
        await vm.resume("x")


async def test_a_host_without_the_tools_leaves_the_run(host: Host) -> None:
    await host.vm().submit(program(step("a", "write")), run_id="r")
    poor = ExecutionVM(store=host.url)
    host.vms.append(poor)
    with pytest.raises(ProgramError, match="tool 'write' is not registered"):
        await poor.resume("r")
    assert await poor.work(until_idle=True) == []
    assert (await host.vm().resume("r")).status is SUCCESS


async def test_a_refused_program_is_not_stored(host: Host) -> None:
    vm = host.vm()
    assert (await vm.run(program(step("a", "none")), run_id="r")).status is FAILED
    with pytest.raises(UnknownRun):
        vm.load("r")
    with pytest.raises(ProgramError):
        await vm.submit(program(step("a", "none")))


async def test_a_stream_of_a_durable_run(host: Host) -> None:
    vm = host.vm()
    events = [
        event
        async for event in vm.stream(program(step("a", "write"), step("b", "read")), run_id="r")
    ]
    assert [event.kind for event in events][-1] == "run_finished"
    assert vm.load("r").digest == events[-1].trace.digest


async def test_a_stored_trace_is_the_run_s(host: Host) -> None:
    vm = host.vm()
    one = program(
        llm("m", allowed_outputs=["yes"]),
        mapped(step("e", "write", args={"x": "$item"}), over=[1, 2], id="l"),
    )
    trace = await vm.run(one, run_id="r")
    stored = vm.load("r")
    assert stored.digest == trace.digest
    assert Trace.from_json(stored.to_json()).digest == trace.digest
    assert vm.store is not None
    assert trace_of(vm.store.load("r")).usage() == trace.usage()


async def test_a_sealed_run_that_is_said_to_go_on_is_not_verified(host: Host) -> None:
    vm = host.vm()
    await vm.run(program(step("a", "write")), run_id="r")
    assert vm.store is not None
    run = vm.store.load("r")
    assert verify(subject_of(run))
    run.status = "suspended"
    assert not verify(subject_of(run))


async def test_a_run_in_doubt_can_be_cancelled_and_ends_when_the_doubt_is_settled(
    host: Host,
) -> None:
    one = program(step("a", "write", undo={"tool": "back"}), step("p", "pay"), step("b", "read"))
    vm = await killed(host, one, "pay")
    trace = await vm.cancel("r")
    assert (trace.status, [entry["path"] for entry in trace.waiting]) == (SUSPENDED, ["p"])
    vm.resolve("r", "p", done="paid", by="ann")
    trace = await vm.resume("r")
    assert (trace.status, host.calls) == (CANCELLED, ["back"])
    assert next(found for found in vm.load("r").steps if found.path == "p").extra["by"] == "ann"
    assert vm.store is not None
    assert verify(subject_of(vm.store.load("r")))


def test_each_process_names_itself_with_the_first_call_that_it_begins() -> None:
    def intent(path: str, owner: str | None = None) -> Row:
        return Row(
            INTENT,
            "",
            path,
            "tool",
            None,
            len(path),
            rest={"owner": owner} if owner is not None else None,
        )

    done = Row(STEP, "", "a", "tool", StepStatus.SUCCESS, 1, 2)
    rows = [intent("a", "x"), intent("bb"), done, intent("ccc"), intent("dddd", "y"), intent("bb")]
    assert begun_calls(rows) == {
        "bb": Unfinished("tool", 2, "y"),
        "ccc": Unfinished("tool", 3, "x"),
        "dddd": Unfinished("tool", 4, "y"),
    }
    assert begun_calls([intent("a")]) == {"a": Unfinished("tool", 1, None)}
    waits = Row(PAUSED, "", "a", "tool", StepStatus.IN_DOUBT, 7, 8)
    rows = [intent("a", "x"), intent("bb", "y"), waits]
    assert begun_calls(rows)["a"] == Unfinished("tool", 1, "x"), "y only waited for it"
    assert begun_calls([waits]) == {}, "nothing was begun"


def test_a_program_without_a_name_is_stored(tmp_path: Path) -> None:
    unnamed = Program.from_yaml("steps: [{id: a, type: set, values: {x: 1}}]")
    vm = ExecutionVM(store=f"sqlite:///{tmp_path}/runs.db")
    vm.run_sync(unnamed, run_id="a-1")
    (listed,) = vm.runs().runs
    assert replay(vm.load("a-1"), unnamed)
    vm.close()
    assert listed.program_name == unnamed.name
