"""What may come of a request: JSON both ways, and the table of what is legal where."""

from __future__ import annotations

import json
from dataclasses import fields
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from build import NOW, llm, parallel, program, step

from nano_vm import LLMUsage, Program, tool
from nano_vm.errors import IllegalOutcome
from nano_vm.language.flow import Flow
from nano_vm.machine.compile import compile_flow
from nano_vm.machine.machine import Machine, machine_of
from nano_vm.machine.outcome import (
    KINDS,
    LEGAL,
    Answer,
    Arrived,
    BadResult,
    Cancelled,
    Decided,
    Failed,
    Joined,
    NotCalled,
    Outcome,
    Suspended,
    TimedOut,
    Unknown,
    Value,
    outcome_json,
    outcome_of,
)
from nano_vm.machine.plan import END, TOOL
from nano_vm.records.record import StepError
from nano_vm.records.status import TraceStatus
from nano_vm.tools.contract import contract

ERROR = StepError("tool", "Oops", "no\n", False, 3.5, ("ValueError",))
USAGE = LLMUsage(1, 2, 3, Decimal("0.00012"))

EVERY: list[Outcome] = [
    Value(None),
    Value({"a": [1, 1.0, "\u2028"]}),
    Answer("yes"),
    Answer("", USAGE, {"finish_reason": "length", "reasoning": "so"}),
    Failed(StepError("model", "E", "")),
    Failed(ERROR, LLMUsage(), "ada"),
    TimedOut(),
    TimedOut(called=False, usage=USAGE),
    Cancelled(),
    Cancelled(called=False),
    Suspended(),
    Decided(True),
    Decided(False, "too much", "ada"),
    Arrived(),
    Arrived([0]),
    Unknown(ERROR),
    Unknown(ERROR, crashed=False, ask=False),
    BadResult(ERROR),
    BadResult(ERROR, "", USAGE, {"model": "m"}),
    NotCalled(ERROR),
    Joined(),
]


def test_every_kind_is_drawn_here() -> None:
    assert {type(outcome) for outcome in EVERY} == set(KINDS.values())


@pytest.mark.parametrize("outcome", EVERY, ids=str)
def test_an_outcome_is_the_same_after_json(outcome: Outcome) -> None:
    told = json.loads(json.dumps(outcome_json(outcome)))
    back = outcome_of(told)
    assert back == outcome
    assert outcome_json(back) == told
    if isinstance(outcome, Failed | Unknown | BadResult | NotCalled):
        assert isinstance(back, type(outcome))
        # which `==` of errors leaves out
        assert back.error.retryable is outcome.error.retryable
        assert back.error.retry_after_seconds == outcome.error.retry_after_seconds


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"kind": "returned"},
        {"kind": "value"},
        {"kind": "joined", "value": 1},
        {"kind": "failed", "error": "no"},
        {"kind": "failed", "error": {"kind": "tool"}},
        {"kind": "answer", "text": "", "usage": {"prompt_tokens": -1}},
    ],
)
def test_what_is_no_outcome_is_refused(told: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"outcome|token count"):
        outcome_of(told)


# --- the table ------------------------------------------------------------------------------------


@tool(effect="write")
def mail() -> Any: ...


@tool(effect="read")
def fetch() -> Any: ...


CONTRACTS = {f.__name__: contract(f.__name__, f) for f in (mail, fetch)}
CALL = step("a", "mail", undo={"tool": "mail"}, reconcile={"tool": "fetch"}, retry=NOW)
WAIT = {"id": "w", "type": "wait", "event": "paid"}
APPROVAL = {"id": "p", "type": "approval", "role": "boss", "then": "$end", "otherwise": "$end"}
FORK = {"id": "f", "type": "parallel", "parallel_steps": [[step("b", "fetch")]]}


def begun(made: Program) -> Machine:
    plan = compile_flow(Flow(made), CONTRACTS)
    machine = machine_of(plan, {}, run_id="r")
    machine.start(0)
    return machine


