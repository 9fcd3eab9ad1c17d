"""State machines of AWS Step Functions, as its documentation shapes them, as programs that run."""

from __future__ import annotations

import asyncio
import copy
import json
import random
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


def task(function: str, **parameters: Any) -> State:
    given = {"Parameters": parameters} if parameters else {}
    return {"Type": "Task", "Resource": f"{LAMBDA}{function}", **given}


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
        (
            machine("A", A={**task("f"), "End": True, "Next": "B"}, B={"Type": "Succeed"}),
            "state 'A' has Next beside End: true",
            "leave out one of them",
        ),
        (
            machine("A", A={**task("f"), "End": "yes", "Next": "B"}, B={"Type": "Succeed"}),
            "End is true or false",
            "correct it",
        ),
        (
            machine("A", A={"Type": "Wait", "SecondsPath": None, "End": True}),
            "SecondsPath is a path",
            "correct it",
        ),
        (
            {**machine("A", A={"Type": "Succeed"}), "TimeoutSeconds": "9"},
            "TimeoutSeconds is a number",
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


def echo(**given: Any) -> Any:
    return given


def double(event: Any) -> Any:
    return event * 2


def test_branches_give_a_list_in_their_order() -> None:
    both = machine(
        "Both",
        Both={
            "Type": "Parallel",
            "Branches": [
                machine("Left", Left={**task("stock", **{"item.$": "$.item"}), "End": True}),
                machine(
                    "Right",
                    Right={**task("price", **{"item.$": "$.item"}), "Next": "Tax"},
                    Tax={"Type": "Pass", "Parameters": {"net.$": "$.net"}, "End": True},
                ),
            ],
            "ResultPath": "$.found",
            "Next": "Offer",
        },
        Offer={
            **task("offer", **{"stock.$": "$.found[0]", "net.$": "$.found[1].net"}),
            "End": True,
        },
    )
    trace = run(
        both,
        {"item": "lamp"},
        stock=lambda item: 3,
        price=lambda item: {"net": 20, "currency": "EUR"},
        offer=lambda stock, net: [stock, net],
    )
    assert trace.final_output == [3, 20]


def test_the_list_of_branches_can_be_the_output() -> None:
    both = machine(
        "Both",
        Both={
            "Type": "Parallel",
            "Branches": [
                machine("One", One={"Type": "Pass", "Result": [1], "End": True}),
                machine("Same", Same={"Type": "Succeed"}),
            ],
            "End": True,
        },
    )
    assert run(both, {"a": 1}).final_output == [[1], {"a": 1}]


@pytest.mark.slow
@pytest.mark.parametrize("inner", ["ItemProcessor", "Iterator"])
def test_a_map_gives_what_its_items_give(inner: str) -> None:
    lines = machine(
        "Lines",
        Lines={
            "Type": "Map",
            "ItemsPath": "$.lines",
            "MaxConcurrency": 2,
            inner: machine("Double", Double={**task("double"), "End": True}),
            "ResultPath": "$.doubled",
            "OutputPath": "$.doubled",
            "End": True,
        },
    )
    assert run(lines, {"lines": [1, 2, 3]}, double=double).final_output == [2, 4, 6]


def test_a_map_selects_from_its_item_and_from_around_it() -> None:
    lines = machine(
        "Lines",
        Lines={
            "Type": "Map",
            "ItemsPath": "$.lines",
            "ItemSelector": {"rate.$": "$.rate", "line.$": "$$.Map.Item.Value"},
            "ItemProcessor": machine(
                "Price",
                Price={**task("price", **{"of.$": "$.line.n", "at.$": "$.rate"}), "End": True},
            ),
            "End": True,
        },
    )
    trace = run(lines, {"rate": 3, "lines": [{"n": 1}, {"n": 5}]}, price=lambda of, at: of * at)
    assert trace.final_output == [3, 15]


def test_ways_with_different_documents_meet_under_one_name() -> None:
    document = machine(
        "Known",
        Known={
            "Type": "Choice",
            "Choices": [{"Variable": "$.known", "BooleanEquals": True, "Next": "Use"}],
            "Default": "Fetch",
        },
        Fetch={**task("fetch"), "Next": "Use"},
        Use={**task("use", **{"name.$": "$.name"}), "End": True},
    )
    tools: dict[str, Any] = {"fetch": lambda event: {"name": "B"}, "use": lambda name: name}
    assert run(document, {"known": True, "name": "A"}, **tools).final_output == "A"
    assert run(document, {"known": False}, **tools).final_output == "B"


def test_what_only_some_ways_write_is_a_gap_where_it_is_read() -> None:
    document = machine(
        "Known",
        Known={
            "Type": "Choice",
            "Choices": [{"Variable": "$.known", "BooleanEquals": True, "Next": "Use"}],
            "Default": "Fetch",
        },
        Fetch={**task("fetch"), "ResultPath": "$.name", "Next": "Use"},
        Use={**task("use", **{"name.$": "$.name"}), "End": True},
    )
    (gap,) = found(document, "gap")
    assert gap == "state 'Use' reads a value that depends on the way by which the state is reached"


def test_a_name_that_is_still_read_is_not_written_again() -> None:
    document = machine(
        "First",
        First={
            **task("first"),
            "ResultPath": "$.order",
            "OutputPath": "$.order",
            "Next": "Second",
        },
        Second={**task("second"), "ResultPath": "$.order", "Next": "Show"},
        Show={
            **task("show", **{"old.$": "$.id", "new.$": "$.order"}),
            "End": True,
        },
    )
    trace = run(
        document,
        {},
        first=lambda event: {"id": 1},
        second=lambda event: {"id": 2},
        show=lambda old, new: [old, new],
    )
    assert trace.final_output == [1, {"id": 2}]


def test_several_ends_give_the_document_of_the_way_that_was_taken() -> None:
    document = machine(
        "Known",
        Known={
            "Type": "Choice",
            "Choices": [{"Variable": "$.n", "NumericGreaterThan": 1, "Next": "Many"}],
            "Default": "One",
        },
        Many={"Type": "Pass", "Parameters": {"many.$": "$.n"}, "ResultPath": "$.a", "Next": "Cut"},
        Cut={"Type": "Pass", "InputPath": "$.a", "End": True},
        One={"Type": "Succeed", "OutputPath": "$.n"},
    )
    assert run(document, {"n": 2}).final_output == {"many": 2}
    assert run(document, {"n": 1}).final_output == 1


@pytest.mark.parametrize(
    ("function", "value"),
    [
        ("States.Format('{} costs ${}', $.name, $.n)", "lamp costs $3"),
        ("States.Array($.n, 'a', 2)", [3, "a", 2]),
        ("States.MathAdd($.n, -1)", 2),
        ("States.ArrayLength($.list)", 2),
        ("States.ArrayGetItem($.list, 1)", "b"),
        ("States.ArrayContains($.list, 'b')", True),
        ("States.StringToJson($.json)", {"a": 1}),
        ("States.ArrayLength(States.Array(1, 2, 3))", 3),
        ("$['list'][0]", "a"),
        ("$", {"name": "lamp", "n": 3, "list": ["a", "b"], "json": '{"a": 1}'}),
        ("$$.Execution.Input.n", 3),
    ],
)
def test_a_payload_computes_what_it_computed(function: str, value: Any) -> None:
    document = machine("A", A={"Type": "Pass", "Parameters": {"made.$": function}, "End": True})
    given = {"name": "lamp", "n": 3, "list": ["a", "b"], "json": '{"a": 1}'}
    assert run(document, given).final_output == {"made": value}


@pytest.mark.parametrize(
    ("rule", "given", "holds"),
    [
        ({"StringEquals": "$5 \"a\" \\ 'b'"}, "$5 \"a\" \\ 'b'", True),
        ({"StringLessThan": "b"}, "a", True),
        ({"NumericGreaterThanEquals": 3}, 2, False),
        ({"NumericEqualsPath": "$.other"}, 7, True),
        ({"BooleanEquals": True}, True, True),
        ({"IsNull": True}, None, True),
        ({"IsNull": False}, None, False),
        ({"IsPresent": True}, 0, True),
        ({"StringMatches": "order-*"}, "order-7", True),
        ({"StringMatches": "*.log"}, "a.txt", False),
        ({"StringMatches": "*x*"}, "axb", True),
    ],
)
def test_a_choice_compares_as_it_did(rule: State, given: Any, holds: bool) -> None:
    for negated in (False, True):
        one = {"Variable": "$.v", **rule}
        document = machine(
            "C",
            C={
                "Type": "Choice",
                "Choices": [{**({"Not": one} if negated else one), "Next": "Yes"}],
                "Default": "No",
            },
            Yes={"Type": "Pass", "Result": "yes", "End": True},
            No={"Type": "Pass", "Result": "no", "End": True},
        )
        expected = "yes" if holds is not negated else "no"
        assert run(document, {"v": given, "other": 7}).final_output == expected


@pytest.mark.parametrize(("path", "output"), [("$", "$input.a"), ("$.b", "$input.a.b"), (None, {})])
@pytest.mark.parametrize(
    "state",
    [
        {"Type": "Wait", "Seconds": 0, "Next": "B"},
        {
            "Type": "Choice",
            "Choices": [{"Variable": "$.c", "IsPresent": True, "Next": "C"}],
            "Default": "B",
        },
    ],
)
def test_a_state_gives_what_its_input_path_selects(
    state: State, path: str | None, output: Any
) -> None:
    document = machine(
        "A",
        A={**state, "InputPath": "$.a", "OutputPath": path},
        B={"Type": "Succeed"},
        C={"Type": "Fail"},
    )
    assert program_of(document).to_dict()["output"] == output


@pytest.mark.parametrize(
    "rule",
    [
        {"Variable": "order.id", "IsNull": True},
        {"Variable": "", "IsNull": True},
        {"Variable": "$.a", "NumericEqualsPath": 7},
        {"Variable": "$.a", "StringEqualsPath": "x.b"},
        {"Variable": "$.a", "StringEqualsPath": None},
    ],
)
def test_a_path_that_does_not_begin_with_a_dollar_is_a_gap(rule: State) -> None:
    (gap,) = found(chosen(**rule), "gap")
    assert "which does not begin with $" in gap


def test_retries_wait_and_count_as_they_did() -> None:
    rule = {"ErrorEquals": ["States.ALL"], "MaxAttempts": 2, "IntervalSeconds": 0}
    calls: list[int] = []

    def flaky(event: Any) -> int:
        calls.append(1)
        if len(calls) < 3:
            raise ValueError("no")
        return len(calls)

    document = machine("A", A={**task("flaky"), "Retry": [rule], "End": True})
    assert run(document, {}, flaky=flaky).final_output == 3


def test_a_wait_and_the_time_limits_are_kept() -> None:
    document = machine(
        "Wait",
        Wait={"Type": "Wait", "SecondsPath": "$.delay", "Next": "Until"},
        Until={"Type": "Wait", "Timestamp": "2016-08-18T17:33:00Z", "Next": "Call"},
        Call={**task("echo"), "TimeoutSeconds": 9, "End": True},
    )
    program = program_of({**document, "TimeoutSeconds": 90, "Comment": "waits"})
    assert (program.timeout_seconds, program.description) == (90, "waits")
    wait, until, call = program.to_dict()["steps"]
    assert (wait["seconds"], until["until"]) == ("$input.delay", "2016-08-18T17:33:00Z")
    assert call["timeout_seconds"] == 9


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"Type": "Pass", "QueryLanguage": "JSONata", "Output": "{% 1 %}"}, "with JSONata"),
        ({"Type": "Pass", "Assign": {"a": 1}}, "has Assign"),
        ({"Type": "Pass", "InputPath": "$.a[*]"}, "the path '$.a[*]'"),
        ({"Type": "Pass", "Parameters": {"a.$": "States.UUID()"}}, "calls States.UUID"),
        ({"Type": "Pass", "Parameters": {"a.$": "$$.Execution.Name"}}, "of the context object"),
        ({"Type": "Pass", "Parameters": {"a.$": "nonsense"}}, "no path and no function"),
        ({"Type": "Task", "Resource": "arn:aws:states:::states:startExecution.sync"}, "another"),
        ({"Type": "Task", "Resource": INVOKE, "Parameters": {"FunctionName.$": "$.f"}}, "not name"),
        ({"Type": "Wait"}, "waits for nothing"),
        (
            {
                "Type": "Map",
                "ItemReader": {"Resource": "arn:aws:states:::s3:getObject"},
                "ItemProcessor": machine("X", X={"Type": "Succeed"}),
            },
            "has ItemReader",
        ),
        (
            {
                "Type": "Parallel",
                "Branches": [machine("X", X={"Type": "Succeed"})],
                "Retry": [{"ErrorEquals": ["States.ALL"]}],
            },
            "retries all of its branches",
        ),
    ],
)
def test_what_has_no_counterpart_is_a_gap(state: State, message: str) -> None:
    result = converted(machine("A", A={**state, "Next": "B"}, B={"Type": "Succeed"}))
    assert result.program is not None, result.findings
    gaps = [one.message for one in result.findings if one.kind == "gap"]
    assert any(message in one for one in gaps), result.findings
    vm = ExecutionVM(None)
    assert [d for d in vm.check(result.program) if d.severity == "error"] == []


