"""State machines of AWS Step Functions, as its documentation shapes them, as programs that run."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from nano_vm import ExecutionVM, Program, Trace
from nano_vm.importing import Imported, imported

LAMBDA = "arn:aws:lambda:eu-west-1:123456789012:function:"
INVOKE = "arn:aws:states:::lambda:invoke"

State = dict[str, Any]


def machine(start: str, /, **states: State) -> dict[str, Any]:
    return {"StartAt": start, "States": states}


def converted(document: Any) -> Imported:
    return imported(json.dumps(document, indent=2), name="demo")


def program_of(document: Any) -> Program:
    """The program, of a machine that is converted as a whole."""
    result = converted(document)
    assert result.program is not None, result.findings
    assert result.complete, result.findings
    return result.program


def run(document: Any, given: Any, **tools: Callable[..., Any]) -> Trace:
    vm = ExecutionVM(None, tools=tools)
    program = program_of(document)
    assert [d for d in vm.check(program) if d.severity == "error"] == []
    return asyncio.run(vm.run(program, {"input": given}))


def found(document: Any, kind: str) -> list[str]:
    return [one.message for one in converted(document).findings if one.kind == kind]


REFUND = machine(
    "Get Order",
    **{
        "Get Order": {
            "Type": "Task",
            "Resource": INVOKE,
            "Parameters": {
                "FunctionName": f"{LAMBDA}get-order:$LATEST",
                "Payload": {"id.$": "$.id", "part": "costs $5"},
            },
            "ResultSelector": {"returned.$": "$.Payload.returned", "amount.$": "$.Payload.amount"},
            "ResultPath": "$.order",
            "Catch": [{"ErrorEquals": ["KeyError"], "ResultPath": "$.error", "Next": "Lost"}],
            "Next": "Returned",
        },
        "Returned": {
            "Type": "Choice",
            "Choices": [
                {"Variable": "$.order.returned", "BooleanEquals": False, "Next": "Refuse"},
                {
                    "And": [
                        {"Variable": "$.order.amount", "NumericLessThan": 100},
                        {"Not": {"Variable": "$.vip", "IsPresent": False}},
                    ],
                    "Next": "Gift",
                },
            ],
            "Default": "Pay",
        },
        "Gift": {
            "Type": "Pass",
            "Result": {"text": "a lamp"},
            "ResultPath": "$.gift",
            "Next": "Pay",
        },
        "Pay": {
            "Type": "Task",
            "Resource": f"{LAMBDA}pay",
            "Parameters": {"id.$": "$.id", "amount.$": "$.order.amount"},
            "Next": "Done",
        },
        "Done": {"Type": "Succeed"},
        "Refuse": {"Type": "Fail", "Error": "NotReturned", "Cause": "it is not back"},
        "Lost": {"Type": "Fail", "Error": "Lost", "CausePath": "$.error.Cause"},
    },
)


def get_order(id: str, part: str) -> dict[str, Any]:
    assert part == "costs $5"
    return {"A7": {"returned": True, "amount": 30}, "A8": {"returned": False, "amount": 1}}[id]


def pay(id: str, amount: int) -> str:
    return f"paid {amount} for {id}"


@pytest.mark.parametrize(
    ("given", "status", "steps", "outcome"),
    [
        ({"id": "A7"}, "success", "Get_Order Returned Returned_2 Pay Done", "paid 30 for A7"),
        (
            {"id": "A7", "vip": True},
            "success",
            "Get_Order Returned Returned_2 Gift Pay Done",
            "paid 30 for A7",
        ),
        ({"id": "A8"}, "failed", "Get_Order Returned Refuse", "it is not back"),
        ({"id": "A9"}, "failed", "Get_Order Get_Order_caught Lost", "'A9'"),
    ],
)
def test_a_machine_takes_the_way_that_it_took(
    given: Any, status: str, steps: str, outcome: str
) -> None:
    trace = run(REFUND, given, get_order=get_order, pay=pay)
    assert trace.status.value == status
    assert [step.step_id for step in trace.steps] == steps.split()
    assert outcome in str(trace.final_output if status == "success" else trace.error)


def test_a_finding_has_its_place_and_its_remedy() -> None:
    text = json.dumps(
        machine(
            "Ask",
            Ask={"Type": "Task", "Resource": f"{INVOKE}.waitForTaskToken", "Next": "End"},
            End={"Type": "Succeed"},
        ),
        indent=2,
    )
    result = imported(text, name="demo")
    (gap,) = result.findings
    assert (gap.kind, gap.loc) == ("gap", ("States", "Ask"))
    assert text.splitlines()[gap.line - 1].strip() == '"Ask": {'
    assert "waits for a task token" in gap.message
    assert "approval" in gap.remedy


def test_what_stands_for_a_gap_fails_and_keeps_the_state() -> None:
    state = {"Type": "Task", "Resource": f"{INVOKE}.waitForTaskToken", "End": True}
    result = converted(machine("Ask", Ask=state))
    assert not result.complete
    assert result.program is not None
    assert result.program.steps[0].metadata == {"not_imported": state}
    vm = ExecutionVM(None)
    trace = asyncio.run(vm.run(result.program, {"input": {}}))
    assert trace.status.value == "failed"
    assert "not imported" in str(trace.error)


def test_a_cycle_is_a_gap_that_names_loop() -> None:
    result = converted(
        machine(
            "Poll",
            Poll={"Type": "Task", "Resource": f"{LAMBDA}poll", "Next": "Ready"},
            Ready={
                "Type": "Choice",
                "Choices": [{"Variable": "$.ready", "BooleanEquals": True, "Next": "Done"}],
                "Default": "Poll",
            },
            Done={"Type": "Succeed"},
        )
    )
    (gap,) = result.findings
    assert gap.message == "state 'Ready' goes back to 'Poll'"
    assert "'loop'" in gap.remedy
    assert result.program is not None


@pytest.mark.parametrize(
    ("document", "message", "remedy"),
    [
        (machine("A", A={"Type": "Tsk", "End": True}), "the type 'Tsk'", "did you mean 'Task'?"),
        (machine("A", A={"Type": "Pass"}), "has no Next", "End: true"),
        (machine("A", A={"Type": "Pass", "Next": "B"}), "the state 'B'", "name a state"),
        (
            machine("Strat", Start={"Type": "Pass", "End": True}),
            "StartAt names the state 'Strat'",
            "did you mean 'Start'?",
        ),
        ({"States": {"A": {"Type": "Succeed"}}}, "has no StartAt", "name a state"),
        ({"StartAt": "A"}, "has no States", "write the states"),
        ({"StartAt": "A", "States": {"A": 1}}, "is no object", "Type"),
        (machine("A", A={"Type": "Parallel", "End": True}), "has no States", "write the states"),
        (machine("A", A={"Type": "Map", "End": True}), "has no States", "write the states"),
        (
            machine("A", A={"Type": "Pass", "End": True, "ResultPath": 3}),
            "ResultPath is a path",
            "correct it",
        ),
        (
            machine("A", A={"Type": "Task", "Resource": "x", "End": True, "Catch": [{}]}),
            "has no ErrorEquals",
            "name the errors",
        ),
        (
            machine("A", A={"Type": "Choice", "Choices": 1}),
            "Choices is a list of objects",
            "correct it",
        ),
        ({"a": 1}, "no workflow", "StartAt"),
        ([1], "no workflow", "StartAt"),
    ],
)
def test_a_mistake_in_the_file_is_a_fault(document: Any, message: str, remedy: str) -> None:
    result = converted(document)
    assert result.program is None
    assert not result.complete
    faults = [one for one in result.findings if one.kind == "fault"]
    assert any(message in one.message and remedy in one.remedy for one in faults), faults
