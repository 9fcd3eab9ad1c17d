"""`timeout_seconds` of a whole program: calls, waits and approvals count, over processes too; and
what budgets leave out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from build import mapped, parallel, program, step
from test_inbox import Time

from nano_vm import ExecutionVM, Program, Trace, TraceStatus, tool
from nano_vm.errors import Expired
from nano_vm.replay import replay, subject_of, verify
from nano_vm.testing import explore

WAIT: dict[str, Any] = {"id": "w", "type": "wait", "event": "paid"}
ASK: dict[str, Any] = {
    "id": "ask",
    "type": "approval",
    "role": "boss",
    "then": "$next",
    "otherwise": "$end",
}
END: dict[str, Any] = {"id": "end", "type": "set", "values": {"x": 1}}


class Host:
    """VMs over one database, with a clock that is set by hand."""

    def __init__(self, path: Path) -> None:
        self.url = f"sqlite:///{path / 'runs.db'}"
        self.clock = Time()
        self.calls: list[str] = []

    def vm(self) -> ExecutionVM:
        async def note(q: Any = None) -> str:
            self.calls.append(f"note {q}")
            return "noted"

        async def take_back() -> None:
            self.calls.append("take back")

        tools = {"note": tool(effect="write")(note), "take_back": tool(effect="write")(take_back)}
        return ExecutionVM(
            tools=tools, store=self.url, clock=self.clock, roles=lambda who: ["boss"]
        )

    async def resumed(self) -> Trace:
        """What another process makes of the run."""
        vm = self.vm()
        trace = await vm.resume("r")
        vm.close()
        return trace


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def after(
    host: Host, made: Program, *then: Callable[[ExecutionVM], Awaitable[Any] | None] | float
) -> Trace:
    """The run after what is done with it, or the seconds that pass, one after the other."""

    async def go() -> Trace:
        vm = host.vm()
        trace = await vm.run(made, run_id="r")
        for what in then:
            if isinstance(what, (int, float)):
                host.clock.pass_(what)
                continue
            done = what(vm)
            if done is not None:
                await done
        vm.close()
        if trace.status is TraceStatus.SUSPENDED:
            trace = await host.resumed()
            assert verify(subject_of("r", None, {}, vm.store))
        return trace

    return asyncio.run(go())


def paid(vm: ExecutionVM) -> None:
    vm.send_event("r", "paid", {"n": 1})


def approved(vm: ExecutionVM) -> None:
    (entry,) = vm.waiting("r")
    vm.approve("r", entry["path"], shown=entry["shown"], by="ann")


# --- waits and approvals count --------------------------------------------------------------------


@pytest.mark.parametrize(("passed", "status"), [(50, "suspended"), (101, "failed")])
def test_a_wait_ends_with_the_run(host: Host, passed: int, status: str) -> None:
    trace = after(host, program(WAIT, END, timeout_seconds=100), passed)
    assert trace.status.value == status
    if status == "failed":
        assert trace.error == "Step 'w' failed: TimeoutError: the run did not end within 100 s"
        assert trace.error_kind == "timeout"


@pytest.mark.slow
def test_an_event_in_time_counts_and_the_time_before_it_too(host: Host) -> None:
    made = program(WAIT, {**WAIT, "id": "v"}, timeout_seconds=100)
    trace = after(host, made, 60, paid, 60)
    assert trace.error == "Step 'v' failed: TimeoutError: the run did not end within 100 s"


def test_who_decides_too_late_is_told(host: Host) -> None:
    def too_late(vm: ExecutionVM) -> None:
        with pytest.raises(Expired):
            approved(vm)

    trace = after(host, program(ASK, END, timeout_seconds=100), 101, too_late)
    assert trace.error == "Step 'ask' failed: TimeoutError: the run did not end within 100 s"


@pytest.mark.slow
def test_the_end_of_the_run_is_no_decision(host: Host) -> None:
    """An approval takes `otherwise` where it has its own deadline, and not where the run has
    one.
    """
    made = program({**ASK, "otherwise": [step("n", "note")], "then": []}, END, timeout_seconds=100)
    trace = after(host, made, 101)
    assert (trace.status.value, host.calls) == ("failed", [])
    own = program(
        {**ASK, "otherwise": [step("n", "note")], "then": [], "timeout_seconds": 10},
        END,
        timeout_seconds=100,
    )
    host.url = host.url.replace("runs.db", "other.db")
    assert after(host, own, 50).ok
    assert host.calls == ["note None"]


def test_a_worker_wakes_it(host: Host) -> None:
    async def go() -> list[Trace]:
        vm = host.vm()
        await vm.run(program(WAIT, timeout_seconds=100), run_id="r")
        assert await vm.work(until_idle=True) == []
        host.clock.pass_(101)
        found = await vm.work(until_idle=True)
        vm.close()
        return found

    (trace,) = asyncio.run(go())
    assert trace.error == "Step 'w' failed: TimeoutError: the run did not end within 100 s"


@pytest.mark.slow
def test_what_was_done_is_undone(host: Host) -> None:
    first = step("n", "note", undo={"tool": "take_back"})
    trace = after(host, program(first, WAIT, timeout_seconds=100), 101)
    assert trace.status is TraceStatus.FAILED
    assert host.calls == ["note None", "take back"]


def test_a_handler_may_tidy_up_and_the_run_has_failed_all_the_same(host: Host) -> None:
    made = program(
        {**WAIT, "catch": [{"errors": ["timeout"], "next": "end"}]}, END, timeout_seconds=100
    )
    trace = after(host, made, 101)
    assert trace.error == "Step 'end' failed: TimeoutError: the run did not end within 100 s"
    assert [(s.path, s.status.value) for s in trace.steps] == [("w", "failed"), ("end", "success")]


# --- of parts: composite steps, called programs ---------------------------------------------------


@pytest.mark.parametrize(
    "made",
    [
        program(parallel(WAIT, timeout_seconds=100)),
        program(mapped(WAIT, over=[1], timeout_seconds=100)),
        program({"id": "l", "type": "loop", "max_iterations": 1, "on_exhausted": "continue", "timeout_seconds": 100}
                | {"steps": [WAIT]}),
        program({"id": "c", "type": "call", "program": {"steps": [WAIT]}, "timeout_seconds": 100}),
        program({"id": "c", "type": "call", "program": {"name": "sub", "timeout_seconds": 100, "steps": [WAIT]}}),
    ],
)  # fmt: skip
def test_a_wait_ends_with_what_it_stands_in(host: Host, made: Program) -> None:
    trace = after(host, made, 101)
    assert trace.error_kind == "timeout"
    assert "did not end within 100 s" in str(trace.error)


def test_a_budget_of_seconds_leaves_waiting_out_in_children_too(host: Host) -> None:
    both = parallel(WAIT, {**ASK, "then": [], "otherwise": "$fail"})
    made = program(both, step("n", "note"), budget={"max_seconds": 10})

    def later(vm: ExecutionVM) -> None:
        paid(vm)
        approval = next(entry for entry in vm.waiting("r") if entry["kind"] == "approval")
        vm.approve("r", approval["path"], shown=approval["shown"], by="ann")

    trace = after(host, made, 500, later)
    assert trace.ok, trace.error


# --- in one process -------------------------------------------------------------------------------


def test_a_call_that_is_under_way_is_stopped() -> None:
    async def hang() -> None:
        await asyncio.Event().wait()

    vm = ExecutionVM(tools={"hang": tool(effect="read")(hang)})
    trace = vm.run_sync(
        program(step("h", "hang", catch=[{"next": "end"}]), END, timeout_seconds=0.1)
    )
    assert trace.error == "Step 'end' failed: TimeoutError: the run did not end within 0.1 s"
    assert replay(
        Trace.from_json(trace.to_json()),
        program(step("h", "hang", catch=[{"next": "end"}]), END, timeout_seconds=0.1),
    ).identical
    called = {
        "id": "c",
        "type": "call",
        "program": {"name": "sub", "timeout_seconds": 0.1, "steps": [step("h", "hang")]},
    }
    trace = vm.run_sync(program(called))
    assert trace.error == (
        "Step 'c' failed: TimeoutError: program 'sub': Step 'h' failed: TimeoutError: program "
        "'sub' did not end within 0.1 s"
    )


def test_a_run_in_time_pays_nothing() -> None:
    vm = ExecutionVM(tools={"t": lambda: 1})
    assert vm.run_sync(program(step("a"), step("b"), timeout_seconds=60)).ok


def test_it_is_explored() -> None:
    held = {**WAIT, "catch": [{"errors": ["timeout"], "next": "$end"}]}
    found = explore(program(step("a"), held, END, timeout_seconds=3600))
    assert found.coverage.missed == ()
    assert "failed" in found.statuses


@pytest.mark.slow
def test_its_field() -> None:
    schema = Program.json_schema()["$defs"]["Program"]["properties"]["timeout_seconds"]
    assert "whole run" in schema["description"]
    assert program(END, timeout_seconds=5).digest != program(END).digest
