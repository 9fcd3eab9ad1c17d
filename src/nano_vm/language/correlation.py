"""Which event is whose: a `wait` with ``match`` takes an event whose payload has these values, by
the language's ``==``.

Values come in from programs and from outside; out goes whether they fit, and *marks*: numbers by
which a database finds what may fit. Whatever fits has a mark in common; what has one in common is
still to be compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from ..values import canonical
from .operators import equal, exactly

MATCHABLE_FIELDS = 100
"""Fields of a payload that an event may be found by; one with more is refused, and can nest what
nobody matches.
"""


def fits(payload: Any, match: Mapping[str, Any] | None) -> bool:
    """Whether *payload* is an object that has every value of *match*; anything fits where nothing
    is to match.
    """
    if match is None:
        return True
    return type(payload) is dict and all(
        name in payload and equal(payload[name], match[name]) for name in match
    )


def fitted(payload: Any, match: Mapping[str, Any] | None) -> Any:
    """A payload that fits *match*, made of one that may not."""
    return payload if match is None else {**(payload if type(payload) is dict else {}), **match}


def mark_of_wait(event: str, match: Mapping[str, Any]) -> int:
    """A mark that every event has which fits."""
    name = min(match)
    return _mark(event, name, match[name])


def marks_of_event(event: str, payload: Mapping[str, Any]) -> list[int]:
    """The marks of an event, one for each field."""
    return [_mark(event, name, value) for name, value in payload.items()]


def _mark(event: str, name: str, value: Any) -> int:
    return int.from_bytes(
        sha256(canonical([event, name, _class(value)])).digest()[:8], "big", signed=True
    )


def _class(value: Any) -> Any:
    """The same for any two values that are equal."""
    kind = type(value)
    if kind is list or kind is dict:
        return kind.__name__
    number = exactly(value)
    if number is None:  # a text, true, false or null
        return [kind.__name__, value]
    try:
        return float(number) + 0.0  # -0.0 is 0.0
    except OverflowError:
        return "beyond"
