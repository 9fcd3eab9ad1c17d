"""The functions of the language: pure, on JSON values, with bounded results.

Plain values come in; a plain value goes out, or an `ExprError` that names the function and what it
was given. A result is held to the size of one value before it is allocated, wherever its size can
be known; nothing that is given is changed, so a result may share parts with it.

Rule 1: numbers are numbers. Only ``int``, ``float`` and what orders (``min``, ``max``, ``sorted``)
read a string as one.
Rule 2: a result depends on the arguments alone: no hash order, no locale, and floats are added from
left to right.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from ..errors import ExprError, LimitExceeded, ValueRefused
from ..values import (
    CONTAINERS,
    MAX_INT_BITS,
    MAX_VALUE_BYTES,
    NODE_BYTES,
    UNSET,
    admit,
    as_text,
    parse_json,
)
from .operators import described, exact_float, exactly, is_number, number_in, present

MAX_ROUND_DIGITS = 308
"""Digits before and behind the point that ``round`` takes: a float has no more before it, and 324
behind it."""


@dataclass(frozen=True, slots=True)
class Function:
    """A function: how a program writes it, what it computes, and how many arguments it takes (None:
    any number).

    One without ``apply`` is a form of its own, which `expr` compiles.
    """

    signature: str
    apply: Callable[..., Any] | None
    least: int
    most: int | None

    def arity_fault(self, count: int) -> str | None:
        """Why it cannot be called with *count* arguments."""
        if self.least <= count and (self.most is None or count <= self.most):
            return None
        takes = (
            f"at least {self.least}"
            if self.most is None
            else " or ".join(map(str, sorted({self.least, self.most})))
        )
        return (
            f"{self.signature} takes {takes} argument{'' if takes.endswith('1') else 's'}, not "
            f"{count}"
        )


def _refused(name: str, value: Any, takes: str, hint: str = "") -> ExprError:
    return ExprError(f"{name}() of {described(value)}; it takes {takes}{hint and f'; {hint}'}")


def too_large(name: str) -> LimitExceeded:
    """The error of a result that no value may have."""
    return LimitExceeded(f"what {name}() gives is larger than {MAX_VALUE_BYTES} bytes")


_MAX_ITEMS = MAX_VALUE_BYTES // NODE_BYTES


def _length(value: Any) -> int:
    if type(value) is str or type(value) in CONTAINERS:
        return len(value)
    raise _refused("len", value, "a string, a list or an object")


def _integer(value: Any) -> int:
    if is_number(value):
        return int(value)
    number = number_in(value) if type(value) is str else None
    if type(number) is int:
        return number
    raise _refused("int", value, "a number, or a string that is a whole number")


def _floating(value: Any) -> float:
    number = exact_float(value)
    if number is not None:
        return number
    if exactly(value) is not None:
        hint = "no float is that number; compare the value itself, which keeps every digit"
        raise ExprError(f"float() of {described(value)}: {hint}")
    raise _refused("float", value, "a number, or a string that is one")


def _text(value: Any) -> str:
    text = as_text(value)
    if len(text) > MAX_VALUE_BYTES:
        raise too_large("str")
    return text


def _keys(value: Any) -> list[str]:
    if type(value) is dict:
        return list(value)
    raise _refused("keys", value, "an object")


def _parsed(text: Any) -> Any:
    if type(text) is not str:
        raise _refused("json", text, "a string", "str() gives the JSON text of a value")
    if len(text) > MAX_VALUE_BYTES or (
        text.count(",") > _MAX_ITEMS and _STRING.sub("", text).count(",") > _MAX_ITEMS
    ):
        raise too_large("json")  # each comma outside of quotes stands between two entries
    try:
        return admit(parse_json(text))[0]
    except (ValueError, ValueRefused) as error:
        raise ExprError(f"json() of {described(text)}: {error}") from None


_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)


def _appended(box: Any, item: Any) -> list[Any]:
    if type(box) is not list:
        hint = "concat(a, b) joins strings" if type(box) is str else ""
        raise _refused("append", box, "a list and an item", hint)
    if len(box) >= _MAX_ITEMS:
        raise too_large("append")
    return [*box, item]


def _concatenated(a: Any, b: Any) -> Any:
    kind = type(a)
    if kind is type(b) and (kind is list or kind is str):
        if len(a) + len(b) > (_MAX_ITEMS if kind is list else MAX_VALUE_BYTES):
            raise too_large("concat")
        return a + b
    hint = "append(list, item) adds one item" if kind is list else "str() makes a string of a value"
    raise ExprError(
        f"concat() of {described(a)} and {described(b)}; it takes two lists or two strings; {hint}"
    )


def _joined(items: Any, separator: Any) -> str:
    if type(items) is not list or type(separator) is not str:
        raise ExprError(
            f"join() of {described(items)} and {described(separator)}; it takes a list and a string"
        )
    total = len(separator) * max(len(items) - 1, 0)
    texts = []
    for item in items:
        text = as_text(item)
        total += len(text)
        if total > MAX_VALUE_BYTES:
            raise too_large("join")
        texts.append(text)
    return separator.join(texts)


def _split(text: Any, separator: Any) -> list[str]:
    if type(text) is not str or type(separator) is not str:
        raise ExprError(
            f"split() of {described(text)} and {described(separator)}; both must be strings"
        )
    if not separator:
        raise ExprError("split() with an empty separator; give it the text to split at")
    if (text.count(separator) + 1) * NODE_BYTES + len(text) > MAX_VALUE_BYTES:
        raise too_large("split")
    return text.split(separator)


def _got(box: Any, key: Any, other: Any) -> Any:
    if (type(box) is dict and type(key) is str) or (type(box) is list and type(key) is int):
        value = present(box, key)
        return other if value is UNSET else value
    takes = "an object and a key, or a list and a whole number"
    raise ExprError(
        f"get() of {described(box)} and {described(key)}; it takes {takes}, and what to give "
        f"where it is not there"
    )


def _absolute(value: Any) -> Any:
    if is_number(value):
        return abs(value)
    raise _refused("abs", value, "a number", "see int(), float()")


def _rounded(value: Any, *to: Any) -> Any:
    """To the nearest, of the exact value; a tie goes to the even neighbour: 2.5 to 2, 3.5 to 4."""
    if not is_number(value):
        raise _refused("round", value, "a number", "see int(), float()")
    for digits in to:
        if type(digits) is not int or abs(digits) > MAX_ROUND_DIGITS:
            raise ExprError(
                f"round() to {described(digits)} digits; it takes a whole number up to "
                f"{MAX_ROUND_DIGITS}"
            )
    try:
        return round(value, *to)
    except OverflowError:
        raise ExprError(f"round() of {described(value)} is too large") from None


def _total(items: Any) -> Any:
    if type(items) is not list:
        raise _refused("sum", items, "a list of numbers")
    total: int | float = 0
    try:
        for item in items:  # one by one: Python's own sum() adds floats in another way since 3.12
            if not is_number(item):
                raise _refused("sum", items, "a list of numbers", f"{described(item)} is none")
            total += item
    except OverflowError:
        raise ExprError(f"sum() of {described(items)} is too large") from None
    if total.bit_length() > MAX_INT_BITS if type(total) is int else not isfinite(total):
        raise ExprError(f"sum() of {described(items)} is too large")
    return total


def _ranks(name: str, items: Sequence[Any]) -> Sequence[Any]:
    """What *items* are ordered by, so that ``<`` says the same of any two alone: as numbers, if
    each is one or a string that is one; else as strings."""
    if all(map(is_number, items)):
        return items
    numbers = [exactly(item) for item in items]
    if None not in numbers:
        return numbers
    if all(type(item) is str for item in items):
        return items
    raise ExprError(
        f"{name}() of {described(list(items))}; its items must all be numbers, or all strings"
    )


def _sorted(items: Any) -> list[Any]:
    if type(items) is not list:
        raise _refused("sorted", items, "a list")
    ranks = _ranks("sorted", items)
    return [items[place] for place in sorted(range(len(items)), key=ranks.__getitem__)]


def _extreme(name: str, choose: Callable[..., int]) -> Callable[..., Any]:
    def apply(*values: Any) -> Any:
        items: Sequence[Any] = values
        if len(values) == 1:
            if type(values[0]) is not list:
                raise _refused(name, values[0], "a list, or two values and more")
            items = values[0]
        if not items:
            raise ExprError(f"{name}() of an empty list; look at its len() before")
        return items[choose(range(len(items)), key=_ranks(name, items).__getitem__)]

    return apply


FUNCTIONS: dict[str, Function] = {
    function.signature.partition("(")[0]: function
    for function in (
        Function("len(value)", _length, 1, 1),
        Function("int(value)", _integer, 1, 1),
        Function("float(value)", _floating, 1, 1),
        Function("str(value)", _text, 1, 1),
        Function("append(list, item)", _appended, 2, 2),
        Function("concat(a, b)", _concatenated, 2, 2),
        Function("join(list, separator)", _joined, 2, 2),
        Function("split(text, separator)", _split, 2, 2),
        Function("get(object, key, default)", _got, 3, 3),
        Function("json(text)", _parsed, 1, 1),
        Function("round(number, digits)", _rounded, 1, 2),
        Function("min(list)", _extreme("min", min), 1, None),
        Function("max(list)", _extreme("max", max), 1, None),
        Function("sum(list)", _total, 1, 1),
        Function("abs(number)", _absolute, 1, 1),
        Function("sorted(list)", _sorted, 1, 1),
        Function("keys(object)", _keys, 1, 1),
        Function("default(value, other)", None, 2, 2),
    )
}