FOREIGN: dict[str, Any] = {
    "Next": "B",
    "Default": "B",
    "Choices": [{"Variable": "$.a", "IsNull": True, "Next": "B"}],
    "Catch": [{"ErrorEquals": ["States.ALL"], "Next": "B"}],
}
"""Transitions, each of which only states of some types have."""


@pytest.mark.parametrize(
    ("state", "fields"),
    [
        ({**task("f"), "End": True}, ("Default", "Choices")),
        ({"Type": "Pass", "End": True}, ("Default", "Choices", "Catch")),
        ({"Type": "Wait", "Seconds": 1, "End": True}, ("Default", "Choices", "Catch")),
        ({"Type": "Succeed"}, tuple(FOREIGN)),
        ({"Type": "Fail"}, tuple(FOREIGN)),
        ({"Type": "Choice", "Choices": FOREIGN["Choices"]}, ("Next", "Catch")),
    ],
)
def test_a_transition_that_a_type_has_not_is_a_gap_and_leads_nowhere(
    state: State, fields: tuple[str, ...]
) -> None:
    for field in fields:
        document = machine(
            "A",
            A={**state, field: copy.deepcopy(FOREIGN[field])},
            B={"Type": "Succeed"},
        )
        result = converted(document)
        assert result.program is not None, result.findings
        assert [one.loc for one in result.findings if one.kind == "gap"] == [("States", "A", field)]


