"""What operators mean on JSON values: equality, order, membership, arithmetic, indexing.

Plain values come in; a plain value goes out, or an `ExprError` that names both operands. Nothing
here depends on a program, and nothing changes a value that it is given.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from math import isfinite
from typing import Any

from ..errors import ExprError
from ..values import CONTAINERS, MAX_INT_BITS, UNSET, kind_name, short

_JSON_NUMBER = re.compile(r"\s*(-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?)\s*\Z", re.ASCII)


_EVERY_INT = 1 << 53  # up to here each whole number is a float


def _exact_number(text: str) -> int | Decimal | None:
    """The number that *text* is by JSON's grammar, trimmed, with every digit as it is written.

    None if it is none, too large for a float, or has an exponent that no Decimal holds.
    """
    match = _JSON_NUMBER.match(text)
    if not match:
        return None
    digits = match[1]
    if match[2] or match[3]:
        try:
            return Decimal(digits) if isfinite(float(digits)) else None
        except InvalidOperation:
            return None
    whole = int(digits) if len(digits) < 1300 else None
    return whole if whole is not None and whole.bit_length() <= MAX_INT_BITS else None


def number_in(text: str) -> int | float | None:
    """The number that *text* is by JSON's grammar, trimmed; None if it is none, or not finite.

    One with a fraction or an exponent is rounded to a float: see `exactly` for what it says.
    """
    number = _exact_number(text)
    return float(text) if isinstance(number, Decimal) else number


def exactly(value: Any) -> int | Decimal | None:
    """A number, or the one that a string is, with every digit as it is written; None for anything
    else.

    A string beside a number is compared by this: as a float ``500.00000000000000001`` would pass for
    500.
    """
    kind = type(value)
    if kind is str:
        return _exact_number(value)
    if kind is float:
        return Decimal(repr(value))
    return value if kind is int else None


def exact_float(value: Any) -> float | None:
    """The float that a number, or a string that is one, denotes: the one that reads back as it, digit
    for digit, by its shortest repr. None where there is none: ``1e-400`` is not 0.0, and
    9007199254740993 is no float."""
    if type(value) is float:
        return value
    number = exactly(value)
    if number is None:
        return None
    if type(number) is int and -_EVERY_INT <= number <= _EVERY_INT:
        return float(number)
    try:
        result = float(number)
    except OverflowError:
        return None
    return result if Decimal(repr(result)) == number else None


def is_number(value: object) -> bool:
    """An int or a float; a bool is none."""
    return type(value) is int or type(value) is float


def equal(a: Any, b: Any) -> bool:
    """By type and value; a string equals a number if it is that number."""
    ta, tb = type(a), type(b)
    if ta is tb:
        if ta is list:
            return len(a) == len(b) and all(map(strictly_equal, a, b))
        if ta is dict:
            return len(a) == len(b) and all(
                k in b and strictly_equal(v, b[k]) for k, v in a.items()
            )
        return bool(a == b)
    if (ta is str and is_number(b)) or (tb is str and is_number(a)):
        return exactly(a) == exactly(b)
    return bool(is_number(a) and is_number(b) and a == b)


def strictly_equal(a: Any, b: Any) -> bool:
    """Equal inside of containers: as JSON values, with no reading of strings as numbers."""
    ta, tb = type(a), type(b)
    if ta is not tb:
        return bool(is_number(a) and is_number(b) and a == b)
    return equal(a, b) if ta in CONTAINERS else bool(a == b)


def _ordered(symbol: str, compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def test(a: Any, b: Any) -> bool:
        ta, tb = type(a), type(b)
        if (ta is int or ta is float) and (tb is int or tb is float):
            return compare(a, b)
        x, y = exactly(a), exactly(b)
        if x is not None and y is not None:
            return compare(x, y)
        if ta is str and tb is str:
            return compare(a, b)
        raise ExprError(f"cannot compare {described(a)} {symbol} {described(b)}")

    return test


def contains(item: Any, box: Any) -> bool:
    """``in``: substring of a string, member of a list, key of a dict."""
    kind = type(box)
    if kind is str:
        if type(item) is str:
            return item in box
    elif kind is list:
        return any(equal(item, member) for member in box)
    elif kind is dict and type(item) is str:
        return item in box
    raise ExprError(f"cannot look for {described(item)} in {described(box)}")


def described(value: Any) -> str:
    """A value in an error message: its kind and a short form."""
    if value is None or type(value) is bool:
        return {None: "null", True: "true", False: "false"}[value]
    return f"the {_KINDS.get(type(value), kind_name(value))} {short(value)}"


_KINDS = {str: "string", int: "number", float: "number", list: "list", dict: "object"}
COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "==": equal,
    "!=": lambda a, b: not equal(a, b),
    "<": _ordered("<", operator.lt),
    "<=": _ordered("<=", operator.le),
    ">": _ordered(">", operator.gt),
    ">=": _ordered(">=", operator.ge),
    "in": contains,
    "not in": lambda a, b: not contains(a, b),
}
"""By its spelling, what each comparison does."""

_ARITH: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "%": operator.mod,
}


def arithmetic(op: str, a: Any, b: Any) -> int | float:
    """``a op b`` on numbers; the result is finite and bounded, or it is an error."""
    if not (is_number(a) and is_number(b)):
        raise ExprError(
            f"cannot compute {described(a)} {op} {described(b)}; both must be numbers "
            f"({_instead(op, a, b)})"
        )
    try:
        result = _ARITH[op](a, b)
        if (type(result) is int and result.bit_length() <= MAX_INT_BITS) or (
            type(result) is float and isfinite(result)
        ):
            return result
    except ZeroDivisionError:
        raise ExprError(f"{short(a)} {op} {short(b)} divides by zero") from None
    except OverflowError:
        pass
    raise ExprError(f"{short(a)} {op} {short(b)} is too large")


def _instead(op: str, a: Any, b: Any) -> str:
    """What serves the purpose where *op* takes no such operands."""
    kinds = {type(a), type(b)}
    if op == "+" and list in kinds:
        return "append(list, item) and concat(a, b) make lists"
    if op == "+" and kinds == {str}:
        return "concat(a, b) joins strings, int() and float() read numbers"
    return "see int(), float()"


def index(box: Any, key: Any) -> Any:
    """``box[key]`` of a list, a string or an object."""
    kind = type(box)
    if kind is dict and type(key) is str:
        if key in box:
            return box[key]
        raise ExprError(f"no field {short(key)} in {described(box)}")
    if (kind is list or kind is str) and type(key) is int:
        if -len(box) <= key < len(box):
            return box[key]
        raise ExprError(f"no item [{key}] in {described(box)} of length {len(box)}")
    raise ExprError(f"cannot take [{short(key)}] of {described(box)}")


def present(box: Any, key: Any) -> Any:
    """``box[key]``, or `UNSET` where there is no such field or item; null has none. Of a value of
    another kind it is an error."""
    kind = type(box)
    if kind is dict and type(key) is str:
        return box.get(key, UNSET)
    if (kind is list or kind is str) and type(key) is int:
        return box[key] if -len(box) <= key < len(box) else UNSET
    return UNSET if box is None else index(box, key)
