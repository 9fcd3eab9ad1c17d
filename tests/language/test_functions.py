"""Functions: what each gives by tables, and of any arguments: only errors of ours, plain and
bounded results, no surprise."""

from __future__ import annotations

import copy
import functools
import itertools
import json
import time
import tracemalloc
from typing import Any

import pytest
from expression_texts import expressions, numbers, plain_values, texts
from hypothesis import assume, given
from hypothesis import strategies as st

from nano_vm.errors import ExprError, LimitExceeded, StepFault
from nano_vm.language.closures import compile_condition, compile_expr
from nano_vm.language.expr import parse_expr
from nano_vm.language.functions import FUNCTIONS, MAX_ROUND_DIGITS
from nano_vm.language.operators import COMPARISONS, exactly
from nano_vm.values import MAX_VALUE_BYTES, UNSET, admit, canonical

from test_expr import Names, truth_of, value_of  # isort: skip - likewise

ONE_OF_EACH: dict[str, Any] = {
    "null": None,
    "true": True,
    "int": 3,
    "float": 2.5,
    "text": "b,a",
    "number_text": " 7 ",
    "list": [2, 1.5],
    "texts": ["b", "a"],
    "mixed": [1, "a"],
    "empty": [],
    "dict": {"b": 1, "a": None},
}

# What is no error, by the kinds of the arguments; everything else is one.
TAKES: dict[str, list[tuple[str, ...]]] = {
    "len": [("text",), ("number_text",), ("list",), ("texts",), ("mixed",), ("empty",), ("dict",)],
    "int": [("int",), ("float",), ("number_text",)],
    "float": [("int",), ("float",), ("number_text",)],
    "str": [(kind,) for kind in ONE_OF_EACH],
    "append": list(itertools.product(["list", "texts", "mixed", "empty"], ONE_OF_EACH)),
    "concat": [
        *itertools.product(["list", "texts", "mixed", "empty"], repeat=2),
        *itertools.product(["text", "number_text"], repeat=2),
    ],
    "join": list(itertools.product(["list", "texts", "mixed", "empty"], ["text", "number_text"])),
    "split": list(itertools.product(["text", "number_text"], repeat=2)),
    "get": [
        *itertools.product(["dict"], ["text", "number_text"], ONE_OF_EACH),
        *itertools.product(["list", "texts", "mixed", "empty"], ["int"], ONE_OF_EACH),
    ],
    "json": [("number_text",)],
    "round": [("int",), ("float",), ("int", "int"), ("float", "int")],
    "min": [("list",), ("texts",), *itertools.product(["int", "float", "number_text"], repeat=2)],
    "sum": [("list",), ("empty",)],
    "abs": [("int",), ("float",)],
    "sorted": [("list",), ("texts",), ("empty",)],
    "keys": [("dict",)],
    "default": list(itertools.product(ONE_OF_EACH, repeat=2)),
}
TAKES["min"] += [("text", "text"), ("text", "number_text"), ("number_text", "text")]
TAKES["max"] = TAKES["min"]


def call(name: str, *values: Any) -> Any:
    given = {f"x{i}": value for i, value in enumerate(values)}
    return value_of(f"{name}({', '.join(f'${key}' for key in given)})", **given)


def test_the_table_has_every_function() -> None:
    assert TAKES.keys() == FUNCTIONS.keys()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_on_every_kind(name: str) -> None:
    function = FUNCTIONS[name]
    counts = range(function.least, (function.most if function.most is not None else 2) + 1)
    for kinds in itertools.chain.from_iterable(
        itertools.product(ONE_OF_EACH, repeat=count) for count in counts
    ):
        values = [ONE_OF_EACH[kind] for kind in kinds]
        if kinds in TAKES[name]:
            call(name, *values)
        else:
            with pytest.raises(ExprError, match=rf"{name}\(\) "):
                call(name, *values)


@pytest.mark.slow
@given(st.sampled_from(sorted(FUNCTIONS)), st.lists(plain_values, min_size=1, max_size=3))
def test_any_arguments(name: str, values: list[Any]) -> None:
    """Our errors alone; a result is plain, the same again, and no argument has changed."""
    assume(FUNCTIONS[name].arity_fault(len(values)) is None)
    before = copy.deepcopy(values)
    try:
        result = call(name, *values)
    except (ExprError, LimitExceeded):
        return
    plain, size = admit(result)
    assert canonical(plain) == canonical(result)
    assert size <= MAX_VALUE_BYTES
    assert canonical(call(name, *values)) == canonical(result)
    assert canonical(values) == canonical(before)


