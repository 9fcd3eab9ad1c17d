"""The document that goes from state to state, as far as it is known before any run.

A state machine has one JSON document; a program has names. So the document is a small tree here:
where a name holds a part of it, where it is written out, and where nobody can say.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Union

from ..language.expr import EXPR
from .report import NoCounterpart

Path = tuple[Union[str, int], ...]


@dataclass(frozen=True, slots=True)
class Reference:
    """What a name holds, or a part of that."""

    name: str
    path: Path = ()

    @property
    def inside(self) -> str:
        """The reference without its dollar."""
        parts = (f".{part}" if _plain(part) else f"[{part!r}]" for part in self.path)
        return self.name + "".join(parts)


@dataclass(frozen=True, slots=True)
class Given:
    """A value that stands in the file."""

    value: Any


@dataclass(frozen=True, slots=True)
class Text:
    """A template."""

    template: str


@dataclass(frozen=True, slots=True)
class Computed:
    """An expression."""

    expression: str


@dataclass(frozen=True, slots=True)
class Fields:
    """An object: known fields over those of *base*."""

    fields: tuple[tuple[str, Value], ...]
    base: Reference | None = None


@dataclass(frozen=True, slots=True)
class Items:
    """A list."""

    items: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Unknown:
    """A part that depends on the way that was taken."""


Value = Union[Reference, Given, Text, Computed, Fields, Items, Unknown]


def _plain(part: str | int) -> bool:
    return isinstance(part, str) and part.isidentifier()


def part_of(value: Value, path: Path) -> Value:
    """The part of *value* at *path*.

    Raises:
        NoCounterpart: If nothing says what it is.
    """
    for key in path:
        value = _child(value, key)
    return value


def _child(value: Value, key: str | int) -> Value:
    if isinstance(value, Reference):
        return Reference(value.name, (*value.path, key))
    if isinstance(value, Fields):
        known = dict(value.fields)
        if key in known:
            return known[str(key)]
        if value.base is not None:
            return Reference(value.base.name, (*value.base.path, key))
    if isinstance(value, Items) and isinstance(key, int) and -1 < key < len(value.items):
        return value.items[key]
    if isinstance(value, Given):
        try:
            return Given(value.value[key])
        except (TypeError, LookupError):
            pass
    raise NoCounterpart(
        f"reads the field {key!r} of a value that is not known to have it",
        "write down where the value comes from, by a name that a step writes",
    )


def with_part(value: Value, path: Path, part: Value) -> Value:
    """*value* with *part* at *path*."""
    if not path:
        return part
    key, rest = str(path[0]), path[1:]
    if isinstance(value, Given) and isinstance(value.value, dict):
        value = Fields(tuple((name, Given(one)) for name, one in value.value.items()))
    if isinstance(value, Reference):
        value = Fields((), value)
    if not isinstance(value, Fields):
        value = Fields(())
    known = dict(value.fields)
    below = known.get(key)
    if below is None and rest and value.base is not None:
        below = Reference(value.base.name, (*value.base.path, key))
    known[key] = with_part(below if below is not None else Fields(()), rest, part)
    return Fields(tuple(known.items()), value.base)


def merged(one: Value, other: Value) -> Value:
    """What is known of a document that is *one* on some ways and *other* on others."""
    if one == other:
        return one
    first, second = _as_fields(one), _as_fields(other)
    if first is None or second is None or first.base != second.base:
        return Unknown()
    known, others = dict(first.fields), dict(second.fields)
    return Fields(
        tuple(
            (name, merged(known[name], others[name]))
            if name in known and name in others
            else (name, Unknown())
            for name in dict.fromkeys([*known, *others])
        ),
        first.base,
    )


def _as_fields(value: Value) -> Fields | None:
    if isinstance(value, Reference):
        return Fields((), value)
    return value if isinstance(value, Fields) else None


def names_in(value: Value) -> Iterator[str]:
    """The names that *value* reads; of a template or expression none is known to be missing."""
    if isinstance(value, Reference):
        yield value.name
    elif isinstance(value, Fields):
        if value.base is not None:
            yield value.base.name
        for _, one in value.fields:
            yield from names_in(one)
    elif isinstance(value, Items):
        for one in value.items:
            yield from names_in(one)


def in_parts(value: Value) -> bool:
    """Whether the document is known only as fields over another one."""
    if isinstance(value, Fields):
        return value.base is not None or any(in_parts(one) for _, one in value.fields)
    return isinstance(value, Items) and any(in_parts(one) for one in value.items)


def template(value: Value) -> Any:
    """*value* as it is written in a program; fields over a base stand beside the base's name.

    Raises:
        NoCounterpart: If it is not known.
    """
    if isinstance(value, Reference):
        return f"${value.inside}"
    if isinstance(value, Given):
        return literal(value.value)
    if isinstance(value, Text):
        return value.template
    if isinstance(value, Computed):
        return {EXPR: value.expression}
    if isinstance(value, Items):
        return [template(one) for one in value.items]
    if isinstance(value, Fields):
        base = {} if value.base is None else {value.base.name: template(value.base)}
        return {
            **base,
            **{_key(name): template(one) for name, one in value.fields},
        }
    raise _unknown()


def literal(value: Any) -> Any:
    """*value* as a template in which nothing is read."""
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, list):
        return [literal(one) for one in value]
    if isinstance(value, dict):
        return {_key(name): literal(one) for name, one in value.items()}
    return value


def _key(name: str) -> str:
    return f"$${name}" if name == EXPR else name


def expression(value: Value) -> str:
    """*value* as it is written in a condition.

    Raises:
        NoCounterpart: If it cannot be.
    """
    if isinstance(value, Reference):
        return f"${value.inside}"
    if isinstance(value, Given) and not isinstance(value.value, (dict, list)):
        return json.dumps(literal(value.value), ensure_ascii=False)
    if isinstance(value, Text):
        return json.dumps(value.template, ensure_ascii=False)
    if isinstance(value, Computed):
        return f"({value.expression})"
    if isinstance(value, Items):
        return f"[{', '.join(expression(one) for one in value.items)}]"
    if isinstance(value, Unknown):
        raise _unknown()
    raise NoCounterpart("has an object inside an expression", "compare one of its fields")


def text(value: Value) -> str:
    """*value* as a part of a template.

    Raises:
        NoCounterpart: If it cannot be.
    """
    if isinstance(value, Reference):
        return f"${{{value.inside}}}"
    if isinstance(value, Given) and isinstance(value.value, (str, int)):
        return str(literal(value.value))
    if isinstance(value, Text):
        return value.template
    raise NoCounterpart(
        "puts a computed value into a string", "compute it in a 'set' step, and read its name"
    )


def _unknown() -> NoCounterpart:
    return NoCounterpart(
        "reads a value that depends on the way by which the state is reached",
        "write it under one name on every way, in a 'set' step",
    )