def waiting_for(kind: str) -> Machine:
    """A machine whose request is of this kind."""
    if kind == "tool":
        return begun(program(CALL))
    if kind == "llm":
        return begun(program(llm("m")))
    if kind == "reconcile":
        machine = begun(program(CALL))
        machine.resume(Unknown(ERROR), 1)
    elif kind == "in_doubt":
        machine = begun(program(step("a", "mail")))
        machine.resume(Unknown(ERROR), 1)
    elif kind == "undo":
        machine = begun(program(CALL, step("b", "fetch")))
        machine.resume(Value(1), 1)
        machine.resume(Failed(ERROR), 2)
    elif kind == "fork":
        machine = begun(program(FORK))
        machine.child(0).start(0)
    else:
        machine = begun(program(WAIT if kind == "wait" else APPROVAL))
    assert machine.kind_of(machine._op) == kind
    return machine


@pytest.mark.parametrize("kind", LEGAL)
def test_a_request_takes_what_is_legal_and_nothing_else(kind: str) -> None:
    for outcome in EVERY:
        machine = waiting_for(kind)
        if type(outcome) in LEGAL[kind]:
            if kind == "fork":
                machine.fork.children[0].resume(Value(1), 1)  # type: ignore[union-attr]
            machine.resume(outcome, 3)
            assert not machine.broken
        else:
            with pytest.raises(IllegalOutcome, match=f"{kind} '.*' cannot have the outcome"):
                machine.resume(outcome, 3)
            assert machine.broken


def test_a_run_whose_last_step_is_done_is_cancelled_at_its_end() -> None:
    machine = begun(program(step("a", "fetch", undo={"tool": "fetch"})))
    assert machine.resume(Value(1), 1).code == END
    undo = machine.resume(Cancelled(), 2)
    assert (undo.code, machine.side_call, machine.path) == (TOOL, "undo", "a/undo")
    assert machine.resume(Value(2), 3).code == END
    assert (machine.status, machine.output) == (TraceStatus.CANCELLED, None)
    assert machine.error_summary() == "the run was cancelled after its last step"
    assert machine.resume(Cancelled(), 4).code == END
    with pytest.raises(IllegalOutcome, match="the run has ended"):
        machine.resume(Value(2), 5)


@pytest.mark.parametrize("outcome", [Failed(ERROR), Suspended()])
def test_what_failed_or_waits_takes_a_cancellation_and_stays_as_it_is(outcome: Outcome) -> None:
    machine = begun(program(step("a", "fetch")))
    assert machine.resume(outcome, 1).code == END
    status = machine.status
    assert machine.resume(Cancelled(), 2).code == END
    assert machine.status is status is not TraceStatus.CANCELLED


def test_a_branch_that_has_ended_takes_a_cancellation_and_stays_as_it_is() -> None:
    machine = begun(program(parallel(step("a", "fetch"))))
    child = machine.child(0)
    child.start(1)
    assert child.resume(Value(1), 2).code == END
    assert child.resume(Cancelled(), 3).code == END
    assert (child.status, child.output) == (TraceStatus.SUCCESS, 1)


def rendered() -> str:
    """The table as ARCHITECTURE.md has it."""
    lines = ["| outcome | " + " | ".join(LEGAL) + " |", "|---" * (len(LEGAL) + 1) + "|"]
    for kind in KINDS.values():
        shown = ", ".join(field.name for field in fields(kind))
        marks = ("x" if kind in LEGAL[request] else "" for request in LEGAL)
        lines.append(f"| `{kind.__name__}({shown})` | " + " | ".join(marks) + " |")
    return "\n".join(lines)


def test_the_documents_show_the_table() -> None:
    text = (Path(__file__).parents[2] / "ARCHITECTURE.md").read_text(encoding="utf-8")
    assert rendered() in text, rendered()
