"""Branches over finite domains: what is said of small programs, and that no run of random programs
contradicts it.
"""

from __future__ import annotations

import enum
import json
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NewType, NotRequired, TypedDict

import pytest
from build import llm, mapped, parallel, program, step
from campaigns import cases
from pydantic import BaseModel

from nano_vm import Program
from nano_vm.language.flow import Flow
from nano_vm.machine.compile import Layout, compile_flow
from nano_vm.machine.ledger import Limits
from nano_vm.machine.machine import Machine, machine_of
from nano_vm.machine.outcome import Answer, Arrived, Decided, Failed, TimedOut, Value
from nano_vm.machine.plan import (
    MODEL,
    PAUSE,
    BranchOp,
    LoopOp,
    Op,
    PauseOp,
    Plan,
    SetOp,
    SwitchOp,
    TestOp,
)
from nano_vm.machine.simulate import simulate
from nano_vm.machine.terms import RunTerms
from nano_vm.records.record import BRIEF, StepError
from nano_vm.tools.contract import contract
from nano_vm.values import UNSET
from nano_vm.verify.data.branches import check_branches
from nano_vm.verify.data.domains import Domain, described, of_hint, of_schema
from nano_vm.verify.data.names import check_names
from nano_vm.verify.data.possible import Domains, barred_edges, infeasible_edges
from nano_vm.verify.shape import check_shape

# --- what is said ---------------------------------------------------------------------------------


def asked(*allowed: str, id: str = "m", **fields: Any) -> dict[str, Any]:
    return llm(id, allowed_outputs=list(allowed), **fields)


def noted(step_id: str = "n", **values: Any) -> dict[str, Any]:
    return {"id": step_id, "type": "set", "values": values or {"z": 1}}


def choice(
    test: str, then: Any = None, otherwise: Any = None, id: str = "c", **fields: Any
) -> dict[str, Any]:
    branches = {"then": [noted(f"{id}_then")] if then is None else then}
    if otherwise is not None:
        branches["otherwise"] = otherwise
    return {"id": id, "type": "condition", "condition": test, **branches, **fields}


def switch(on: Any, *cases: str, id: str = "s", **fields: Any) -> dict[str, Any]:
    return {"id": id, "type": "switch", "on": on, "cases": dict.fromkeys(cases, "$next"), **fields}


def loop(until: str, *steps: Any, most: int = 3, id: str = "l", **fields: Any) -> dict[str, Any]:
    return {
        "id": id,
        "type": "loop",
        "until": until,
        "max_iterations": most,
        "steps": list(steps),
        **fields,
    }


def said(*steps: dict[str, Any], tools: dict[str, Any] | None = None, **fields: Any) -> list[str]:
    flow = Flow(program(*steps, **fields))
    assert not flow.diagnostics, flow.diagnostics
    contracts = {name: contract(name, function) for name, function in (tools or {}).items()}
    found = list(check_branches(flow, contracts))
    assert all(d.severity == "warning" for d in found)
    return [f"{d.code}: {d.message}" for d in found]


def barred(*steps: dict[str, Any], **fields: Any) -> set[str]:
    flow = Flow(program(*steps, **fields))
    assert not flow.diagnostics, flow.diagnostics
    return {f"{flow.nodes[index].step.id} {label}" for index, label in infeasible_edges(flow)}


YES_NO = asked("yes", "no", output_key="d")


@pytest.mark.parametrize(
    ("test", "expected"),
    [
        ("$d == 'yes'", []),
        ("'yes' in '$d'.lower()", []),
        ("$d == 'maybe'", ["V060: condition of 'c' is never true: $d is one of 'yes', 'no'"]),
        (
            "$d in ['yes', 'no']",
            ["V060: condition of 'c' is never false: $d is one of 'yes', 'no'"],
        ),
        (
            "$m.output == 'Yes'",
            ["V060: condition of 'c' is never true: $m.output is one of 'yes', 'no'"],
        ),
        (
            "$d == 'yes' and $d == 'no'",
            ["V060: condition of 'c' is never true: $d is one of 'yes', 'no'"],
        ),
        (
            "$d == 'yes' or $d == 'oui'",
            ["V062: condition of 'c': $d == 'oui' is never true: $d is one of 'yes', 'no'"],
        ),
        ("$d > 5", ["V062: condition of 'c': $d > 5 is always an error: $d is one of 'yes', 'no'"]),
        ("not $d", ["V062: condition of 'c': $d is never true or false: $d is one of 'yes', 'no'"]),
        (
            "$q == 1 and $d",
            ["V062: condition of 'c': $d is never true or false: $d is one of 'yes', 'no'"],
        ),
        (
            "$d == 'maybe' and $q == 1",
            ["V060: condition of 'c' is never true: $d is one of 'yes', 'no'"],
        ),
        (
            "$d != 'maybe' or $q == 1",
            ["V060: condition of 'c' is never false: $d is one of 'yes', 'no'"],
        ),
        ("$q > 5 or $q == 'x'", []),
        (
            "$d != 'oui' and $q == 1",
            ["V062: condition of 'c': $d != 'oui' is never false: $d is one of 'yes', 'no'"],
        ),
        ("true", []),  # it reads nothing: somebody wrote it on purpose
        ("1 == 2", []),
    ],
)
def test_conditions_on_allowed_outputs(test: str, expected: list[str]) -> None:
    assert said(YES_NO, choice(test)) == expected


