"""What an enum allows is stored as the enum spells it."""

from __future__ import annotations

from typing import Any

import pytest
from build import llm, program
from campaigns import cases
from hypothesis import given, settings
from hypothesis import strategies as st

from nano_vm import ExecutionVM
from nano_vm.errors import LimitExceeded
from nano_vm.language.literals import literals_of
from nano_vm.language.schemas import schema_check
from nano_vm.machine.outcome import Arrived
from nano_vm.testing import ScriptedLLM
from nano_vm.values import canonical
from nano_vm.verify.trust.labels import restricted

REFERENCE = {"$defs": {"n": {"enum": [1, 2.0]}}, "properties": {"a": {"$ref": "#/$defs/n"}}}
KEYS = {"enum": [{"a": 1, "b": [2]}]}
SPELLED: list[tuple[dict[str, Any], str, str]] = [
    ({"enum": [1]}, "1.0", "1"),
    ({"enum": [1.0]}, "1", "1.0"),
    ({"const": 100}, "1e2", "100"),
    ({"enum": [0]}, "-0.0", "0"),
    (KEYS, '{"b":[2.0],"a":1.0}', '{"a":1,"b":[2]}'),
    ({"const": [1, 2]}, "[1.0, 2.0]", "[1,2]"),
    ({"properties": {"a": {"enum": [1]}}}, '{"b":1.0,"a":1.0}', '{"b":1.0,"a":1}'),
    (
        {"additionalProperties": {"enum": [1]}, "properties": {"b": {}}},
        '{"b":1.0,"a":1.0}',
        '{"b":1.0,"a":1}',
    ),
    ({"type": "array", "items": {"enum": [1]}}, "[1.0,1]", "[1,1]"),
    ({"type": "array", "prefixItems": [{}], "items": {"enum": [1]}}, "[1.0,1.0]", "[1.0,1]"),
    ({"prefixItems": [{"enum": [1]}]}, "[1.0,1.0]", "[1,1.0]"),
    ({"anyOf": [{"type": "string"}, {"enum": [1]}]}, "1.0", "1"),
    ({"oneOf": [{"enum": [1]}, {"enum": [2]}]}, "2.0", "2"),
    ({"allOf": [{"type": "number"}, {"enum": [1]}]}, "1.0", "1"),
    (REFERENCE, '{"a":1.0}', '{"a":1}'),
    (REFERENCE, '{"a":2}', '{"a":2.0}'),
    ({"enum": ["1", 1]}, '"1"', '"1"'),
    ({"enum": [True, 1]}, "true", "true"),
    ({"enum": [True, 1]}, "1.0", "1"),
    ({"type": "number"}, "1.0", "1.0"),
    ({"const": 1, "$id": "urn:x"}, "1.0", "1"),
    ({"$ref": "#a", "$defs": {"x": {"$anchor": "a", "const": 1}}}, "1.0", "1"),
    ({"enum": [2**53, 2**53 + 1]}, "9007199254740993", "9007199254740993"),
    ({"enum": [0.0, 2.5]}, "-0", "0.0"),
]


@pytest.mark.parametrize(
    ("schema", "answer", "stored"), SPELLED, ids=[f"{a} {s}" for s, a, _ in SPELLED]
)
def test_an_answer_is_stored_as_the_schema_spells_it(
    schema: dict[str, Any], answer: str, stored: str
) -> None:
    trace = ExecutionVM(ScriptedLLM([answer])).run_sync(program(llm("m", output_schema=schema)))
    assert trace.ok, trace.error
    assert canonical(trace.final_output).decode() == stored


def test_where_every_value_has_one_spelling_there_is_nothing_to_do() -> None:
    for schema in (
        {"enum": ["a", None, True]},
        {"type": "object"},
        {"properties": {"enum": {"type": "number"}}},
        {},
    ):
        assert literals_of(schema) is None


