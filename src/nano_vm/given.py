"""What callers give to public functions, examined where it is given.

A value comes in with the words for it; it goes out as what it must be, or as a `VMError` that names
the argument, what it takes, what was given and what to write.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from .errors import VMError
from .values import short

T = TypeVar("T")


def instance(given: Any, kind: type[T], what: str, remedy: str) -> T:
    """*given*, if it is a *kind*."""
    if isinstance(given, kind):
        return given
    raise VMError(f"{what} is a {kind.__name__}, not {short(given)}; {remedy}")


def with_methods(given: Any, methods: Iterable[str], what: str, remedy: str) -> None:
    """That *given* is an object with these *methods*, or a module or class used as one."""
    for method in methods:
        if not callable(getattr(given, method, None)):
            raise VMError(f"{what} has a method {method}(), and {short(given)} has none; {remedy}")


def by_name(given: Any, what: str, remedy: str) -> dict[str, Any]:
    """*given* as a dict by name, empty where nothing is given."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise VMError(f"{what} is a dict by name, not {short(given)}; {remedy}")
    for name in given:
        if not isinstance(name, str):
            raise VMError(f"{what} is a dict by name, and {short(name)} is no string; {remedy}")
    return dict(given)


def strings(given: Any, what: str, remedy: str) -> tuple[str, ...]:
    """*given* as strings; a single one stands for itself."""
    found = (given,) if isinstance(given, str) else given
    if not isinstance(found, Iterable):
        raise VMError(f"{what} is a list of strings, not {short(given)}; {remedy}")
    found = tuple(found)
    for one in found:
        if not isinstance(one, str):
            raise VMError(f"{what} is a list of strings, and {short(one)} is none; {remedy}")
    return found


def string(given: Any, what: str) -> str:
    """*given*, if it is a string and not empty."""
    if isinstance(given, str) and given:
        return given
    raise VMError(f"{what} is a string, not {short(given)}")


def positive_integer(given: Any, what: str) -> int:
    """*given*, if it is an integer of at least 1."""
    if type(given) is int and given >= 1:
        return given
    raise VMError(f"{what} must be a positive integer, not {short(given)}")


def seconds(given: Any, what: str, at_most: float) -> float:
    """*given*, if it is a number of seconds above 0 and not over *at_most*."""
    if type(given) in (int, float) and 0 < given <= at_most:
        return float(given)
    raise VMError(f"{what} is a number of seconds above 0, at most {at_most:g}, not {short(given)}")


def invalid(error: ValidationError) -> str:
    """The first fault of a model's fields, in one line."""
    first = error.errors(include_url=False)[0]
    place = "".join(f"{part}." for part in first["loc"])[:-1]
    message = first["msg"].removeprefix("Value error, ")
    told = f"{message[:1].lower()}{message[1:]}, not {short(first['input'])}"
    return f"{place}: {told}" if place else told


def path(given: Any, what: str) -> Path:
    """*given* as the path of a file."""
    if isinstance(given, str) or (hasattr(given, "__fspath__") and not isinstance(given, type)):
        return Path(given)
    raise VMError(f"{what} is the path of a file, a str or a Path, not {short(given)}")