INPUTS = {
    "type": "object",
    "properties": {
        "n": {"type": "integer"},
        "t": {"type": "string"},
        "flag": {"type": "boolean"},
        "level": {"enum": ["low", "high", 1]},
        "order": {
            "type": "object",
            "properties": {"state": {"enum": ["open", "paid"]}, "amount": {"type": "number"}},
            "required": ["state"],
        },
        "list": {"type": "array", "items": {"enum": ["a", "b"]}},
    },
    "required": ["n", "t", "flag", "level", "order", "list"],
}


@pytest.mark.parametrize(
    ("test", "expected"),
    [
        ("$n == 'yes'", ["V062: condition of 'c': $n == 'yes' is never true: $n is a number"]),
        ("$n == '5'", []),  # a text equals a number if it is that number
        ("$n != 'yes'", ["V062: condition of 'c': $n != 'yes' is never false: $n is a number"]),
        ("$t == 5", []),
        ("$t == true", ["V062: condition of 'c': $t == true is never true: $t is a string"]),
        ("$n < null", ["V062: condition of 'c': $n < null is always an error: $n is a number"]),
        ("$n < 'many'", ["V062: condition of 'c': $n < 'many' is always an error: $n is a number"]),
        ("$n < '7'", []),
        ("$n < $t", []),
        ("$n and $flag", ["V062: condition of 'c': $n is never true or false: $n is a number"]),
        ("$flag", []),
        ("$flag == 'true'", ["V060: condition of 'c' is never true: $flag is one of true, false"]),
        (
            "$level == 'medium'",
            ["V060: condition of 'c' is never true: $level is one of 'low', 'high', 1, 1.0"],
        ),
        ("$level == 1.0", []),
        (
            "$order.state == 'closed'",
            ["V060: condition of 'c' is never true: $order.state is one of 'open', 'paid'"],
        ),
        (
            "$order.amount == 'x'",
            [
                "V062: condition of 'c': $order.amount == 'x' is never true: $order.amount is a "
                "number"
            ],
        ),
        (
            "$order > 5",
            ["V062: condition of 'c': $order > 5 is always an error: $order is an object"],
        ),
        ("$list[0] == 'c'", ["V060: condition of 'c' is never true: $list[0] is one of 'a', 'b'"]),
        (
            "'c' in $list",
            [
                "V062: condition of 'c': 'c' in $list is never true: $list is a list of one of "
                "'a', 'b'"
            ],
        ),
        (
            "$n in $list",
            [
                "V062: condition of 'c': $n in $list is never true: $n is a number, $list is a "
                "list of one of 'a', 'b'"
            ],
        ),
        ("5 in $n", ["V062: condition of 'c': 5 in $n is always an error: $n is a number"]),
        (
            "$n + $t > 5",
            [
                "V062: condition of 'c': ($n + $t) > 5 is always an error: $n is a number, $t is "
                "a string"
            ],
        ),
        (
            "$n.lower() == 'a'",
            ["V062: condition of 'c': $n.lower() == 'a' is always an error: $n is a number"],
        ),
        ("len($n) > 1", ["V062: condition of 'c': len($n) > 1 is always an error: $n is a number"]),
        (
            "len($t) == 'x'",
            ["V062: condition of 'c': len($t) == 'x' is never true: $t is a string"],
        ),
        ("$n > 5 and $n < 3", []),  # ranges are not followed
        ("1 < $n < 'x'", ["V062: condition of 'c': 1 < $n < 'x' is never true: $n is a number"]),
    ],
)
def test_conditions_on_inputs(test: str, expected: list[str]) -> None:
    assert said(choice(test), inputs=INPUTS) == expected


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Order(TypedDict):
    state: Literal["open", "paid"]
    colour: NotRequired[Colour]


@dataclass
class Line:
    count: int
    kind: Literal["a", "b"]


class Customer(BaseModel):
    vip: bool
    lines: list[Line] = []


def get_order() -> Order: ...  # type: ignore[empty-body]
def get_line() -> Line: ...  # type: ignore[empty-body]
async def get_customer() -> Customer: ...  # type: ignore[empty-body]
def get_flag() -> bool: ...  # type: ignore[empty-body]
def get_colour() -> Colour | None: ...
def get_any(): ...  # type: ignore[no-untyped-def]


TOOLS = {f.__name__: f for f in (get_order, get_line, get_customer, get_flag, get_colour, get_any)}


@pytest.mark.parametrize(
    ("tool", "test", "domain"),
    [
        ("get_order", "$x.state == 'closed'", "$x.state is one of 'open', 'paid'"),
        ("get_order", "$x.colour == 'green'", "$x.colour is one of 'red', 'blue'"),
        ("get_line", "$x.kind == 'c'", "$x.kind is one of 'a', 'b'"),
        ("get_customer", "$x.vip == 'yes'", "$x.vip is one of true, false"),
        ("get_customer", "$x.lines[0].kind == 'c'", "$x.lines[0].kind is one of 'a', 'b'"),
        ("get_flag", "$x == 'true'", "$x is one of true, false"),
        ("get_colour", "$x == 'green'", "$x is one of 'red', 'blue', null"),
    ],
)
def test_conditions_on_what_tools_return(tool: str, test: str, domain: str) -> None:
    steps = (step("a", tool, output_key="x"), choice(test))
    assert said(*steps, tools=TOOLS) == [f"V060: condition of 'c' is never true: {domain}"]
    assert barred(*steps) == set(), "nobody holds a tool to its annotation"
    flow, contracts = Flow(program(*steps)), {name: contract(name, f) for name, f in TOOLS.items()}
    assert infeasible_edges(flow, contracts) == frozenset()
    assert len(infeasible_edges(flow, contracts, returns_hold=True)) == 1
    assert said(step("a", "get_any", output_key="x"), choice(test), tools=TOOLS) == []


