"""Expressions: every operator on every pair of types, precedence as Python's, places in messages,
limits, injection.
"""

from __future__ import annotations

import ast
import itertools
import math
import re
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from nano_vm.errors import ExprError
from nano_vm.language.closures import (
    compile_condition,
    compile_expr,
    compile_template,
    compile_value,
)
from nano_vm.language.expr import (
    Arith,
    Bool,
    Compare,
    Const,
    Node,
    Not,
    Ref,
    parse_expr,
    parse_template,
)
from nano_vm.values import as_text


class Names:
    """A scope in which every name has a slot, in order of first use."""

    def __init__(self, **values: Any) -> None:
        self.slots = {name: i for i, name in enumerate(values)}
        self.frame = list(values.values())

    def load(self, ref: Ref) -> tuple[int, tuple[str | int, ...]]:
        return self.slots[ref.name], ref.path


def value_of(text: str, **names: Any) -> Any:
    scope = Names(**names)
    return compile_expr(parse_expr(text), scope)(scope.frame)


def truth_of(text: str, **names: Any) -> bool:
    scope = Names(**names)
    result = compile_condition(parse_expr(text), scope)(scope.frame)
    assert type(result) is bool
    return result


def filled(text: str, **names: Any) -> Any:
    scope = Names(**names)
    return compile_template(parse_template(text), scope)(scope.frame)


def error_of(text: str, **names: Any) -> str:
    with pytest.raises(ExprError) as caught:
        truth_of(text, **names)
    return str(caught.value)


# --- the table: one value of each type, every operator --------------------------------------------

VALUES: dict[str, Any] = {
    "null": None,
    "true": True,
    "int": 1,
    "float": 1.0,
    "text": "a",
    "number_text": " 1 ",
    "list": [1, "a"],
    "dict": {"a": 1},
}
PAIRS = list(itertools.product(VALUES, repeat=2))
NUMBERS = ("int", "float")
NUMERIC = ("int", "float", "number_text")
TEXTS = ("text", "number_text")


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_equality_is_by_type_and_value(a: str, b: str) -> None:
    expected = (
        a == b or {a, b} <= {"int", "float"} or ({a, b} <= {*NUMERIC} and "number_text" in (a, b))
    )
    assert truth_of("$a == $b", a=VALUES[a], b=VALUES[b]) is expected
    assert truth_of("$a != $b", a=VALUES[a], b=VALUES[b]) is not expected


@pytest.mark.parametrize("op", ["<", "<=", ">", ">="])
@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_order_of_numbers_and_of_texts_only(a: str, b: str, op: str) -> None:
    if a in NUMERIC and b in NUMERIC:
        assert truth_of(f"$a {op} $b", a=VALUES[a], b=VALUES[b]) is (op in ("<=", ">="))
    elif a in TEXTS and b in TEXTS:
        assert truth_of(f"$a {op} $b", a=VALUES[a], b=VALUES[b]) is eval(
            f"{VALUES[a]!r} {op} {VALUES[b]!r}"
        )
    else:
        assert "cannot compare" in error_of(f"$a {op} $b", a=VALUES[a], b=VALUES[b])


@pytest.mark.parametrize("op", ["+", "-", "*", "/", "%"])
@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_arithmetic_on_numbers_only(a: str, b: str, op: str) -> None:
    if a in NUMBERS and b in NUMBERS:
        expected = eval(f"{VALUES[a]!r} {op} {VALUES[b]!r}")
        result = value_of(f"$a {op} $b", a=VALUES[a], b=VALUES[b])
        assert (type(result), result) == (type(expected), expected)
    else:
        assert "both must be numbers" in error_of(f"($a {op} $b) == 1", a=VALUES[a], b=VALUES[b])


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_in(a: str, b: str) -> None:
    item, box = VALUES[a], VALUES[b]
    if b in TEXTS and a in TEXTS:
        expected = item in box
    elif b == "list":
        expected = a in ("int", "float", "text", "number_text")
    elif b == "dict" and a in TEXTS:
        expected = item in box
    else:
        assert "cannot look for" in error_of("$a in $b", a=item, b=box)
        assert "cannot look for" in error_of("$a not in $b", a=item, b=box)
        return
    assert truth_of("$a in $b", a=item, b=box) is expected
    assert truth_of("$a not in $b", a=item, b=box) is not expected


