"""A call in doubt is a request: whoever drives the machine may wait for somebody's word, or leave
the run as it is.
"""

from __future__ import annotations

from typing import Any

import pytest
from build import parallel, program, step

from nano_vm import Program, Trace, tool
from nano_vm.language.flow import Flow
from nano_vm.machine.compile import compile_flow
from nano_vm.machine.ledger import Limits
from nano_vm.machine.machine import DOUBT_OP, machine_of
from nano_vm.machine.outcome import (
    Cancelled,
    Failed,
    Joined,
    Outcome,
    Suspended,
    TimedOut,
    Unknown,
    Value,
)
from nano_vm.machine.plan import DOUBT, END, Op
from nano_vm.machine.terms import RunTerms
from nano_vm.records.record import StepError
from nano_vm.records.recording import Recording
from nano_vm.records.status import StepStatus, TraceStatus
from nano_vm.replay.rerun import Replayer
from nano_vm.tools.contract import contract

GONE = StepError("in_doubt", "LostCall", "its process is gone", retryable=False)
BROKE = StepError("tool", "ToolError", "it had failed", retryable=False)


@tool(effect="write")
def mail() -> Any: ...


@tool(effect="read")
def fetch() -> Any: ...


CONTRACTS = {f.__name__: contract(f.__name__, f) for f in (mail, fetch)}
TOOLS = {"tools": {"mail": {"effect": "write"}, "fetch": {"effect": "read"}}}
ASKS = step("a", "mail", reconcile={"tool": "fetch"})
THEN = step("b", "fetch")
UNDONE = step("a", "mail", undo={"tool": "mail"})


class Run:
    """A run of *made*, driven by hand; each outcome comes a millisecond after the one before."""

    def __init__(self, made: Program, limits: Limits | None = None) -> None:
        self.made = made
        plan = compile_flow(Flow(made), CONTRACTS)
        about: dict[str, Any] = dict(TOOLS)
        terms = RunTerms(limits or Limits())
        self.machine = machine_of(plan, {}, terms, 5, run_id="r", seed=1)
        self.recording = Recording(
            made.name,
            made.digest,
            "r",
            1,
            5,
            0,
            "00",
            {**about, **terms.to_dict()},
            records=self.machine.records,
            ops=plan.ops,
        )
        self.op = self.machine.start(5)

    def give(self, *outcomes: Outcome) -> Op:
        for outcome in outcomes:
            self.op = self.machine.resume(outcome, self.machine.now + 1_000_000)
        return self.op

    @property
    def trace(self) -> Trace:
        """The trace of the ended run, which a replay makes again from its records."""
        assert self.op.code == END
        self.machine.fill(self.recording)
        self.recording.finished_ns = self.machine.now
        trace = Trace(self.recording)
        for one in (trace, Trace.from_json(trace.to_json())):
            found = Replayer(self.made).replay(one)
            assert found, found
        return trace


def in_doubt(made: Program, *outcomes: Outcome) -> Run:
    run = Run(made)
    assert run.give(*outcomes) is DOUBT_OP
    machine = run.machine
    assert (machine.kind_of(run.op), machine.path, machine.status) == (
        "in_doubt",
        "a",
        TraceStatus.RUNNING,
    )
    assert machine.request["kind"] == "in_doubt"
    assert machine.request["tool"] == "mail"
    return run


TO_DOUBT: dict[str, tuple[dict[str, Any], list[Outcome]]] = {
    "crashed": (step("a", "mail"), [Unknown(GONE)]),
    "timed out": (step("a", "mail"), [TimedOut()]),
    "reconcile failed": (ASKS, [TimedOut(), Failed(BROKE)]),
    "reconcile said nothing": (ASKS, [Unknown(GONE), Value("?")]),
}
every = pytest.mark.parametrize(("call", "outcomes"), TO_DOUBT.values(), ids=list(TO_DOUBT))


@every
def test_nobody_says_and_the_run_is_left(call: dict[str, Any], outcomes: list[Outcome]) -> None:
    run = in_doubt(program(call, THEN), *outcomes)
    entry = {"path": "a", "step_id": "a", **run.machine.request}
    assert run.give(Suspended()).code == END
    trace = run.trace
    assert (trace.status, list(trace.waiting)) == (TraceStatus.SUSPENDED, [entry])
    assert trace.steps[-1].status is StepStatus.IN_DOUBT
    assert trace.error_kind == "in_doubt"


