"""The table of what steps mean: it knows every type, and says of each what the language says."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

from nano_vm import Program, Step, StepType
from nano_vm.language import semantics
from nano_vm.language.program import Holds, blocks, walk
from nano_vm.language.semantics import (
    Called,
    Chooses,
    External,
    Forks,
    Item,
    Last,
    ListOf,
    Literals,
    ObjectOf,
    Output,
    Repeats,
    ToolCall,
    Value,
    Values,
)


def step(**fields: Any) -> Step:
    return Program.from_dict({"steps": [{"id": "s", **fields}]}).steps[0]


INNER = [{"id": "a", "type": "set", "values": {"x": "$y"}}]
SET = {"type": "set", "values": {"x": "$y"}}


def test_every_type_has_its_row() -> None:
    rows = {model.model_fields["type"].default for model in semantics.TABLE}
    assert rows == set(StepType)


@pytest.mark.slow
def test_only_the_table_and_the_compiler_name_types_of_steps() -> None:
    """What proves, tries, runs, stores and replays programs interprets terms. What is sent to a
    model is a matter of its own fields, so some modules know that type.
    """
    classes = {model.__name__ for model in semantics.TABLE}
    root = Path(semantics.__file__).parents[1]
    found = {}
    for package in ("explore", "verify", "records", "store", "run", "replay"):
        for path in sorted((root / package).rglob("*.py")):
            tree = ast.parse(path.read_text())
            names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
            if named := classes & names:
                found[path.relative_to(root).with_suffix("").as_posix()] = named
    model_calls = (
        "verify/advice verify/cost/ceiling verify/cost/sizes verify/examine "
        "verify/secrecy/receivers run/models"
    )
    assert found == {place: {"LLMStep"} for place in model_calls.split()}


def test_what_a_model_holds_is_a_field_of_it() -> None:
    for model in semantics.TABLE:
        fields = {field.alias or name for name, field in model.model_fields.items()}
        assert set(model.HOLDS) <= fields, model


@pytest.mark.parametrize(
    ("fields", "terms"),
    [
        ({"type": "tool", "tool": "t"}, (External("tool"),)),
        ({"type": "llm", "prompt": "p"}, (External("model"),)),
        (
            {"type": "llm", "prompt": "p", "allowed_outputs": ["yes", "no"], "on_invalid": "no"},
            (External("model", None, ("yes", "no")), Literals(("no",))),
        ),
        (
            {"type": "condition", "condition": "$a", "then": "$end", "otherwise": "$fail"},
            (Literals(("$end", "$fail")),),
        ),
        (
            {"type": "switch", "on": "$a", "cases": {"x": "$end"}, "default": "$fail"},
            (Literals(("$end", "$fail")),),
        ),
        ({"type": "call", "program": "p", "with": {"a": "$b"}}, (Called({"a": "$b"}),)),
        (SET, (Values({"x": "$y"}),)),
        ({"type": "approval", "role": "boss"}, (External("person", semantics.DECISION),)),
        (
            {"type": "wait", "event": "paid", "output_schema": {"type": "string"}},
            (External("event", {"type": "string"}),),
        ),
    ],
)
def test_output(fields: dict[str, Any], terms: tuple[Any, ...]) -> None:
    program = {"steps": [{"id": "s", **fields}, {"id": "end", **SET}]}
    assert semantics.output(Program.from_dict(program).steps[0]) == terms


def test_output_of_blocks() -> None:
    body = step(type="condition", condition="$a", then=INNER)
    (inner,) = next(blocks(body))
    last = Last(((inner[0],), ()))
    assert semantics.output(body) == (Literals(("then", "otherwise")), last)
    loop = step(type="loop", steps=INNER, until="$a", max_iterations=2)
    assert semantics.output(loop) == (Last((tuple(loop.steps),)),)  # type: ignore[attr-defined]
    for continues in (False, True):
        more = {"on_item_error": "continue"} if continues else {}
        each = step(type="map", over="$rows", steps=INNER, **more)
        inside = Last((tuple(each.steps),))  # type: ignore[attr-defined]
        assert semantics.output(each) == (ListOf(inside, continues),)
        fork = step(type="parallel", parallel_steps=INNER, **more)
        (branch,) = blocks(fork)
        assert semantics.output(fork) == (ObjectOf({"a": Last(((branch[0][0],),))}, continues),)


def test_writes_in_the_order_of_the_fields() -> None:
    assert list(semantics.writes(step(**SET, output_key="k"))) == [
        ("k", Output()),
        ("x", Value("$y", "x")),
    ]
    each = step(type="map", over="$rows", **{"as": "row"}, steps=INNER)
    assert list(semantics.writes(each)) == [("row", Item("$rows"))]


def test_reads_with_their_places() -> None:
    call = step(type="tool", tool="t", args={"a": "$x"}, undo={"tool": "u", "args": {"b": "$y"}})
    found = [(str(ref), where) for ref, where in semantics.reads(call)]
    assert found == [("$x", ("args",)), ("$y", ("undo", "args"))]
    assert semantics.written_at(call, ("undo", "args")) == {"b": "$y"}
    assert semantics.holds_at(call, ("undo", "args")) is Holds.TEMPLATES
    wait = step(type="wait", until="$time")
    assert semantics.holds_at(wait, ("until",)) is Holds.TEMPLATE  # that of a loop is a condition


def test_calls_of_a_tool_step() -> None:
    call = step(type="tool", tool="t", args={"a": 1}, undo={"tool": "u"}, reconcile={"tool": "r"})
    assert semantics.tool_calls(call) == (
        ToolCall("step", "t", {"a": 1}),
        ToolCall("undo", "u", {}),
        ToolCall("reconcile", "r", {"a": 1}),  # asked with the arguments of the call
    )
    assert semantics.tool_calls(step(**SET)) == ()


@pytest.mark.parametrize(
    ("fields", "edges"),
    [
        (SET, {}),
        ({**SET, "when": "$a"}, {"when": "when", "unless": "unless"}),
        (
            {"type": "condition", "condition": "$a", "then": "$end"},
            {"then": "then", "otherwise": "otherwise"},
        ),
        (
            {"type": "switch", "on": "$a", "cases": {"x": "$end", "when": "$end"}, "when": "$b"},
            {"unless": "unless", "x": "case:x"},  # `when` would name two
        ),
        (
            {"type": "switch", "on": "$a", "cases": {"default": "$end"}, "default": "$fail"},
            {},
        ),
        (
            {"type": "loop", "steps": INNER, "until": "$a", "max_iterations": 2},
            {"until": "until"},
        ),
        ({"type": "approval", "role": "r"}, {"then": "then", "otherwise": "otherwise"}),
        # taken also where nobody decides in time
        ({"type": "approval", "role": "r", "timeout_seconds": 9}, {"then": "then"}),
    ],
)
def test_edges_that_a_policy_may_name(fields: dict[str, Any], edges: dict[str, str]) -> None:
    assert semantics.edge_words(step(**fields)) == edges


def test_where_steps_go() -> None:
    loop = semantics.control(step(type="loop", steps=INNER, until="$a", max_iterations=2))
    assert isinstance(loop, Repeats)
    assert [at for _, at in loop.body] == [("steps", 0)]
    fork = semantics.control(step(type="parallel", parallel_steps=[*INNER, [{"id": "b", **SET}]]))
    assert isinstance(fork, Forks)
    places = [(name, [at for _, at in block]) for name, block in fork.frames]
    # a branch that is one step has no list of its own
    assert places == [("a", [("parallel_steps", 0)]), ("b", [("parallel_steps", 1, 0)])]
    either = semantics.control(step(type="condition", condition="$a", then="$end"))
    assert isinstance(either, Chooses)
    assert [(way.label, way.absent) for way in either.ways] == [
        ("then", "fail"),
        ("otherwise", "fail"),
    ]


def test_places_lead_to_their_steps() -> None:
    document = {
        "steps": [
            {"id": "s", "type": "switch", "on": "$a", "cases": {"x": INNER}, "default": []},
            {"id": "p", "type": "parallel", "parallel_steps": [{"id": "b", **SET}]},
        ]
    }
    for found, loc in Program.from_dict(document).walk():
        part: Any = document
        for name in loc:
            part = part[name]
        assert part["id"] == found.id
    assert [inner.id for inner, _ in walk(step(type="map", over="$r", steps=INNER), ())] == [
        "s",
        "a",
    ]