def test_a_tool_that_is_reconciled_gives_what_the_reconcile_says() -> None:
    steps = (
        step("a", "get_flag", output_key="x", reconcile={"tool": "get_any"}),
        choice("$x == 'true'"),
    )
    assert said(*steps, tools=TOOLS) == []


def test_a_decision_is_known_behind_it() -> None:
    inner = choice("$d == 'no'", id="inner")
    assert barred(YES_NO, choice("$d == 'yes'", [inner])) == {"inner then"}
    assert barred(YES_NO, choice("$d == 'yes'", [noted()], [inner])) == {"inner otherwise"}
    assert barred(YES_NO, choice("$d == 'yes'", "$next", "$end"), inner) == {"inner then"}
    assert barred(YES_NO, choice("$d == 'yes'"), inner) == set(), "both ways meet before it"
    again = asked("yes", "no", id="m2", output_key="d")
    assert barred(YES_NO, choice("$d == 'yes'", [again, inner])) == set(), "it was asked again"
    assert barred(choice("$q == 'yes'", [choice("$q == 'no'", id="inner")])) == {"inner then"}
    assert barred(choice("$q == '1'", [choice("$q == 1", id="inner")])) == set(), (
        "1, '1' and 1.0 are equal to it"
    )
    assert barred(choice("$q in ['a', 'b']", [choice("$q == 'c'", id="inner")])) == {"inner then"}


def test_a_field_is_known_behind_its_test() -> None:
    schema = {"properties": {"k": {"enum": ["a", "b", "c"]}}, "required": ["k"], "type": "object"}
    model = llm("m", output_schema=schema, output_key="o")
    assert barred(model, choice("$o.k == 'a'", [choice("$o.k == 'b'", id="inner")])) == {
        "inner then"
    }
    assert barred(model, choice("$o.k == 'a'", [choice("$m.output.k == 'b'", id="inner")])) == set()


def test_what_was_not_looked_at_is_not_known() -> None:
    """Behind `or`, its second operand may not have been evaluated."""
    part = {
        "type": ["object", "string"],
        "properties": {"k": {"enum": ["a", "b"]}},
        "required": ["k"],
    }
    inputs = {
        "type": "object",
        "properties": {"o": part, "q": {"enum": [1, 2]}},
        "required": ["o", "q"],
    }
    inner = choice("$o == 'text'", id="inner")
    assert barred(choice("$q == 1 or $o.k == 'a'", [inner]), inputs=inputs) == set()
    assert barred(choice("$o.k == 'a'", [inner]), inputs=inputs) == {"inner then"}
    lacking = choice("$z == 1", [noted("w", x="a")])
    assert (
        barred(lacking, choice("$q == 1 or $x == 'a'", [choice("$x == 'b'", id="i")], id="d"))
        == set()
    )


def test_an_error_is_not_false() -> None:
    """`otherwise` of a condition that errs for all else is not taken by what errs."""
    assert barred(noted(x="a"), choice("$x > 5")) == {"c then", "c otherwise"}
    assert barred(YES_NO, choice("$d == 'yes' or $d > 5")) == {"c otherwise"}


def test_one_name_of_several_writers() -> None:
    first, second = noted("a", s="new"), noted("b", s="done")
    assert barred(first, choice("$s == 'new'"), second, choice("$s == 'new'", id="e")) == {
        "c otherwise",
        "e then",
    }
    assert barred(first, choice("$q == 1", [second]), choice("$s == 'new'", id="e")) == set()
    assert barred(first, choice("$q == 1", [second]), choice("$s == 'old'", id="e")) == {"e then"}


def test_what_inputs_may_give_is_not_known() -> None:
    """A name that a step writes may come with the inputs where the step was not passed."""
    may = choice("$q == 1", [noted("a", s="new")])
    assert barred(may, choice("$s == 'new'", id="e")) == set()
    declared = {"type": "object", "properties": {"q": {}, "s": {"enum": ["old"]}}}
    assert barred(may, choice("$s == 'none'", id="e"), inputs=declared) == {"e then"}
    defaulted = {"type": "object", "properties": {"s": {"enum": ["old"], "default": "none"}}}
    assert barred(choice("$s == 'none'"), inputs=defaulted) == set(), (
        "a default is not held to the schema"
    )


def test_loops() -> None:
    count = noted("i", n={"expr": "$n + 1"})
    assert barred(noted("a", n=0), loop("$n >= 3", count)) == set()
    assert barred(loop("$d == 'maybe'", YES_NO)) == {"l until"}
    assert said(loop("$d == 'maybe'", YES_NO)) == [
        "V060: until of 'l' is never true: $d is one of 'yes', 'no'"
    ]
    assert barred(loop("$d != 'maybe'", YES_NO, on_exhausted="continue")) == {
        "l again",
        "l exhausted",
    }
    assert barred(loop("$d == 'yes'", YES_NO, most=1, on_exhausted="continue")) == {"l again"}
    assert barred({**loop("", YES_NO, on_exhausted="continue"), "until": None}) == {"l until"}
    grown = noted("i", n={"a": "$n"})
    assert barred(noted("a", n=0), loop("$n == 5", grown, most=100)) == {"l until"}