@pytest.mark.slow
@given(expressions, plain_values, plain_values | st.just(UNSET))
def test_any_expression(text: str, a: Any, b: Any) -> None:
    """An expression gives a plain value or an error of ours; as a condition true, false or an
    error, whatever it gives."""
    try:
        node = parse_expr(text)
    except ExprError:
        return
    scope = Names(a=a, b=b)
    try:
        result = compile_expr(node, scope)(scope.frame)
    except StepFault:
        with pytest.raises(StepFault):
            compile_condition(node, scope)(scope.frame)
        return
    admit(result)
    if type(result) is bool:
        assert compile_condition(node, scope)(scope.frame) is result
    else:
        with pytest.raises(ExprError, match="is not true or false"):
            compile_condition(node, scope)(scope.frame)


# --- laws -----------------------------------------------------------------------------------------

lists = st.lists(plain_values, max_size=4)


@pytest.mark.slow
@given(lists, plain_values, lists)
def test_lists_grow(box: list[Any], item: Any, more: list[Any]) -> None:
    assert call("append", box, item) == [*box, item]
    assert call("concat", box, more) == functools.reduce(
        lambda found, one: call("append", found, one), more, box
    )


@pytest.mark.slow
@given(texts, texts.filter(bool))
def test_what_is_split_is_joined_again(text: str, separator: str) -> None:
    parts = call("split", text, separator)
    assert call("join", parts, separator) == text
    assert all(separator not in part for part in parts)
    assert call("concat", text, separator) == text + separator


@pytest.mark.slow
@given(lists, texts)
def test_items_are_joined_as_a_template_shows_them(items: list[Any], separator: str) -> None:
    assert call("join", items, separator) == separator.join(
        str(value_of("'$a'", a=item)) for item in items
    )


@pytest.mark.slow
@given(plain_values)
def test_the_json_text_of_a_value_is_that_value(value: Any) -> None:
    assert canonical(value_of("json(str([$a]))[0]", a=value)) == canonical(value)


NUMBER_TEXTS = ["10", " 9", "1e1", "9.50"]
rows = (
    st.lists(numbers, max_size=6)
    | st.lists(texts, max_size=6)
    | st.lists(numbers | st.sampled_from(NUMBER_TEXTS))
)


@pytest.mark.slow
@given(rows)
def test_order(items: list[Any]) -> None:
    """A permutation, the same for every order of equal items, in which each stands as ``<`` says
    where numbers are meant."""
    found = call("sorted", items)
    assert sorted(map(repr, found)) == sorted(map(repr, items))
    if all(exactly(item) is not None for item in items):
        assert all(COMPARISONS["<="](a, b) for a, b in itertools.pairwise(found))
    else:
        assert found == sorted(items)
    assert call("sorted", found) == found
    if items:
        assert repr(call("min", items)) == repr(found[0])
        most = call("max", items)
        assert most == found[-1] or exactly(most) == exactly(found[-1]) is not None
        equals = [
            item for item in items if item == most or exactly(item) == exactly(most) is not None
        ]
        assert repr(most) == repr(equals[0]), "the first of equals"
        assert repr(call("min", items)) == repr(call("min", *items) if len(items) > 1 else items[0])


@pytest.mark.slow
@given(texts | numbers, texts | numbers)
def test_the_least_of_two_is_what_less_than_says(a: Any, b: Any) -> None:
    try:
        less = truth_of("$a < $b", a=a, b=b)
    except ExprError:
        with pytest.raises(ExprError):
            call("min", a, b)
        return
    assert repr(call("max", a, b)) == repr(b if less else a)


@pytest.mark.slow
@given(st.lists(st.integers(-9, 9) | st.floats(-1e6, 1e6), max_size=8))
def test_a_sum_is_what_plus_gives_from_left_to_right(items: list[Any]) -> None:
    total: Any = 0
    for item in items:
        total = value_of("$a + $b", a=total, b=item)
    assert repr(call("sum", items)) == repr(total)


@pytest.mark.slow
@given(
    st.integers() | st.floats(allow_nan=False, allow_infinity=False), st.integers(-8, 8) | st.none()
)
def test_numbers_are_rounded_to_the_nearest_and_ties_to_even(
    number: Any, digits: int | None
) -> None:
    args = (number,) if digits is None else (number, digits)
    assert repr(call("round", *args)) == repr(round(*args))
    assert repr(call("abs", number)) == repr(abs(number))


@pytest.mark.parametrize(
    "digits", [MAX_ROUND_DIGITS + 1, -MAX_ROUND_DIGITS - 1, 10**18, True, 1.0, "1"]
)
def test_rounding_to_a_number_of_digits_that_no_number_has(digits: Any) -> None:
    with pytest.raises(ExprError, match="digits"):
        call("round", 5, digits)


paths = st.lists(st.sampled_from(["k", "l", "a b"]) | st.integers(-2, 2), min_size=1, max_size=3)