@pytest.mark.parametrize("a", VALUES)
def test_conditions_and_operands_are_booleans(a: str) -> None:
    value = VALUES[a]
    for text in (
        "$a",
        "not $a",
        "true and $a",
        "false or $a",
        "$a and true",
        "$a or false",
        "($a)",
    ):
        if value is True:
            assert truth_of(text, a=value) is (not text.startswith("not"))
        else:
            assert "is not true or false" in error_of(text, a=value)


@pytest.mark.parametrize(
    ("text", "names", "expected"),
    [
        ("false and $a", {"a": 5}, False),  # the second operand is not asked, as in Python
        ("true or $a", {"a": 5}, True),
        ("1 == 1.0", {}, True),
        ("true == 1", {}, False),
        ("false == 0", {}, False),
        ("'1' == '1.0'", {}, False),  # text against text by text
        ("'1' == 1", {}, True),
        ("1.0 == '1'", {}, True),
        ("' 1\n' == 1", {}, True),
        ("'01' == 1", {}, False),
        ("'+1' == 1", {}, False),
        ("'1e2' == 100", {}, True),
        ("'0x10' == 16", {}, False),
        ("'1e999' == 1", {}, False),
        ("'NaN' == 1", {}, False),
        ("'١' == 1", {}, False),  # a digit, but none of JSON's
        ("'1_0' == 10", {}, False),
        ("'' == 0", {}, False),
        ("'true' == true", {}, False),
        ("'null' == null", {}, False),
        ("null == null", {}, True),
        ("None == null", {}, True),
        ("True == true", {}, True),
        ("$a == $b", {"a": [1, {"x": 2}], "b": [1.0, {"x": 2.0}]}, True),
        ("$a == $b", {"a": ["1"], "b": [1]}, False),
        ("$a == $b", {"a": [True], "b": [1]}, False),
        ("$a == $b", {"a": {"x": 1, "y": 2}, "b": {"y": 2, "x": 1}}, True),
        ("$a == $b", {"a": {"x": None}, "b": {"y": None}}, False),
        ("[1, 2] == [1, 2]", {}, True),
        ("(1, 2) == [1, 2]", {}, True),
        ("[] == []", {}, True),
        ("$a in ['x', 'y']", {"a": "y"}, True),
        ("'1' in [1]", {}, True),
        ("true in [1]", {}, False),
        ("'100.00' <= '20.00'", {}, False),
        ("'b' > 'a'", {}, True),
        ("'10' < 'a'", {}, True),
        ("'10' < '9'", {}, False),
        ("'2' < 10", {}, True),
        ("1 < 2 < 3", {}, True),
        ("1 < 3 < 2", {}, False),
        ("3 > 2 == 2", {}, True),
        ("0.1 + 0.2 == 0.3", {}, False),
        ("9007199254740993 == 9007199254740992.0", {}, False),
        ("9007199254740993 > 9007199254740992.0", {}, True),
        ("'9007199254740993' > 9007199254740992.0", {}, True),
        ("-2 % 3 == 1", {}, True),
        ("7 / 2 == 3.5", {}, True),
        ("-(-1) == 1", {}, True),
        ("- - 1 == +1", {}, True),
        ("len('ä€😀') == 3", {}, True),
        ("len($a) == 2 and len($b) == 1", {"a": [1, 2], "b": {"x": 1}}, True),
        ("int('12') == 12 and int(' 12 ') == 12 and int(3.9) == 3 and int(-3.9) == -3", {}, True),
        ("float('1.5') == 1.5 and float(2) == 2", {}, True),
        ("float('0.10') == 0.1 and float('1e3') == 1000", {}, True),
        ("'1e-400' > 0 and '1e-400' != 0 and '99.99999999999999999999' < 100", {}, True),
        ("'1e-99999999999999999999' != 0", {}, True),  # no number that can be told from others
        ("str(1) == '1' and str(null) == 'None' and str(true) == 'True'", {}, True),
        ("str($a) == '[1,\"a\"]'", {"a": [1, "a"]}, True),
        ("' Ab '.strip().lower() == 'ab'", {}, True),
        ("'aB'.upper() == 'AB'", {}, True),
        ("'yes.'.startswith('yes') and 'yes.'.endswith('.')", {}, True),
        ("$a.lower() == 'x'", {"a": "X"}, True),
        ("$a.b.lower() == 'x'", {"a": {"b": "X"}}, True),
        ("${a}.lower() == 'x'", {"a": "X"}, True),
        ("${a.lower} == 'x'", {"a": {"lower": "x"}}, True),
        ("$a[0] == 1 and $a[-1] == 2", {"a": [1, 2]}, True),
        ("$a['x'] == 1", {"a": {"x": 1}}, True),
        ("$a[$i] == 2", {"a": [1, 2], "i": 1}, True),
        ("'abc'[1] == 'b'", {}, True),
        ("$a.b[0].c == 1", {"a": {"b": [{"c": 1}]}}, True),
        ("'$a' == '1'", {"a": 1}, True),
        ("'$a' == '[1]'", {"a": [1]}, True),
        ("'<$a>' == '<None>'", {"a": None}, True),
        ("'$$a' == '$$' 'a'", {"a": 1}, True),
        ("'$5' == '$5'", {}, True),
        ("\"it's\" == 'it\\'s'", {}, True),
        (r"'\n\t\\\u00e4\x41' == '" + "\n\t\\\\ä" + "A'", {}, True),
        ("not not true", {}, True),
        ("not 1 == 2", {}, True),
        ("$a not in $b", {"a": "x", "b": ["y"]}, True),
        ("  $a\n and\ttrue ", {"a": True}, True),
        ("$größe == 1", {"größe": 1}, True),
        ("\N{NO-BREAK SPACE}true", {}, True),
    ],
)
def test_meaning(text: str, names: dict[str, Any], expected: bool) -> None:
    assert truth_of(text, **names) is expected


