"""The functions of the language: pure, on JSON values, with bounded results.

Plain values come in; a plain value goes out, or an `ExprError` that names the function and what it was given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .errors import ExprError
from .operators import described, exact_float, exactly, is_number, number_in
from .values import CONTAINERS, as_text


def _length(value: Any) -> int:
    if type(value) is str or type(value) in CONTAINERS:
        return len(value)
    raise ExprError(f"len() of {described(value)}; it takes a text, a list or an object")


def _integer(value: Any) -> int:
    if is_number(value):
        return int(value)
    number = number_in(value) if type(value) is str else None
    if type(number) is int:
        return number
    raise ExprError(f"int() of {described(value)}; it takes a number, or a text that is a whole number")


def _floating(value: Any) -> float:
    number = exact_float(value)
    if number is not None:
        return number
    if exactly(value) is not None:
        hint = "no float is that number; compare the value itself, which keeps every digit"
        raise ExprError(f"float() of {described(value)}: {hint}")
    raise ExprError(f"float() of {described(value)}; it takes a number, or a text that is one")


FUNCTIONS: dict[str, Callable[[Any], Any]] = {"len": _length, "int": _integer, "float": _floating, "str": as_text}