def mapped(**fields: Any) -> dict[str, Any]:
    inner = {**machine("X", X={"Type": "Succeed"}), **fields}
    return machine("A", A={"Type": "Map", "ItemProcessor": inner, "End": True})


NULL = {"Variable": "$.a", "IsNull": True}


def chosen(**rule: Any) -> dict[str, Any]:
    choice = {"Type": "Choice", "Choices": [{**rule, "Next": "B"}]}
    return machine("A", A=choice, B={"Type": "Succeed"})


def guarded(field: str, **more: Any) -> dict[str, Any]:
    rule = {"ErrorEquals": ["States.ALL"], **({"Next": "B"} if field == "Catch" else {}), **more}
    return machine("A", A={**task("f"), field: [rule], "Next": "B"}, B={"Type": "Succeed"})


@pytest.mark.parametrize(
    ("document", "loc", "remedy"),
    [
        ({**mapped(), "TimoutSeconds": 3}, "TimoutSeconds", "did you mean 'TimeoutSeconds'?"),
        (mapped(TimeoutSeconds=3), "ItemProcessor TimeoutSeconds", "by hand"),
        (mapped(ProcessorConfig={"Mode": "DISTRIBUTED"}), "ItemProcessor ProcessorConfig", "batch"),
        (mapped(ProcessorConfig={"Mode": "INLINE", "A": 1}), "ItemProcessor ProcessorConfig", ""),
        (guarded("Retry", MaxAttemps=2), "Retry 0 MaxAttemps", "did you mean 'MaxAttempts'?"),
        (guarded("Catch", Assign={"a": 1}), "Catch 0 Assign", "by hand"),
        (guarded("Catch", ResultPaht=None), "Catch 0 ResultPaht", "did you mean 'ResultPath'?"),
        (chosen(**NULL, Assign={"a": 1}), "Choices 0 Assign", "by hand"),
        (chosen(**NULL, Output={"a": 1}), "Choices 0 Output", "by hand"),
        (chosen(Not={**NULL, "Next": "B"}), "Choices 0 Not Next", "by hand"),
        (chosen(And=[{"Or": [{**NULL, "Assign": {}}]}]), "And 0 Or 0 Assign", "by hand"),
        (chosen(Variable="$.a", IsNul=True), "Choices 0 IsNul", "did you mean 'IsNull'?"),
    ],
)
def test_no_part_is_dropped_without_a_finding(document: Any, loc: str, remedy: str) -> None:
    result = converted(document)
    assert result.program is not None, result.findings
    gaps = {" ".join(map(str, one.loc)): one for one in result.findings if one.kind == "gap"}
    (at,) = [one for one in gaps if one.endswith(loc)]
    assert remedy in gaps[at].remedy