@pytest.mark.parametrize(
    ("text", "names", "part"),
    [
        ("1 / 0 == 1", {}, "divides by zero"),
        ("1 % 0 == 1", {}, "divides by zero"),
        ("1.5 % 0.0 == 1", {}, "divides by zero"),
        ("1e308 * 10 == 1", {}, "too large"),
        ("$a * $a == 1", {"a": 1 << 3000}, "too large"),
        ("$a / 3 == 1", {"a": 1 << 3000}, "too large"),
        ("int('1.5') == 1", {}, "whole number"),
        ("int('') == 1", {}, "whole number"),
        ("int(true) == 1", {}, "int() of true"),
        ("int(null) == 1", {}, "int() of null"),
        ("float('nan') == 1", {}, "float()"),
        ("float('1e999') == 1", {}, "float()"),
        ("float('1e-400') == 0", {}, "float() of the string '1e-400': no float is that number"),
        ("float('99.99999999999999999999') == 100", {}, "no float is that number"),
        ("float(9007199254740993) == 9007199254740992", {}, "no float is that number"),
        ("'1e-99999999999999999999' > 0", {}, "cannot compare"),
        ("'0e-99999999999999999999' < 1", {}, "cannot compare"),
        ("len(1) == 1", {}, "len()"),
        ("len(null) == 1", {}, "len()"),
        ("$a.lower() == 'x'", {"a": 5}, ".lower() of the number 5; it takes a string"),
        ("'a'.startswith(1)", {}, "both must be strings"),
        ("$a[5] == 1", {"a": [1]}, "no item [5]"),
        ("$a[-2] == 1", {"a": [1]}, "no item [-2]"),
        ("$a['y'] == 1", {"a": {"x": 1}}, "no field 'y'"),
        ("$a['0'] == 1", {"a": [1]}, "cannot take"),
        ("$a[true] == 1", {"a": [1, 2]}, "cannot take"),
        ("$a[0] == 1", {"a": {"0": 1}}, "cannot take"),
        ("$a[1.0] == 1", {"a": [1, 2]}, "cannot take"),
        ("$a.x == 1", {"a": 5}, "$a.x: cannot take"),
        ("-$a == 1", {"a": "1"}, "both must be numbers"),
        ("-$a == 1", {"a": True}, "both must be numbers"),
        ("1 < null", {}, "cannot compare the number 1 < null"),
        ("1 < true", {}, "cannot compare the number 1 < true"),
        ("'a' < 1", {}, "cannot compare the string 'a' < the number 1"),
        ("[1] < [2]", {}, "cannot compare the list"),
        ("1 in '123'", {}, "cannot look for the number 1 in the string '123'"),
        ("null in 'a'", {}, "cannot look for null"),
        ("'yes'", {}, "the string 'yes' is not true or false"),
        ("1", {}, "the number 1 is not true or false"),
        ("[]", {}, "is not true or false"),
    ],
)
def test_an_error_never_means_false(text: str, names: dict[str, Any], part: str) -> None:
    assert part in error_of(text, **names)