def test_a_cyclic_schema_ends() -> None:
    part = {"anyOf": [{"type": "array", "items": {"$ref": "#/$defs/x"}}, {"enum": [1]}]}
    settle = literals_of({"$defs": {"x": part}, "$ref": "#/$defs/x"})
    assert settle is not None
    assert canonical(settle([1.0, [1.0]])) == b"[1,[1]]"


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"items": {"enum": list(range(1_000))}}, [999.0] * 20_000),
        ({"items": {"enum": [[i] for i in range(1_000)]}}, [[999.0]] * 10_000),
    ],
)
def test_many_members_take_no_longer_than_few(schema: dict[str, Any], value: Any) -> None:
    settle = literals_of(schema)
    assert settle is not None
    assert settle(value)[0] in ([999], 999)


@pytest.mark.slow
def test_what_would_take_too_long_to_spell_is_refused() -> None:
    doubled: dict[str, Any] = {"d0": {"enum": [1]}}
    doubled |= {f"d{i}": {"anyOf": [{"$ref": f"#/$defs/d{i - 1}"}] * 2} for i in range(1, 10)}
    settle = literals_of({"items": {"$ref": "#/$defs/d9"}, "$defs": doubled})
    assert settle is not None
    assert settle([1.0] * 100) == [1] * 100
    with pytest.raises(LimitExceeded, match="too large"):
        settle([1.0] * 10_000)


def test_a_payload_of_an_event_is_stored_so_too() -> None:
    from nano_vm.language.flow import Flow
    from nano_vm.machine.compile import compile_flow
    from nano_vm.machine.machine import machine_of

    plan = compile_flow(
        Flow(program({"id": "w", "type": "wait", "event": "e", "output_schema": {"enum": [1]}})), {}
    )
    machine = machine_of(plan, {}, run_id="r")
    machine.start(0)
    machine.resume(Arrived(1.0), 1)
    assert canonical(machine.output) == b"1"


scalars = st.sampled_from([0, 1, 1.0, 2, 2.0, -0.0, "a", "1", True, None])
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner),
)
enums = st.lists(values, min_size=1, max_size=4).map(
    lambda members: {"enum": members}
) | values.map(lambda member: {"const": member})
schemas = st.recursive(
    enums | st.sampled_from([{}, {"type": "number"}, {"type": "boolean"}]),
    lambda inner: (
        st.dictionaries(st.sampled_from("ab"), inner, min_size=1).map(
            lambda fields: {"properties": fields}
        )
        | inner.map(lambda item: {"type": "array", "items": item})
        | st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"anyOf": parts})
        | st.lists(inner, min_size=1, max_size=2).map(lambda parts: {"allOf": parts})
    ),
    max_leaves=6,
)
PATHS: tuple[tuple[str | int, ...], ...] = (
    (),
    ("a",),
    ("b",),
    (0,),
    ("a", "b"),
    ("a", 0),
    (0, "a"),
)


def taken(value: Any, path: tuple[str | int, ...]) -> Any:
    for part in path:
        value = value[part]
    return value


def members(schema: Any) -> set[bytes]:
    """Every value that stands in *schema*, whole and in parts, in its own bytes."""
    found = {canonical(value) for value in (True, False, None, schema)}
    for inner in (
        schema.values() if type(schema) is dict else schema if type(schema) is list else ()
    ):
        found |= members(inner)
    return found


@pytest.mark.campaign
@given(schemas, values)
@settings(max_examples=cases(5_000))
def test_what_trust_takes_for_a_literal_is_one(schema: dict[str, Any], value: Any) -> None:
    check = schema_check(schema)
    if check(value) is not None:
        return
    settle = literals_of(schema)
    stored = settle(value) if settle is not None else value
    assert check(stored) is None
    assert stored == value  # as Python compares numbers: nothing but the spelling is another
    for path in PATHS:
        try:
            part = taken(stored, path)
        except (KeyError, IndexError, TypeError):
            continue
        if restricted(schema, path) is not None:
            assert canonical(part) in members(schema), (path, part)