@pytest.mark.parametrize(
    "document",
    [
        {**mapped(Comment="c", ProcessorConfig={"Mode": "INLINE"}), "Version": "1.0"},
        guarded("Retry", Comment="c", MaxDelaySeconds=3, JitterStrategy="FULL"),
        guarded("Catch", Comment="c", ResultPath=None),
        chosen(**NULL, Comment="c"),
    ],
)
def test_a_field_that_is_converted_or_says_nothing_is_no_gap(document: Any) -> None:
    assert program_of(document)


@pytest.mark.parametrize(
    "rule",
    [
        {"And": [NULL], **NULL},
        {"Or": [NULL], "Not": NULL},
        {"Or": [NULL], "Variable": "$.b"},
        {**NULL, "IsPresent": True},
        {"IsNull": True},
    ],
)
def test_a_rule_with_more_than_one_test_is_a_gap(rule: State) -> None:
    (gap,) = found(chosen(**rule), "gap")
    assert "no Variable with one comparison" in gap


def test_the_tools_are_those_of_all_steps_of_the_program() -> None:
    branch = machine("C", C={**task("count", of=1), "End": True})
    document = machine(
        "A",
        A={
            "Type": "Map",
            "ItemProcessor": machine("B", B={**task("count", by=2), "End": True}),
            "Next": "D",
        },
        D={"Type": "Parallel", "Branches": [branch], "Next": "E"},
        E={**task("store"), "End": True},
    )
    assert converted(document).tools == {"count": ("by", "of"), "store": ("event",)}


