"""How large a value can get: what a literal or an expression gives is never larger than what is
said of it."""

from __future__ import annotations

from typing import Any

import pytest
from expression_texts import expressions, literal, plain_values
from hypothesis import example, given, settings

from nano_vm.errors import ExprError, StepFault
from nano_vm.language.closures import compile_value
from nano_vm.language.expr import parse_expr
from nano_vm.language.flow import Flow
from nano_vm.language.program import Program
from nano_vm.values import UNSET, as_text, canonical
from nano_vm.verify.cost.sizes import NUMBER_BYTES, Sizes


def escaped(value: Any) -> Any:
    """A literal that gives *value*: what looks like a reference stays text."""
    if type(value) is str:
        return value.replace("$", "$$")
    if type(value) is list:
        return [escaped(item) for item in value]
    return {key: escaped(item) for key, item in value.items()} if type(value) is dict else value


def bound_of(value: Any, a: Any, b: Any) -> tuple[Flow, tuple[int, int] | None]:
    start = {"id": "s", "type": "set", "values": {"a": escaped(a), "b": escaped(b)}}
    flow = Flow(
        Program.from_dict({"steps": [start, {"id": "t", "type": "set", "values": {"out": value}}]})
    )
    names = flow.frames[0].names
    return flow, Sizes(flow, 0, lambda step, _: None).of(("name", id(names), "out"))


def holds(value: Any, a: Any, b: Any) -> None:
    flow, bound = bound_of(value, a, b)
    names = flow.frames[0].names
    frame = [UNSET] * names.size
    frame[names.keys["a"]], frame[names.keys["b"]] = a, b
    try:
        result = compile_value(value, names)(frame)
    except StepFault:
        return
    assert bound is not None, "all that it is made of is known"
    assert len(as_text(result).encode()) <= bound[0], (result, bound)
    assert len(canonical(result)) <= bound[1], (result, bound)


@pytest.mark.slow
@settings(max_examples=300)
@given(expressions, plain_values, plain_values)
@example("join([1, 2, 3, 4], '--------')", None, None)
@example("join($a, $b)", [1, 2, 3, 4, 5, 6, 7], "\0" * 9)
@example("split($a, ',')", ",,,,,,,,,,", None)
@example("split($a, ',')", "\0,\0,\0", None)
@example("json($a)", "[1e15,1e15,1e15]", None)
@example("str($a)", ['"', '"', "\\"], None)
@example("[str($a)]", ['"', '"', "\\"], None)
@example("$a.upper()", "ΐΐΐ", None)
@example("append(concat($a, $a), $b)", [1], {"k": "v"})
@example("concat($a, concat($b, $b))", "\0", "☃")
@example("get($a, 'k', $b)", {"k": "long enough"}, None)
@example("default($a.k, $b)", {}, "long enough")
@example("max($a, $b)", "a", "b" * 9)
@example("min($a)", ["x" * 30, "y"], None)
@example("keys($a)", {"a long key": 1}, None)
@example("sorted($a)", [3, 2, 1], None)
def test_no_expression_gives_more_than_is_said(text: str, a: Any, b: Any) -> None:
    try:
        parse_expr(text)
    except ExprError:
        return
    holds({"expr": text}, a, b)
    holds([{"expr": text}, "<$a>", {"$$expr": "$b"}], a, b)


@pytest.mark.parametrize(
    ("start", "grows"),
    [
        ("\0", "$k\0"),
        ([], "$k\0☃"),
        (['"' * 50], "$k!"),
        ([], {"expr": "append($k, '\0')"}),
        ([["\0"]], {"expr": "concat(append($k, $l), [1])"}),
        ("x", {"expr": "concat('\0', $k)"}),
        ({"k": "\0"}, "<$k $l>"),
        (None, {"expr": "append(default($k, ['long enough']), 1)"}),
    ],
)
def test_what_is_added_in_a_loop(start: Any, grows: Any) -> None:
    """After as many iterations as there are, the name itself and a list with it are within their
    bounds."""
    body = [{"id": "g", "type": "set", "values": {"k": grows}}]
    steps = [
        {"id": "s", "type": "set", "values": {"k": escaped(start), "l": "\0l"}},
        {"id": "l", "type": "loop", "max_iterations": 5, "on_exhausted": "continue", "steps": body},
        {"id": "t", "type": "set", "values": {"out": ["$k"]}},
    ]
    flow = Flow(Program.from_dict({"steps": steps}))
    names, sizes = flow.frames[0].names, Sizes(flow, 0, lambda step, _: None)
    frame = [UNSET] * names.size
    frame[names.keys["k"]], frame[names.keys["l"]] = start, "\0l"
    more = compile_value(grows, names)
    for _ in range(5):
        frame[names.keys["k"]] = more(frame)
        for name, value in (("k", frame[names.keys["k"]]), ("out", [frame[names.keys["k"]]])):
            bound = sizes.of(("name", id(names), name))
            assert bound is not None
            assert len(as_text(value).encode()) <= bound[0]
            assert len(canonical(value)) <= bound[1]


@pytest.mark.parametrize(
    "text", ["len($q)", "sum($q)", "round($q) + $q", "$q == $q and $q < 1", "$q.startswith('a')"]
)
def test_numbers_and_booleans_have_a_bound_of_their_own(text: str) -> None:
    program = {"steps": [{"id": "f", "type": "tool", "tool": "f", "output_key": "q"}]}
    program["steps"].append(
        {
            "id": "t",
            "type": "set",
            "values": {"out": {"expr": text}, "no": {"expr": "append($q, 1)"}},
        }
    )
    flow = Flow(Program.from_dict(program))
    sizes = Sizes(flow, 0, lambda step, _: None)
    names = id(flow.frames[0].names)
    found = sizes.of(("name", names, "out"))
    assert found is not None
    assert max(found) <= NUMBER_BYTES
    assert sizes.of(("name", names, "no")) is None, "a tool's result has no bound"


def test_the_literals_of_the_texts_are_what_they_say() -> None:
    assert literal("$a") == '"$$a"'
    assert escaped(["$a", {"k": "$"}]) == ["$$a", {"k": "$$"}]