# --- what is not in the language ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "column", "part"),
    [
        ("", 1, "the end"),
        ("   ", 4, "the end"),
        ("1 +", 4, "the end"),
        ("1 2", 3, "'2'"),
        ("$a = 1", 4, "compare with =="),
        ("$a is null", 4, "compare with =="),
        ("$a && $b", 4, "'and'"),
        ("$a || $b", 4, "'or'"),
        ("!$a", 1, "'not'"),
        ("2 ** 3", 4, "'*'"),
        ("2 // 3", 4, "'/'"),
        ("2 ^ 3", 3, "'^"),
        ("~1", 1, "'~"),
        ("x == 1", 1, "write $x for a value, 'x' for a string"),
        ("print(1)", 1, "'print'"),
        ("__import__('os')", 1, "'__import__'"),
        ("lambda: 1", 1, "no functions"),
        ("1 if $a else 2", 3, "condition step"),
        ("[i for i in $a]", 2, "'i'"),
        ("{1: 2}", 1, "'{"),
        ("$a; $b", 3, "';"),
        ("'open", 1, "a quote is not closed"),
        ("\"open'", 1, "a quote is not closed"),
        ("(1 == 1", 8, "the end"),
        ("1 == 1)", 7, "')'"),
        ("$a[1", 5, "the end"),
        ("$a[1:2]", 5, "':"),
        ("f'x' == 1", 1, "'f'"),
        ("b'x' == 1", 1, "'b'"),
        ("1_000 == 1", 2, "'_000'"),
        ("0x10 == 16", 2, "'x10'"),
        ("1j == 1", 2, "'j'"),
        ("'a'.format()", 5, "not a method of the language"),
        ("'a'.__class__", 5, "not a method of the language"),
        ("$a.__class__()", 13, "'('"),
        ("'a'.lower", 10, "the end"),
        ("'a'.lower(1)", None, "takes 0 arguments"),
        ("'a'.startswith()", None, "takes 1 arguments"),
        ("len()", 4, "takes 1 argument, not 0"),
        ("len(1, 2)", 4, "takes 1 argument, not 2"),
        ("len", 4, "the end"),
        ("eval('1')", 1, "'eval'"),
        ("$", 1, "'$'"),
        ("$5 == 1", 1, "'$5"),
        ("${a b} == 1", None, "is not a reference"),
        ("'${a b}' == 1", None, "is not a reference"),
        ("${a == 1", 1, "'${a"),
        ("1e999 == 1", None, "not a finite number"),
        ("'\\ud800' == 1", None, "lone surrogate"),
        ("and", 1, "'and'"),
        ("not", 4, "the end"),
        ("in $a", 1, "'in'"),
        ("$a not $b", 8, "'$b'"),
        ("()", 2, "')'"),
        ("[,]", 2, "','"),
        ("TRUE", 1, "'TRUE'"),
        ("await $a", 1, "'await'"),
        ("\0", 1, "unexpected"),
    ],
)
def test_refused_with_its_column(text: str, column: int | None, part: str) -> None:
    with pytest.raises(ExprError) as caught:
        parse_expr(text)
    assert part in str(caught.value)
    if column is not None:
        assert f"column {column}" in str(caught.value)


def test_limits() -> None:
    parse_expr("1 == " + "1" * 1000)
    parse_expr("'" + "x" * 1990 + "' == 1")
    with pytest.raises(ExprError, match=r"2001 characters, the limit is 2000"):
        parse_expr("'" + "x" * 1994 + "' == 1")
    parse_expr("not " * 31 + "true")
    for text in (
        "not " * 32 + "true",
        "-" * 40 + "$a == 1",
        "[" * 33 + "1" + "]" * 33,
        "(" * 900 + "1" + ")" * 900,
        "$a" + "[0" * 40 + "]" * 40,
    ):
        with pytest.raises(ExprError, match="deeper than 32 levels"):
            parse_expr(text)
    with pytest.raises(ExprError, match="digits"):
        parse_expr("9" * 1301 + " == 1")
    with pytest.raises(ExprError, match=r"bits|large"):
        truth_of("9" * 1299 + " == 1")
    with pytest.raises(ExprError):
        parse_expr("(" * 100_000)