def test_a_switch_that_forgets() -> None:
    three = asked("a", "b", "c", output_key="d")
    assert said(three, switch("$d", "a", "b")) == [
        "V061: switch 's' has no case for 'c', and no default"
    ]
    assert said(three, switch("$d", "a", "b", "c")) == []
    assert said(three, switch("$d", "a", default="$end")) == []
    assert said(three, switch("$d", "a", "B", default="$end")) == [
        "V063: switch 's': no value takes the case 'B': what 's' is on is one of 'a', 'b', 'c'"
    ]
    assert barred(three, switch("$d", "a", "b", "c", "x", default="$end")) == {
        "s case:x",
        "s default",
    }
    assert said(switch("$n", "1", "x", default="$end"), inputs=INPUTS) == [
        "V063: switch 's': no value takes the case 'x': what 's' is on is a number"
    ]
    assert said(switch("$flag", "true"), inputs=INPUTS) == [
        "V061: switch 's' has no case for false, and no default"
    ]
    assert said(switch("$level", "low", "high", "1.00"), inputs=INPUTS) == []
    assert said(switch("$list", "x"), inputs=INPUTS)[0].startswith("V062: switch 's' always fails")


def test_a_switch_tells_its_cases() -> None:
    three = asked("a", "b", "c", output_key="d")
    inside = {
        "id": "s",
        "type": "switch",
        "on": "$d",
        "cases": {"a": [choice("$d == 'a'", id="x")]},
    }
    assert barred(three, {**inside, "default": [choice("$d == 'a'", id="y")]}) == {
        "x otherwise",
        "y then",
    }


def test_outputs_of_other_steps() -> None:
    both = parallel(asked("a", "b", id="l"), asked("c", id="r"))
    assert barred(both, choice("$p.output.l == 'c'")) == {"c then"}
    assert barred(both, choice("$p.output.r == 'c'")) == {"c otherwise"}
    each = mapped(asked("a", "b", id="x"), over=["i"])
    assert barred(each, choice("$m.output[0] == 'c'")) == {"c then"}
    assert barred(mapped(choice("$item == 'j'"), over=["i", "k"])) == {"c then"}
    block = choice("$q == 1", [YES_NO], id="b")
    assert barred(block, choice("$b.output == 'x'")) == {"c then"}
    assert barred(block, choice("$b.output == null")) == set(), "the empty block leaves null"
    skipped = asked("a", "b", on_error="skip", default="none", output_key="d")
    assert barred(skipped, choice("$d == 'none'"), choice("$d == 'x'", id="e")) == {"e then"}
    kept = asked("a", "b", on_invalid="none", output_key="d")
    assert barred(kept, choice("$d == 'none'"), choice("$d == 'x'", id="e")) == {"e then"}
    asks = {"id": "ok", "type": "approval", "role": "r"}
    assert barred(asks, choice("$ok.output.approved == 'yes'", id="e")) == {"e then"}
    assert barred(asks, choice("$ok.output.approved", id="e")) == set()
    sub = {"name": "sub", "steps": [choice("$k == 'x'")], "output": "$k"}
    called = {"id": "f", "type": "call", "program": sub, "with": {"k": "$d"}}
    assert barred(YES_NO, called, choice("$f.output == 'x'", id="e")) == {"c then", "e then"}


def test_an_item_is_another_in_each_map() -> None:
    inner = mapped(choice("$item == 'b'", id="inner"), over=["a", "b"], id="again")
    assert barred(mapped(choice("$item == 'a'", [inner]), over=["a", "x"])) == set()
    given = {"type": "object", "properties": {"item": {"enum": ["a", "b"]}}, "required": ["item"]}
    assert barred(choice("$item == 'a'", [inner]), inputs=given) == set()


def test_what_a_step_copies_when_entered_in_two_ways() -> None:
    """Reached by jump the name may come with the inputs; in order it was written just before."""
    steps = (choice("$q == 1", "copy", "$next"), noted("w", x="a"), noted("copy", y="$x", next="e"))
    assert barred(*steps, choice("$y == 'b'", "$end", "$end", id="e")) == set()


def test_steps_entered_twice_are_judged_by_both() -> None:
    steps = (noted("a", s="one"), choice("$s == 'one'", "$next", "$end"), noted("b", s="two"))
    again = choice("$q == 1", "c", "$next", id="e")
    assert said(*steps) == ["V060: condition of 'c' is never false: $s is 'one'"]
    assert said(*steps, again) == []


@pytest.mark.slow
def test_long_chains_of_names() -> None:
    steps = [noted("s0", x0="a")] + [
        noted(f"s{i}", **{f"x{i}": f"$x{i - 1}"}) for i in range(1, 1500)
    ]
    assert barred(*steps, choice("$x1499 == 'a'")) <= {"c otherwise"}