@every
def test_what_it_gave_is_its_outcome(call: dict[str, Any], outcomes: list[Outcome]) -> None:
    made = program(call, THEN, output={"a": "$a.output"})
    run = in_doubt(made, *outcomes)
    run.give(Value("sent"))
    assert run.machine.path == "b"
    run.give(Value(1))
    assert (run.trace.status, run.trace.output) == (TraceStatus.SUCCESS, {"a": "sent"})
    if "reconcile" not in call:
        plain = Run(made)
        plain.give(Value("sent"), Value(1))
        assert run.trace.digest == plain.trace.digest


@every
@pytest.mark.parametrize("retryable", [True, False])
def test_that_it_failed_is_handled_and_not_tried_again(
    call: dict[str, Any], outcomes: list[Outcome], retryable: bool
) -> None:
    error = StepError("tool", "Resolved", "it was not sent", retryable=retryable)
    made = program({**call, "max_retries": 3, "catch": [{"errors": ["*"], "next": "b"}]}, THEN)
    run = in_doubt(made, *outcomes)
    run.give(Failed(error))
    assert run.machine.path == "b"
    run.give(Value(1))
    first = run.trace.steps[-2]
    assert (first.status, first.error_kind, first.retries) == (StepStatus.FAILED, "tool", 0)


def test_a_value_that_cannot_be_taken_fails_the_step() -> None:
    run = Run(program(step("a", "mail"), THEN), Limits(value_bytes=100))
    run.give(Unknown(GONE), Value("x" * 200))
    assert run.op.code == END
    trace = run.trace
    assert (trace.status, trace.steps[0].error_kind) == (TraceStatus.FAILED, "limit")
    undone = Run(program(UNDONE, THEN), Limits(value_bytes=100))
    undone.give(Value("sent"), Failed(BROKE), Unknown(GONE), Value("x" * 200))
    assert undone.trace.steps[-1].error_kind == "limit"


@pytest.mark.parametrize(
    ("outcome", "status"),
    [(TimedOut(), TraceStatus.CANCELLED), (Unknown(GONE), TraceStatus.SUSPENDED)],
    ids=["timed out", "crashed"],
)
def test_a_cancelled_run_waits_for_a_call_whose_process_is_gone(
    outcome: Outcome, status: TraceStatus
) -> None:
    run = in_doubt(program(step("a", "mail"), THEN), outcome)
    run.give(Cancelled(called=False))
    trace = run.trace
    assert trace.status is status
    waits = status is TraceStatus.SUSPENDED
    assert [entry["kind"] for entry in trace.waiting] == ["in_doubt"] * waits
    assert trace.steps[0].status is StepStatus.IN_DOUBT


@pytest.mark.parametrize("outcome", [Value(1), Failed(BROKE), Suspended(), Cancelled()], ids=repr)
def test_an_undo_in_doubt_is_asked_about_too(outcome: Outcome) -> None:
    run = Run(program(UNDONE, THEN))
    run.give(Value("sent"), Failed(BROKE), Unknown(GONE))
    assert (run.op, run.machine.path) == (DOUBT_OP, "a/undo")
    assert run.give(outcome).code == END
    trace, last = run.trace, run.trace.steps[-1]
    left = isinstance(outcome, Suspended | Cancelled)
    assert trace.status is (TraceStatus.SUSPENDED if left else TraceStatus.FAILED)
    assert (last.path, last.status) == (
        "a/undo",
        StepStatus.IN_DOUBT
        if left
        else StepStatus.SUCCESS
        if isinstance(outcome, Value)
        else StepStatus.FAILED,
    )


def test_siblings_go_on_meanwhile_and_the_join_takes_the_word() -> None:
    made = program(parallel(step("x", "mail"), step("y", "fetch")), output={"p": "$p.output"})
    run = Run(made)
    first, second = run.machine.child(0), run.machine.child(1)
    first.start(6)
    assert first.resume(Unknown(GONE), 7).code == DOUBT
    second.start(8)
    assert second.resume(Value("read"), 9).code == END
    assert first.status is TraceStatus.RUNNING
    assert first.resume(Value("sent"), 10).code == END
    run.give(Joined())
    assert run.trace.output == {"p": {"x": "sent", "y": "read"}}


def test_a_pause_tells_when_it_began() -> None:
    run = Run(program(THEN, {"id": "w", "type": "wait", "event": "paid"}))
    run.give(Value(1))
    began = run.machine.now
    run.machine.now += 10**9
    assert run.machine.reached_ns == began