def test_parentheses_are_no_levels_of_the_tree() -> None:
    assert truth_of("(" * 20 + "true" + ")" * 20)


def test_a_long_chain_is_not_deep() -> None:
    assert truth_of(" and ".join(["true"] * 200))
    assert value_of("+".join(["1"] * 30)) == 30


# --- against Python -------------------------------------------------------------------------------

numbers = st.integers(-9, 9) | st.floats(-9, 9, allow_nan=False).map(lambda x: round(x, 2) + 0.0)
texts = st.text("ab'\" \\$ä", max_size=3)
literals = (
    numbers.map(repr)
    | texts.map(lambda t: repr(t).replace("$", "$$"))
    | st.sampled_from(["True", "False", "None"])
)


def operations(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    binary = st.sampled_from(
        ["+", "-", "*", "/", "%", "==", "!=", "<", "<=", ">", ">=", "in", "not in", "and", "or"]
    )
    return (
        st.tuples(inner, binary, inner).map(" ".join)
        | inner.map(lambda a: f"({a})")
        | inner.map(lambda a: f"not {a}")
        | inner.map(lambda a: f"-{a}")
        | inner.map(lambda a: f"len({a})")
        | st.tuples(inner, st.sampled_from(["lower", "upper", "strip"])).map(
            lambda p: f"({p[0]}).{p[1]}()"
        )
        | st.tuples(inner, inner).map(lambda p: f"[{p[0]}, {p[1]}]")
        | st.tuples(inner, inner).map(lambda p: f"({p[0]})[{p[1]}]")
    )


expressions = st.recursive(literals, operations, max_leaves=6)


@pytest.mark.slow
@given(expressions)
def test_where_both_have_a_meaning_it_is_pythons(text: str) -> None:
    """Precedence, short circuit, chains and results are Python's wherever this language gives a
    value.
    """
    try:
        found = value_of(text)
    except ExprError:
        return  # stricter than Python
    expected = eval(text.replace("$$", "$"), {"__builtins__": {}, "len": len})
    if same(found, expected):
        return
    # the one difference: texts that are numbers are compared as numbers, and truth is not a number
    assume(not any(character.isdigit() for quoted in text.split("'")[1::2] for character in quoted))
    assume("True" not in text and "False" not in text)
    assert same(found, expected), (found, expected)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and (a == b or (isinstance(a, float) and math.isclose(a, b)))


operators = st.sampled_from(["and", "or", "==", "<", "in", "not in", "+", "-", "*", "/", "%"])
chains = st.lists(
    st.tuples(operators, st.sampled_from(["", "not ", "-", "not not ", "--"])),
    min_size=1,
    max_size=7,
)


@pytest.mark.slow
@given(chains)
def test_precedence_and_associativity_are_pythons(chain: list[tuple[str, str]]) -> None:
    text = "a" + "".join(
        f" {op} {prefix}{name}" for (op, prefix), name in zip(chain, "bcdefgh", strict=False)
    )
    ours = re.sub(r"\b([a-h])\b", r"$\1", text)
    try:
        tree = ast.parse(text, mode="eval").body
    except SyntaxError:  # `a + not b`
        with pytest.raises(ExprError):
            parse_expr(ours)
        return
    assert shown(parse_expr(ours)) == python_shown(tree)


def shown(node: Node) -> str:
    """A tree with all its parentheses."""
    match node:
        case Ref(name):
            return name
        case Bool(op, operands):
            return f"({f' {op} '.join(map(shown, operands))})"
        case Not(operand):
            return f"(not {shown(operand)})"
        case Compare(first, rest):
            return f"({shown(first)}{''.join(f' {op} {shown(operand)}' for op, operand in rest)})"
        case Arith(op, Const(0), right):
            return f"({op}{shown(right)})"
        case Arith(op, left, right):
            return f"({shown(left)} {op} {shown(right)})"
    raise AssertionError(node)


PYTHON_OPS = {
    ast.And: "and", ast.Or: "or", ast.Eq: "==", ast.Lt: "<", ast.In: "in", ast.NotIn: "not in",
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Mod: "%",
}  # fmt: skip


def python_shown(node: ast.expr) -> str:
    match node:
        case ast.Name(name):
            return name
        case ast.BoolOp(op, values):
            return f"({f' {PYTHON_OPS[type(op)]} '.join(map(python_shown, values))})"
        case ast.UnaryOp(ast.Not(), operand):
            return f"(not {python_shown(operand)})"
        case ast.UnaryOp(ast.USub(), operand):
            return f"(-{python_shown(operand)})"
        case ast.Compare(left, ops, comparators):
            pairs = zip(ops, comparators, strict=True)
            return f"({python_shown(left)}{''.join(f' {PYTHON_OPS[type(op)]} {python_shown(c)}' for op, c in pairs)})"
        case ast.BinOp(left, op, right):
            return f"({python_shown(left)} {PYTHON_OPS[type(op)]} {python_shown(right)})"
    raise AssertionError(node)


# --- no value can become code ---------------------------------------------------------------------

hostile = st.one_of(
    st.text(),
    st.sampled_from(
        [
            "'", '"', "\\", "\\'", "' or True or '", "' == '", "$a", "${a}", "$$", "$other.output", "\n", "'\n'",
            "__import__('os')",
            "{}", "{0}", "%s", ") or (True", "'; true", "\0", "\u2028", "true", "1", " 1 ", "null", "[", '["x"]',
        ]
    ),
    st.tuples(
        st.text(max_size=5), st.sampled_from(["'", '"', "$a", "${a}", "\\", "\n"]), st.text(max_size=5)
    ).map("".join),
)  # fmt: skip


@pytest.mark.slow
@given(hostile, hostile)
def test_any_text_is_only_a_text(value: str, other: str) -> None:
    names = {"a": value, "other": other}
    assert value_of("$a", **names) == value
    assert value_of("'$a'", **names) == value
    assert value_of("'<$a|${a}>'", **names) == f"<{value}|{value}>"
    assert truth_of("'$a' == $a", **names)
    assert truth_of("$a == $other", **names) is (value == other)
    assert truth_of("'$a' == '$other'", **names) is (value == other)
    assert truth_of("'yes' in '$a'.lower()", **names) is ("yes" in value.lower())
    assert truth_of("$a in $other", **names) is (value in other)
    assert truth_of("$a.startswith('$other')", **names) is value.startswith(other)
    assert value_of("$a.strip()", **names) == value.strip()
    assert value_of("len('$a$other')", **names) == len(value) + len(other)
    assert value_of("[$a, '$other']", **names) == [value, other]


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=("Cs",))),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)