# --- domains --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (True, "anything"),
        (False, "nothing"),
        ({}, "anything"),
        ({"type": "integer"}, "a number"),
        ({"type": ["string", "null"]}, "a string or null"),
        ({"type": "boolean"}, "one of true, false"),
        ({"const": "a"}, "'a'"),
        ({"enum": ["a", 2]}, "one of 'a', 2, 2.0"),
        ({"enum": [0]}, "one of 0, 0.0, -0.0"),
        ({"enum": [[1]]}, "a list"),
        ({"anyOf": [{"const": "a"}, {"type": "null"}]}, "one of 'a', null"),
        ({"oneOf": [{"const": "a"}, {}]}, "anything"),
        ({"$ref": "#/$defs/x", "$defs": {"x": {"const": "a"}}}, "'a'"),
        ({"$ref": "#/$defs/x", "$defs": {"x": {"$ref": "#/$defs/x"}}}, "anything"),
        ({"$ref": "https://example.org/x"}, "anything"),
        ({"not": {"const": 1}}, "anything"),
        ({"minLength": 3}, "anything"),
        ({"enum": list(map(str, range(100)))}, "a string"),
    ],
)
def test_domains_of_schemas(schema: Any, expected: str) -> None:
    assert described(of_schema(schema)) == expected


def test_a_schema_that_holds_itself_is_soon_done() -> None:
    node = {"type": "object", "properties": {f"p{i}": {"$ref": "#"} for i in range(20)}}
    assert described(of_schema(node)) == "an object"


Id = NewType("Id", str)


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        (Any, "anything"),
        (int, "a number"),
        (str | None, "a string or null"),
        (Literal["a", 1, None], "one of 'a', 1, null"),
        (Annotated[bool, "x"], "one of true, false"),
        (Colour, "one of 'red', 'blue'"),
        (list[int], "a list"),
        (dict[str, int], "an object"),
        (Id, "a string"),
        (object, "anything"),
        ("text", "anything"),
        (bytes, "anything"),
    ],
)
def test_domains_of_hints(hint: Any, expected: str) -> None:
    assert described(of_hint(hint)) == expected


# --- no run contradicts it ------------------------------------------------------------------------

POOL = ["yes", "no", "a", "b", "1", 1, 2, True, None, "Yes "]
NAMES = ["k0", "k1", "k2", "k3"]


