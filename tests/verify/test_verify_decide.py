"""What an expression can give, by what is known of the names in it: no evaluation gives anything
else."""

from __future__ import annotations

import json
from typing import Any

import campaigns
import pytest
from expression_texts import expressions, numbers, plain_values, texts
from hypothesis import given, settings
from hypothesis import strategies as st

from nano_vm.errors import ExprError, StepFault
from nano_vm.language.closures import compile_condition, compile_expr
from nano_vm.language.expr import Ref, parse_expr
from nano_vm.language.flow import Flow, Names
from nano_vm.language.functions import FUNCTIONS
from nano_vm.language.operators import present
from nano_vm.language.program import Program
from nano_vm.values import UNSET, canonical
from nano_vm.verify.data.decide import Effort, Reads, decide, result_of
from nano_vm.verify.data.domains import (
    ANYTHING,
    FAILS,
    LIST,
    NO,
    OBJECT,
    YES,
    Domain,
    descend,
    join,
    joined,
    lacking,
    of_values,
    spread,
)

from test_verify_branches import holds  # isort: skip - likewise

NAMES = Names.of(
    Program.from_dict({"steps": [{"id": "s", "type": "set", "values": {"z": ["$a", "$b"]}}]}), ()
)
A, B = NAMES.keys["a"], NAMES.keys["b"]


@st.composite
def known(draw: Any, value: Any, depth: int = 0) -> Domain:
    """Something true of *value*, more or less close."""
    absent = value is UNSET or draw(st.integers(0, 5)) == 0
    if value is UNSET:
        return lacking(draw(st.sampled_from([of_values(["x", None]), ANYTHING, of_values([])])))
    kind = draw(st.integers(0, 4 if depth < 3 else 2))
    found = of_values([value])
    if kind == 1:
        found = join(found, of_values(draw(st.lists(plain_values, max_size=2))))
    elif kind == 2:
        found = ANYTHING if draw(st.booleans()) else Domain(found.kinds)
    elif kind == 3 and type(value) is list:
        found = Domain(LIST, items=joined([draw(known(item, depth + 1)) for item in value]))
    elif kind == 3 and type(value) is dict:
        fields = {name: draw(known(part, depth + 1)) for name, part in value.items()}
        found = Domain(OBJECT, None, fields, draw(st.booleans()))
    elif kind == 4:
        found = spread(found)
    return lacking(found, absent)


@st.composite
def cases(draw: Any) -> tuple[str, dict[int, Any], dict[int, Domain]]:
    values = {A: draw(plain_values), B: draw(plain_values | st.just(UNSET))}
    return draw(expressions), values, {slot: draw(known(value)) for slot, value in values.items()}


def frame_of(reads: Reads, values: dict[int, Any]) -> list[Any] | None:
    """The places of *reads* filled from *values*; None where a path goes through a value that has
    no fields at all."""
    frame = []
    for slot, path in reads.places:
        value = values[slot]
        for part in path:
            try:
                value = present(value, part) if value is not UNSET else UNSET
            except ExprError:
                return None
        frame.append(value)
    return frame


LISTS = st.lists(plain_values, max_size=3)
ORDERED = st.lists(numbers, max_size=3) | st.lists(texts, max_size=3)
OBJECTS = st.dictionaries(st.sampled_from(["k", "l"]), plain_values, max_size=2)
JSON = plain_values.map(lambda value: canonical(value).decode())
ARGUMENTS: dict[str, list[tuple[st.SearchStrategy[Any], ...]]] = {
    "len": [(LISTS | OBJECTS | texts,)],
    "int": [(numbers,)],
    "float": [(numbers,)],
    "str": [(plain_values,)],
    "append": [(LISTS, plain_values)],
    "concat": [(LISTS, LISTS), (texts, texts)],
    "join": [(LISTS, texts)],
    "split": [(texts, texts.filter(bool))],
    "get": [(OBJECTS, st.just("k"), plain_values), (LISTS, st.integers(-2, 2), plain_values)],
    "json": [(JSON,)],
    "round": [(numbers,), (numbers, st.integers(0, 2))],
    "min": [(ORDERED,), (numbers, numbers), (texts, texts)],
    "max": [(ORDERED,), (numbers, numbers), (texts, texts)],
    "sum": [(st.lists(numbers, max_size=3),)],
    "abs": [(numbers,)],
    "sorted": [(ORDERED,)],
    "keys": [(OBJECTS,)],
    "default": [(plain_values | st.just(UNSET), plain_values)],
}
"""Arguments that are mostly no error."""


@pytest.mark.campaign
@pytest.mark.parametrize("name", FUNCTIONS)
def test_of_every_function(name: str) -> None:
    @settings(max_examples=campaigns.cases(1_000))
    @given(st.data())
    def no_value_is_outside(data: st.DataObject) -> None:
        given = [data.draw(kind) for kind in data.draw(st.sampled_from(ARGUMENTS[name]))]
        shown = [
            "$a",
            "$b",
            json.dumps(given[2]) if len(given) > 2 and type(given[2]) is not dict else "null",
        ]
        text = f"{name}({', '.join(shown[: len(given)])})".replace("\\u0000", "")
        values = {A: given[0], B: given[1] if len(given) > 1 else None}
        assert_holds(
            text, values, {slot: data.draw(known(value)) for slot, value in values.items()}
        )

    no_value_is_outside()


@pytest.mark.slow
@settings(max_examples=300)
@given(cases())
def test_of_any_expression(case: tuple[str, dict[int, Any], dict[int, Domain]]) -> None:
    assert_holds(*case)


def assert_holds(text: str, values: dict[int, Any], domains: dict[int, Domain]) -> None:
    """No value is outside of what is said."""
    try:
        node = parse_expr(text)
    except ExprError:
        return
    reads, test = Reads.of_expr(node, NAMES), Reads.of_test(node, NAMES)
    assert reads is not None
    assert test is not None
    here = [descend(domains[slot], path) for slot, path in reads.places]
    whole = [UNSET] * NAMES.size
    for slot, value in values.items():
        whole[slot] = value
    try:
        result = compile_expr(node, NAMES)(whole)
    except StepFault:
        result = UNSET  # an error: nothing is given
    if result is not UNSET:
        assert holds(result_of(reads, here, Effort()), result), (
            result,
            str(result_of(reads, here, Effort())),
        )
    if frame_of(reads, values) is None:
        return  # an error in the run may be an absence here, and that is the way that goes on
    try:
        came = YES if compile_condition(node, NAMES)(whole) else NO
    except StepFault:
        came = FAILS
    assert decide(test, here, Effort()).mask & came, (came, decide(test, here, Effort()).mask)


def test_the_names_are_those_of_the_texts() -> None:
    assert NAMES.load(Ref("a")) == (A, ())
    assert not Flow(NAMES.program).diagnostics