@pytest.mark.slow
@given(json_values)
def test_templates_never_scan_values(value: Any) -> None:
    assert filled("$a", a=value) == value
    assert type(filled("$a", a=value)) is type(value)
    assert filled("<$a>", a=value) == f"<{as_text(value)}>"
    scope = Names(a=value)
    nested = compile_value({"x": ["$a", "-$a", {"$a": "$$a"}]}, scope)(scope.frame)
    assert nested == {"x": [value, f"-{as_text(value)}", {"$a": "$a"}]}


@pytest.mark.slow
@given(st.text(st.characters(exclude_characters="$")))
def test_a_template_without_a_dollar_sign_is_itself(text: str) -> None:
    assert parse_template(text).parts == ((text,) if text else ())
    scope = Names()
    assert compile_value({"k": [text]}, scope)(scope.frame) == {"k": [text]}


@pytest.mark.slow
@given(st.text(), st.text())
def test_a_delimited_name_lets_any_text_stand_beside_it(before: str, after: str) -> None:
    text = f"{before.replace('$', '$$')}${{a}}{after.replace('$', '$$')}"
    scope = Names(a="<>")
    assert compile_value([text, "-"], scope)(scope.frame)[0] == f"{before}<>{after}"


@pytest.mark.slow
@given(st.text())
def test_a_template_without_names_is_its_text(text: str) -> None:
    try:
        template = parse_template(text)
    except ExprError:
        assert "${" in text
        return
    if not any(isinstance(part, Ref) for part in template.parts):
        assert "".join(str(part) for part in template.parts) == text.replace("$$", "$")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("$a", (Ref("a"),)),
        ("$a.output.b[0].c", (Ref("a", ("output", "b", 0, "c")),)),
        ("${a.b}", (Ref("a", ("b",), True),)),
        ("${ a-b.output }", (Ref("a-b", ("output",), True),)),
        ("x$a-b", ("x", Ref("a"), "-b")),
        ("$a$b", (Ref("a"), Ref("b"))),
        ("$a[-1]", (Ref("a", (-1,)),)),
        ("$a[ 2 ].b", (Ref("a", (2, "b")),)),
        ("$a['k k'][\"it's\"]", (Ref("a", ("k k", "it's")),)),
        ("$a['']", (Ref("a", ("",)),)),
        ("${a['}']}[0]", (Ref("a", ("}",), True), "[0]")),
        ("$a [0]", (Ref("a"), " [0]")),
        ("$a.b.", (Ref("a", ("b",)), ".")),
        ("$a.é.1", (Ref("a", ("é",)), ".1")),
        ("$a.", (Ref("a"), ".")),
        ("$a..b", (Ref("a"), "..b")),
        ("$$a", ("$", "a")),
        ("$$$a", ("$", Ref("a"))),
        ("$5.00", ("$5.00",)),
        ("$_x", (Ref("_x"),)),
        ("$é", (Ref("é"),)),
        ("", ()),
    ],
)
def test_parts_of_a_template(text: str, parts: tuple[Any, ...]) -> None:
    assert parse_template(text).parts == parts


