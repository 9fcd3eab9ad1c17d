"""Paths, intrinsic functions and payload templates of Amazon's States Language."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from .documents import Computed, Fields, Given, Items, Path, Text, Value, expression, literal, text
from .report import NoCounterpart

Read = Callable[[str], Value]
"""What stands at a path of the document."""

_PART = re.compile(
    r"\.(?P<field>[^\W\d][\w-]*)|\[(?P<index>\d+)\]|\[(?P<quoted>'[^']*'|\"[^\"]*\")\]"
)
_FUNCTION = re.compile(r"States\.(\w+)\(")
_STRING = re.compile(r"'((?:[^'\\]|\\.)*)'")
_NUMBER = re.compile(r"-?\d+(\.\d+)?")
_ARGUMENT_PATH = re.compile(r"\$[^,()\s]*")


def path_of(given: str) -> Path:
    """The keys of a reference path, as ``$.order['first name'][0]``.

    Raises:
        NoCounterpart: If it is no path, or a path that can name several values.
    """
    if given[:1] != "$":
        raise NoCounterpart(
            f"has the path {given!r}, which does not begin with $", "write it as $.name"
        )
    rest, parts = given[1:], []
    while rest:
        found = _PART.match(rest)
        if found is None:
            raise NoCounterpart(
                f"has the path {given!r}, which is no plain way to one value",
                "choose the values in a tool, or in a 'map' or 'set' step",
            )
        parts.append(_key(found))
        rest = rest[found.end() :]
    return tuple(parts)


def _key(found: re.Match[str]) -> str | int:
    if found["index"] is not None:
        return int(found["index"])
    return found["field"] if found["field"] is not None else found["quoted"][1:-1]


def payload(written: Any, read: Read) -> Value:
    """A payload template: a field whose name ends with ``.$`` is read from the document.

    Raises:
        NoCounterpart: If a path or function in it cannot be converted.
    """
    if isinstance(written, dict):
        return Fields(
            tuple(
                (name[:-2], value(str(one), read))
                if name.endswith(".$")
                else (name, payload(one, read))
                for name, one in written.items()
            )
        )
    if isinstance(written, list):
        return Items(tuple(payload(one, read) for one in written))
    return Given(written)


def value(written: str, read: Read) -> Value:
    """What a path or an intrinsic function gives.

    Raises:
        NoCounterpart: If it cannot be converted.
    """
    if written.startswith("$"):
        return read(written)
    found, rest = _call(written, read)
    if rest.strip():
        raise NoCounterpart(f"has {written!r}, which is no path and no function", _BY_HAND)
    return found


_BY_HAND = "write it as {expr: ...} in a 'set' step, or as a tool"


def _call(written: str, read: Read) -> tuple[Value, str]:
    found = _FUNCTION.match(written)
    if found is None:
        raise NoCounterpart(f"has {written!r}, which is no path and no function", _BY_HAND)
    arguments: list[Value] = []
    rest = written[found.end() :].lstrip()
    while not rest.startswith(")"):
        one, rest = _argument(rest, read)
        arguments.append(one)
        rest = rest.lstrip()
        if rest.startswith(","):
            rest = rest[1:].lstrip()
        elif not rest.startswith(")"):
            raise NoCounterpart(f"has {written!r}, whose arguments do not end", _BY_HAND)
    return _function(found[1], arguments), rest[1:]


def _argument(written: str, read: Read) -> tuple[Value, str]:
    if found := _STRING.match(written):
        return Given(re.sub(r"\\(.)", r"\1", found[1])), written[found.end() :]
    if found := _NUMBER.match(written):
        number = float(found[0]) if found[1] else int(found[0])
        return Given(number), written[found.end() :]
    if found := _ARGUMENT_PATH.match(written):
        return read(found[0]), written[found.end() :]
    for word, constant in (("true", True), ("false", False), ("null", None)):
        if written.startswith(word):
            return Given(constant), written[len(word) :]
    return _call(written, read)


def _function(name: str, arguments: list[Value]) -> Value:
    if name == "Format" and arguments and isinstance(arguments[0], Given):
        return _format(str(arguments[0].value), arguments[1:])
    if name == "Array":
        return Items(tuple(arguments))
    form = _FORMS.get((name, len(arguments)))
    if form is None:
        raise NoCounterpart(f"calls States.{name}", _BY_HAND)
    return Computed(form.format(*(expression(one) for one in arguments)))


_FORMS = {
    ("ArrayLength", 1): "len({0})",
    ("ArrayGetItem", 2): "get({0}, {1}, null)",
    ("ArrayContains", 2): "{1} in {0}",
    ("MathAdd", 2): "{0} + {1}",
    ("StringToJson", 1): "json({0})",
    ("JsonToString", 1): "str({0})",
}
"""What intrinsic functions are here, by name and number of arguments."""


def _format(pattern: str, arguments: list[Value]) -> Text:
    pieces = pattern.split("{}")
    if len(pieces) != len(arguments) + 1:
        raise NoCounterpart(
            f"calls States.Format with {len(arguments)} values for {len(pieces) - 1} places",
            "give one value for each {}",
        )
    made = str(literal(pieces[0]))
    for one, piece in zip(arguments, pieces[1:], strict=True):
        made += text(one) + str(literal(piece))
    return Text(made)