class Draw:
    """Draws a program over few names and values, so that tests often come out one way."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.count = 0
        self.inputs: dict[str, Any] | None = None
        self.reads: list[str] = []  # what a test may read here
        self.answers: dict[str, list[Any]] = {}  # by step: what its model may say

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def pick(self, options: Any) -> Any:
        return self.random.choice(list(options))

    def program(self) -> dict[str, Any]:
        data: dict[str, Any] = {"name": "p"}
        if self.chance(0.5):
            names = ["i0", "i1", *(["k0"] if self.chance(0.3) else [])]
            properties: dict[str, Any] = {}
            for name in names:
                properties[name] = (
                    {"enum": self.random.sample(POOL, 2)}
                    if self.chance(0.8)
                    else {"type": "string"}
                )
                if self.chance(0.3):
                    properties[name]["default"] = self.pick(POOL)
            required = [name for name in names if self.chance(0.6)]
            self.inputs = {"type": "object", "properties": properties, "required": required}
            data["inputs"] = self.inputs
            self.reads += names
        elif self.chance(0.5):
            self.reads.append("i0")
        data["steps"] = self.block(2, [], self.random.randint(2, 5))
        if self.chance(0.3):
            data["output"] = f"${self.pick(self.reads)}" if self.reads else "x"
        return data

    def block(self, depth: int, jumps: list[str], most: int | None = None) -> list[dict[str, Any]]:
        ids = []
        for _ in range(most or self.random.randint(1, 3)):
            self.count += 1
            ids.append(f"s{self.count}")
        steps = []
        for i, step_id in enumerate(ids):
            steps.append(self.step(step_id, depth, [*ids[i + 1 :], *jumps]))
        return steps

    def inner(self, depth: int, jumps: list[str]) -> list[dict[str, Any]]:
        """A block; what it writes is mostly not read after it, since it may not have run."""
        before = list(self.reads)
        steps = self.block(depth - 1, jumps)
        if self.chance(0.85):
            self.reads = before
        return steps

    def literal(self, ref: str) -> str:
        return json.dumps(self.pick(POOL))

    def ref(self) -> str:
        return "$" + self.pick(self.reads) if self.reads else "1"

    def call(self) -> str:
        """A function of what may be read here, often an error."""
        ref, other, text = self.ref(), self.ref(), self.literal("")
        return str(
            self.pick(
                [
                    f"default({ref}, {text})",
                    f"default(default({ref if ref == '1' else f'{ref}.f'}, {other}), {text})",
                    f"get({ref}, 'f', {other})",
                    f"append([{other}], {ref})",
                    f"append({ref}, {other})",
                    f"concat({ref}, {other})",
                    f"concat([{text}], {ref})",
                    f"join([{ref}, {text}], '-')",
                    f"split('{ref}', 'e')",
                    f"sorted([{ref}, {text}])",
                    f"min({ref}, {text})",
                    f"max([{ref}, {other}])",
                    f"keys({ref})",
                    f"json('{ref}')",
                    f"round({ref})",
                    f"sum([{ref}, 1])",
                    f"abs({ref})",
                    f"str({ref})",
                ]
            )
        )

    def test(self, depth: int = 2) -> str:
        kind = self.random.randint(0, 13)
        ref = self.ref()
        if kind <= 4 or depth == 0:
            return f"{ref} {self.pick(['==', '==', '!='])} {self.literal(ref)}"
        if kind == 5:
            return f"{ref} in [{self.literal(ref)}, {self.literal(ref)}, {self.literal(ref)}]"
        if kind == 6:
            return (
                f"{ref} {self.pick(['<', '>='])} {self.pick(['1', '2', chr(39) + 'b' + chr(39)])}"
            )
        if kind == 7:
            return f"'{ref}'.lower().strip() == 'yes'"
        if kind == 8:
            return f"not ({self.test(depth - 1)})"
        if kind == 9:
            return f"{ref} == {self.ref()}"
        if kind == 10:
            return (
                f"{self.call()} {self.pick(['==', '!='])} "
                f"{self.pick([self.literal(ref), self.call()])}"
            )
        if kind == 11:
            return f"{self.literal(ref)} in {self.call()}"
        return f"({self.test(depth - 1)} {self.pick(['and', 'or'])} {self.test(depth - 1)})"

    def target(self, depth: int, jumps: list[str]) -> Any:
        if depth > 0 and self.chance(0.6):
            return self.inner(depth, jumps)
        return self.pick([*jumps, *jumps, "$next", "$next", "$end"])

    def value(self) -> Any:
        if self.reads and self.chance(0.4):
            return self.pick(
                [
                    self.ref(),
                    self.ref(),
                    {"expr": self.test(1)},
                    {"expr": f"{self.ref()} + 1"},
                    {"expr": self.call()},
                    [{"expr": self.call()}, "a"],
                    f"<{self.ref()}>",
                ]
            )
        return self.pick([*POOL, {"a": "yes"}, ["a", "b"]])

    def step(self, step_id: str, depth: int, jumps: list[str]) -> dict[str, Any]:
        flat = [
            "tool",
            "llm",
            "llm",
            "schema",
            "set",
            "set",
            "condition",
            "condition",
            "condition",
            "switch",
        ]
        flat += ["approval", "wait"] if self.chance(0.3) else []
        kind = self.pick([*flat, "parallel", "map", "loop", "call"] if depth > 0 else flat)
        found: dict[str, Any] = {"id": step_id, "type": "llm" if kind == "schema" else kind}
        writes: list[str] = []
        if kind == "tool":
            found["tool"] = "t"
        elif kind == "llm":
            found |= {
                "prompt": "q",
                "allowed_outputs": (allowed := self.random.sample(["yes", "no", "a", "b"], 2)),
            }
            self.answers[step_id] = allowed
            if self.chance(0.2):
                found["on_invalid"] = self.pick(POOL)
        elif kind == "schema":
            inner = self.random.sample(["a", "b", "yes", 1, True], 2)
            schema = {
                "type": "object",
                "properties": {"f": {"enum": inner}, "g": {"type": "boolean"}},
                "required": ["f"],
            }
            found |= {"prompt": "q", "output_schema": schema}
            self.answers[step_id] = [
                {"f": f, **g} for f in inner for g in ({}, {"g": True}, {"h": 1})
            ]
        elif kind == "set":
            names = self.random.sample(NAMES, self.random.randint(1, 2))
            found["values"] = {name: self.value() for name in names}
            writes += names
        elif kind == "condition":
            found |= {"condition": self.test(), "then": self.target(depth, jumps)}
            if self.chance(0.7):
                found["otherwise"] = self.target(depth, jumps)
        elif kind == "approval":
            found |= {
                "role": "r",
                "then": self.target(depth, jumps),
                "otherwise": self.target(depth, jumps),
            }
        elif kind == "wait":
            found["event"] = "e"
        elif kind == "switch":
            cases = self.random.sample(
                ["yes", "no", "a", "b", "1", "true", "null"], self.random.randint(1, 3)
            )
            on = {"expr": self.call()} if self.chance(0.3) else self.ref()
            found |= {"on": on, "cases": {case: self.target(depth, jumps) for case in cases}}
            if self.chance(0.6):
                found["default"] = self.target(depth, jumps)
        elif kind == "parallel":
            before, branches = list(self.reads), []
            for _ in range(2):
                branches.append(self.block(depth - 1, [], 1))
                self.reads = list(before)
            for number, branch in enumerate(branches):  # two branches may not write one name
                rename(branch, number)
            found["parallel_steps"] = branches
        elif kind == "map":
            before = list(self.reads)
            self.reads.append("it")
            found |= {
                "over": self.pick([["a", "b"], ["yes"], [], [1, "1"]]),
                "as": "it",
                "steps": self.block(depth - 1, []),
            }
            self.reads = before
        elif kind == "loop":
            before = list(self.reads)
            body = self.block(depth - 1, jumps)
            found |= {
                "max_iterations": self.random.randint(1, 3),
                "until": self.test(),
                "steps": body,
            }
            found["on_exhausted"] = self.pick(["fail", "continue"])
            if self.chance(0.3):
                self.reads = before
        elif kind == "call":
            before, given = list(self.reads), [f"j{i}" for i in range(2)]
            arguments = {name: self.value() for name in given}
            arguments = {
                name: value if type(value) is not dict else "x" for name, value in arguments.items()
            }
            self.reads = list(given)
            inner = {"name": step_id, "steps": self.block(depth - 1, [])}
            if self.chance(0.5):
                inner["output"] = self.ref()
            found |= {"with": arguments, "program": inner}
            self.reads = before
        if self.chance(0.35) and kind not in ("condition", "switch", "approval"):
            found["output_key"] = self.pick(NAMES)
            writes.append(found["output_key"])
        if self.chance(0.15):
            found["on_error"] = "skip"
            if kind != "switch" and self.chance(0.6):
                found["default"] = self.pick([*POOL, {"f": "z"}])
            elif self.chance(0.8):
                writes = []
        if self.chance(0.1) and jumps:
            found["catch"] = [{"errors": ["*"], "next": self.pick(jumps)}]
        if self.chance(0.05) and jumps:
            found["next"] = self.pick(jumps)
        self.reads += writes
        if (
            kind in ("llm", "schema", "parallel", "map", "loop", "call", "condition")
            and found.get("on_error") != "skip"
        ):
            fields = {
                "schema": [".f", ".f", ".g"],
                "map": ["[0]"],
                "approval": [".approved", ""],
            }.get(kind, [""])
            if kind == "parallel":
                fields = [f".{branch[0]['id']}" for branch in found["parallel_steps"]]
            self.reads.append(f"{step_id}.output{self.pick(fields)}")
        return found


def rename(steps: list[Any], number: int) -> None:
    """Give the branches of a `parallel` names of their own to write."""
    for found in steps:
        if "output_key" in found:
            found["output_key"] = f"k{number * 2 + int(found['output_key'][1:]) % 2}"
        if found["type"] == "set":
            found["values"] = {
                f"k{number * 2 + i}": v for i, v in enumerate(found["values"].values())
            }
        for part in ("then", "otherwise", "default", "steps"):
            if isinstance(found.get(part), list) and found["type"] != "call":
                rename([x for x in found[part] if isinstance(x, dict) and "id" in x], number)
        for branch in found.get("cases", {}).values():
            if isinstance(branch, list):
                rename(branch, number)
        for branch in found.get("parallel_steps", []):
            rename(branch, number)


def holds(domain: Domain, value: Any) -> bool:
    """Whether *value* is in *domain*, told in a way of its own."""
    if value is UNSET:
        return domain.absent
    if domain.values is not None:
        shown = [json.dumps([type(v).__name__, v]) for v in domain.values.values()]
        return json.dumps([type(value).__name__, value]) in shown
    kind = {type(None): 1, bool: 2, int: 4, float: 4, str: 8, list: 16, dict: 32}[type(value)]
    if not domain.kinds & kind:
        return False
    if type(value) is list and domain.items is not None:
        return all(holds(domain.items, item) for item in value)
    if type(value) is dict and domain.fields is not None:
        lacking = [
            name for name, part in domain.fields.items() if name not in value and not part.absent
        ]
        more = [name for name in value if name not in domain.fields]
        inside = all(
            holds(domain.fields[name], part)
            for name, part in value.items()
            if name in domain.fields
        )
        return inside and not lacking and not (domain.closed and more)
    return True


@dataclass
class Subject:
    """A program that passes, its plan with an eye on every test, and what is said of it."""

    flow: Flow
    plan: Plan
    domains: Domains
    barred: frozenset[tuple[int, str]]
    clean: bool  # whether no read is told to lack on some path
    draw: Draw
    looks: int = 0

    @classmethod
    def of(cls, seed: int) -> Subject | None:
        draw = Draw(seed)
        data = draw.program()
        flow = Flow(Program.from_dict(data))
        found = [*flow.diagnostics, *check_shape(flow)]
        if any(d.severity == "error" for d in found):
            return None
        found = list(check_names(flow))
        if any(d.severity == "error" and d.code != "V010" for d in found):
            return None
        if any("unknown name" in d.message or "is a step, not a value" in d.message for d in found):
            return None
        plan = compile_flow(flow, {"t": contract("t", lambda: 1)})
        domains = Domains(flow)
        clean = not any(d.code in ("V010", "V011") for d in found)
        subject = cls(flow, plan, domains, barred_edges(domains), clean, draw)
        subject.watch()
        return subject

    def watch(self) -> None:
        """Every test, switch and set looks first whether each name holds what it can hold there."""
        for op in self.plan.ops:
            if isinstance(op, BranchOp):
                op.test = self.looking(op, op.test)
            elif isinstance(op, SwitchOp):
                op.on = self.looking(op, op.on)
            elif isinstance(op, TestOp) and op.until is not None:
                op.until = self.looking(op, op.until)
            elif isinstance(op, SetOp):
                name, slot, get = op.values[0]
                op.values = ((name, slot, self.looking(op, get)), *op.values[1:])

    def looking(self, op: Op, then: Any) -> Any:
        node = self.flow.nodes[op.index]
        layout = Layout(node.frame.names)  # a frame holds what is read

        def look(frame: list[Any]) -> Any:
            self.looks += 1
            assert self.domains.reached(node), f"{node.step.id} cannot be reached"
            for slot, place in enumerate(layout.place):
                if place == layout.last:
                    continue
                value, domain = frame[place], self.domains.at(node, slot)
                assert holds(domain, value), (
                    f"at {node.step.id}, slot {slot} is {value!r}, and not {domain}"
                )
            return then(frame)

        return look

    def run(self, seed: int) -> Machine:
        drawn = random.Random(seed)
        terms = RunTerms(Limits(steps=400))
        machine = machine_of(self.plan, self.given(drawn), terms, run_id="r")

        def feed(asked: Machine, op: Op) -> Op:
            if op.code == PAUSE:
                assert isinstance(op, PauseOp)
                if not op.asks:
                    return asked.resume(Arrived(drawn.choice(POOL)), asked.now)
                if drawn.random() < 0.1:
                    return asked.resume(TimedOut(), asked.now)
                decided = Decided(drawn.random() < 0.5, drawn.choice([None, "yes"]))
                return asked.resume(decided, asked.now)
            if drawn.random() < 0.07:
                kind = drawn.choice(["tool", "timeout", "model"])
                return asked.resume(Failed(StepError(kind, "Boom", "boom", False)), asked.now)
            if op.code == MODEL:
                text: Any = (
                    drawn.choice(self.draw.answers[op.step_id]) if drawn.random() < 0.9 else "???"
                )
                answer = Answer(text if type(text) is str else json.dumps(text))
                return asked.resume(answer, asked.now)
            return asked.resume(Value(drawn.choice([*POOL, {"f": "a"}, ["a"]])), asked.now)

        simulate(machine, feed)
        return machine

    def given(self, drawn: random.Random) -> dict[str, Any]:
        inputs: dict[str, Any] = {}
        schema = self.draw.inputs
        if schema is None:
            inputs["i0"] = drawn.choice(POOL)
        for name, part in schema["properties"].items() if schema else ():
            if name in schema["required"] or drawn.random() < 0.5:  # type: ignore[index]
                inputs[name] = drawn.choice(part.get("enum", ["yes", "z"]))
        for name in NAMES:  # what steps write may come with the inputs as well
            if drawn.random() < 0.3 and (schema is None or name not in schema["properties"]):
                inputs[name] = drawn.choice([*POOL, "other"])
        for name in self.plan.frames[0].needed:  # without these no run begins
            if name not in inputs:
                inputs[name] = drawn.choice(POOL)
        return inputs


def taken(subject: Subject, machine: Machine) -> Iterator[tuple[int, str]]:
    """The labelled edges that a run took, by its records."""
    tests = {
        node.of.index: node.index for node in subject.flow.nodes if node.kind == "test" and node.of
    }
    for record in machine.records:
        op = record[0] if not isinstance(record[0], int) else subject.plan.ops[record[0]]
        extra = record[10] if len(record) > 10 and record[10] is not None else {}
        if isinstance(op, BranchOp) and isinstance(extra, tuple):
            yield op.index, extra[0]
        elif isinstance(op, SwitchOp) and "branch" in extra:
            yield (
                op.index,
                extra["branch"] if extra["branch"] == "default" else f"case:{extra['branch']}",
            )
        elif isinstance(op, (TestOp, LoopOp)):
            index = op.index if isinstance(op, TestOp) else tests[op.index]
            if extra.get("iterations", 1) > 1:
                yield index, "again"
            if record[2].value == "success":
                yield index, "exhausted" if extra["exhausted"] else "until"
        for child in extra.get("children", ()) if isinstance(extra, dict) else ():
            yield from taken(subject, _Records(child))  # type: ignore[arg-type]


@dataclass
class _Records:
    records: list[Any]


def errors_of(machine: Any) -> Iterator[str]:
    for record in machine.records:
        if len(record) > BRIEF:
            if record[4] is not None:
                yield record[4].message
            extra = record[10]
            for child in extra.get("children", ()) if isinstance(extra, dict) else ():
                yield from errors_of(_Records(child))
    if getattr(machine, "error", None) is not None:
        yield machine.error.message


def campaign(programs: int, runs: int, first: int = 0) -> Counter[str]:
    """Random programs, random outcomes: no run takes a barred edge, holds an impossible value, or
    reads what no path wrote.
    """
    count: Counter[str] = Counter()
    for seed in range(first, first + programs):
        subject = Subject.of(seed)
        count["drawn"] += 1
        if subject is None:
            continue
        count["programs"] += 1
        count["says something"] += bool(subject.barred)
        decided = {index for index, labels in subject.domains.barred.items()}
        count["has a test that goes both ways"] += any(
            not subject.domains.barred[index] for index in decided
        )
        count["clean"] += subject.clean
        feasible: set[tuple[int, str]] = set()
        for number in range(runs):
            machine = subject.run(seed * 1000 + number)
            count["runs"] += 1
            count[f"ends {machine.status.value}"] += 1
            edges = set(taken(subject, machine))
            count["edges"] += len(edges)
            feasible |= edges
            wrong = edges & subject.barred
            assert not wrong, f"seed {seed}: {describe(subject, wrong)}"
            if subject.clean:
                lacking = [
                    text for text in errors_of(machine) if "has no value on this path" in text
                ]
                assert not lacking, f"seed {seed}: {lacking}"
        count["looks"] += subject.looks
    return count


def describe(subject: Subject, edges: set[tuple[int, str]]) -> list[str]:
    return [f"{subject.flow.nodes[index].step.id} {label}" for index, label in sorted(edges)]


@pytest.mark.slow
def test_no_run_contradicts_what_is_said() -> None:
    count = campaign(400, 10)
    assert count["runs"] > 3000
    assert count["says something"] >= 0.2 * count["programs"], count
    assert count["has a test that goes both ways"] >= 0.2 * count["programs"], count
    assert count["clean"] >= 0.2 * count["programs"], count


@pytest.mark.campaign
@pytest.mark.parametrize("first", [100_000, 103_000, 106_000, 109_000])
def test_no_run_of_many_contradicts_what_is_said(first: int) -> None:
    programs = cases(3_000)
    assert campaign(programs, 10, first=first)["runs"] > 8.5 * programs