@pytest.mark.parametrize(
    "text",
    [
        "${}",
        "${ }",
        "${a b}",
        "${a.}",
        "${.a}",
        "${a[}",
        "${a[x]}",
        "${1}",
        "${a}${b c}",
        "${a\n.b}",
    ],
)
def test_braces_hold_a_reference_or_nothing_goes(text: str) -> None:
    with pytest.raises(ExprError, match="is not a reference"):
        parse_template(text)


@pytest.mark.parametrize(
    "text", ["${", "${a", "x ${a b", "${a${b}}", "${a{b}", "${a\nb", "'${a' == 1", "${a['k\""]
)
def test_braces_are_closed(text: str) -> None:
    parse = parse_expr if "==" in text else parse_template
    with pytest.raises(ExprError, match=r"is not closed; write \} behind the reference"):
        parse(text)


@pytest.mark.parametrize(
    "rest", ["[x]", "[", "[$b]", "[1:2]", "[+1]", "['k", "['a$b']", r"['a\\']", "[1.0]", "[]"]
)
def test_what_stands_in_brackets_behind_a_name_is_an_index(rest: str) -> None:
    for text in (f"$a{rest}", f"<$a.b[0]{rest}>"):
        with pytest.raises(
            ExprError, match=r"a whole number or a quoted key.*text behind the value"
        ):
            parse_template(text)
    assert parse_template(f"$${{a}}{rest}".replace("$$", "$$ ")).parts[0] == "$"


paths = st.lists(
    st.integers(-99, 999)
    | st.text(
        st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="'\"\\$"), max_size=5
    )
    | st.sampled_from(["a", "output", "lower", "é"]),
    max_size=4,
)


@pytest.mark.slow
@given(paths, st.booleans())
def test_a_reference_is_read_as_it_is_written(path: list[str | int], delimited: bool) -> None:
    """In a template, in braces, beside text and in a condition; and it says itself the same way."""
    ref = Ref("a", tuple(path), delimited)
    assert parse_template(str(ref)).parts == (ref,)
    assert parse_expr(str(ref)) == ref
    assert parse_template(f"<{ref} >").parts == ("<", ref, " >")
    assert parse_expr(f"'<{ref} >' == 1" if "'" not in str(ref) else f'"<{ref} >" == 1') == Compare(
        parse_expr(f"'<{ref} >'" if "'" not in str(ref) else f'"<{ref} >"'), (("==", Const(1)),)
    )


@pytest.mark.slow
@given(paths)
def test_a_template_and_a_condition_find_the_same(path: list[str | int]) -> None:
    value: Any = "found"
    for part in reversed(path):
        if isinstance(part, str):
            value = {part: value}
        else:
            value = [value] * (part + 1 if part >= 0 else -part)
    ref = str(Ref("a", tuple(path)))
    assert filled(ref, a=value) == value_of(ref, a=value) == "found"
    assert filled(f"<{ref} >", a=value) == "<found >"


def test_text_is_bounded_before_it_is_joined() -> None:
    from nano_vm.errors import LimitExceeded

    with pytest.raises(LimitExceeded):
        filled("$a" * 20, a="x" * 1_000_000)