@pytest.mark.slow
@given(plain_values | st.just(UNSET), paths)
def test_default_stands_in_for_what_is_null_or_not_there(value: Any, path: list[Any]) -> None:
    ref = "$a" + "".join(f"[{part!r}]" for part in path)
    at, there = value, value is not UNSET
    for part in path:
        if not there or at is None:
            there = False
        elif isinstance(part, str) and type(at) is dict:
            there, at = part in at, at.get(part)
        elif isinstance(part, int) and type(at) in (list, str):
            there = -len(at) <= part < len(at)
            at = at[part] if there else None
        else:
            with pytest.raises(ExprError, match="cannot take"):
                value_of(f"default({ref}, 'other')", a=value)
            return
    expected = "other" if not there or at is None else at
    assert canonical(value_of(f"default({ref}, 'other')", a=value)) == canonical(expected)
    assert canonical(
        value_of(f"default(default({ref}, $gone), 'other')", a=value, gone=UNSET)
    ) == canonical(expected)


# --- bounds ---------------------------------------------------------------------------------------

HALF = MAX_VALUE_BYTES // 2 + 1
TOO_LARGE: dict[str, tuple[str, dict[str, Any]]] = {
    "two texts": ("concat($a, $a)", {"a": "x" * HALF}),
    "two lists": ("concat($a, $a)", {"a": [0] * (HALF // 8 + 1)}),
    "one item more": ("append($a, 0)", {"a": [0] * (MAX_VALUE_BYTES // 8)}),
    "texts joined": ("join([$a, $a], '')", {"a": "x" * HALF}),
    "separators": ("join($a, $b)", {"a": [0] * 4098, "b": "x" * 4096}),
    "one-letter parts": ("split($a, ',')", {"a": "," * (HALF // 4)}),
    "numbers of a JSON text": ("json($a)", {"a": f"[{'1,' * (HALF // 4 + 1)}1]"}),
    "empty objects of a JSON text": ("json($a)", {"a": f"[{'{},' * (HALF // 4 + 1)}1]"}),
    "a long JSON text": ("json($a)", {"a": '"' + "x" * MAX_VALUE_BYTES + '"'}),
    "a name in a list, printed": (f"str([{', '.join(['$a'] * 400)}])", {"a": "x" * HALF}),
    "a name in a list, compared": (f"[{', '.join(['$a'] * 400)}] == [$a]", {"a": ["x" * HALF]}),
    "a name in a list, looked for": (
        f"1 in append([{', '.join(['$a'] * 400)}], 1)",
        {"a": [0] * (HALF // 8)},
    ),
    "lists of lists": (
        "len(" + "append(concat($a, $a), [" * 8 + "$a" + "])" * 8 + ")",
        {"a": [[0] * 999] * 999},
    ),
    "keys in a list": (f"str([{', '.join(['$a'] * 400)}])", {"a": {"x" * HALF: 1}}),
    "as a condition": (f"default(null, [{', '.join(['$a'] * 400)}]) == 1", {"a": ["x" * HALF]}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TOO_LARGE)
def test_what_is_too_large_is_refused_before_it_is_made(name: str) -> None:
    text, names = TOO_LARGE[name]
    scope = Names(**names)
    evaluate = compile_expr(parse_expr(text), scope)
    tracemalloc.start()
    started = time.process_time()
    try:
        with pytest.raises(LimitExceeded, match="larger than"):
            evaluate(scope.frame)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 * MAX_VALUE_BYTES, f"{peak / 2**20:.0f} MB"
    assert time.process_time() - started < 3


@pytest.mark.slow
def test_what_is_as_large_as_it_may_be() -> None:
    assert len(call("concat", "x" * (HALF - 1), "x" * (HALF - 1))) == MAX_VALUE_BYTES
    assert len(call("append", [0] * (MAX_VALUE_BYTES // 8 - 1), 0)) == MAX_VALUE_BYTES // 8
    many = ["," * 1000] * 3000
    assert call("json", json.dumps(many)) == many, "commas in quotes make no entries"
    assert len(call("json", json.dumps("x" * (MAX_VALUE_BYTES - 2)))) == MAX_VALUE_BYTES - 2


def test_an_error_shows_a_glance_of_a_large_value() -> None:
    scope = Names(a=["x" * HALF])
    condition = compile_condition(parse_expr(f"[{', '.join(['$a'] * 400)}]"), scope)
    started = time.process_time()
    with pytest.raises(ExprError, match=r"the list \[\['x+\.\.\. is not true or false"):
        condition(scope.frame)
    assert time.process_time() - started < 1


def test_integers_are_bounded() -> None:
    assert call("sum", [(1 << 4095), (1 << 4095) - 1]) == (1 << 4096) - 1
    for items in ([1 << 4095, 1 << 4095], [1e308, 1e308], [1 << 4000, 0.5]):
        with pytest.raises(ExprError, match="too large"):
            call("sum", items)
    with pytest.raises(ExprError, match="4096 bits"):
        call("json", "9" * 1300)
    with pytest.raises(ExprError, match="too large"):
        call("round", 1.7e308, -308)