def test_no_tools_are_to_be_written_for_a_program_that_the_language_does_not_take() -> None:
    document = {**machine("A", A={**task("f"), "End": True}), "TimeoutSeconds": 0}
    result = converted(document)
    assert (result.program, result.tools) == (None, {})


def places(part: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    keys: list[Any] = []
    if isinstance(part, (dict, list)):
        keys = list(part) if isinstance(part, dict) else list(range(len(part)))
    return [at for key in keys for at in [(*path, key), *places(part[key], (*path, key))]]


MAPPED = machine(
    "Lines",
    Lines={
        "Type": "Map",
        "ItemsPath": "$.lines",
        "ItemSelector": {"line.$": "$$.Map.Item.Value"},
        "ItemProcessor": REFUND,
        "Retry": [{"ErrorEquals": ["States.Timeout"], "MaxAttempts": 1}],
        "Catch": [{"ErrorEquals": ["States.ALL"], "Next": "Wait"}],
        "Next": "Wait",
    },
    Wait={"Type": "Wait", "Seconds": 1, "Next": "Both"},
    Both={"Type": "Parallel", "Branches": [machine("P", P={"Type": "Succeed"})], "End": True},
)


def machines_in(part: Any) -> list[dict[str, Any]]:
    inner = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
    found = [part] if isinstance(part, dict) and "States" in part else []
    return [*found, *(one for some in inner for one in machines_in(some))]


@pytest.mark.slow
@pytest.mark.parametrize("field", [*FOREIGN, "End", "SecondsPath", "ItemsPath", "InputPath"])
def test_a_field_that_is_added_to_any_state_gives_no_exception(field: str) -> None:
    document = copy.deepcopy(MAPPED)
    for inner in machines_in(document):
        states = inner["States"]
        states["B"] = {"Type": "Succeed"}  # which nothing else leads to
        for name, state in states.items():
            if field not in state:
                for given in (FOREIGN.get(field), None, True):
                    states[name] = {**state, field: copy.deepcopy(given)}
                    result = converted(document)
                    faults = [one for one in result.findings if one.kind == "fault"]
                    assert (result.program is None) == bool(faults)
                states[name] = state


@pytest.mark.slow
def test_a_damaged_machine_gives_findings_and_no_exception() -> None:
    dice = random.Random(1)
    for _ in range(200):
        damaged = copy.deepcopy(MAPPED)
        *way, last = dice.choice(places(damaged))
        holder: Any = damaged
        for key in way:
            holder = holder[key]
        holder[last] = dice.choice([None, 0, -1, "", "$", "x", [], [1], {}, {"a.$": 1}, True])
        result = converted(damaged)
        assert result.program is not None or any(one.kind == "fault" for one in result.findings)
