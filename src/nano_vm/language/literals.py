"""A valid value, as its schema spells it: 1 for 1.0, an object's keys in the order of the enum's
member.

What an enum allows are its members, and a program may treat such a value as its own text. So a
value and its schema come in, and a value goes out in which each place that an ``enum`` or ``const``
restricts holds the member itself. Nothing is checked here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ..errors import LimitExceeded
from ..values import CONTAINERS, copied
from .schema_cost import References, extent
from .schemas import DATA_WORDS, NAMED_WORDS, spelling

MAX_STEPS = 300_000
"""Subschemas at places of a value, and entries of what is compared: half a second."""

_SPELLED_ALIKE = frozenset({str, bool, type(None)})


def literals_of(schema: dict[str, Any]) -> Callable[[Any], Any] | None:
    """A function that gives a valid value as *schema* spells it.

    It raises `LimitExceeded` where that takes more than `MAX_STEPS`. There is none where equal
    values are spelled alike anyway.
    """
    if not _spelled_in_many_ways(schema, names=False):
        return None
    members: dict[int, _Members] = {}
    references = References(schema)

    def settled(value: Any) -> Any:
        return _Settling(references, members).at(schema, value)

    return settled


class _Members:
    """The members of an ``enum`` or ``const``, found by any spelling."""

    def __init__(self, node: dict[str, Any]) -> None:
        members = [*node.get("enum", ()), *([node["const"]] if "const" in node else ())]
        self.kinds = {type(member) for member in members} - _SPELLED_ALIKE
        self.numbers = bool(self.kinds & {int, float})
        self.exact = {spelling(member): member for member in reversed(members)}
        self.loose = {spelling(member, loosely=True): member for member in reversed(members)}

    def find(self, value: Any) -> Any:
        """The member that equals *value*; *value* itself if there is none."""
        found = self.exact.get(spelling(value), _NONE)
        if found is _NONE:  # numbers at least as loosely as any validator
            found = self.loose.get(spelling(value, loosely=True), _NONE)
        return value if found is _NONE else copied(found)


_NONE = object()


class _Settling:
    """One walk over one value."""

    def __init__(self, references: References, members: dict[int, _Members]) -> None:
        self.references = references
        self.members = members
        self.steps = 0

    def at(self, node: Any, value: Any) -> Any:
        if type(node) is not dict or type(value) in _SPELLED_ALIKE:
            return value
        self.count(1)
        if "enum" in node or "const" in node:
            value = self.member(node, value)
        for inner in self.beside(node):
            value = self.at(inner, value)
        if type(value) is dict:
            fields, other = node.get("properties", {}), node.get("additionalProperties")
            return {key: self.at(fields.get(key, other), item) for key, item in value.items()}
        if type(value) is list:
            first, other = node.get("prefixItems", ()), node.get("items")
            return [
                self.at(first[i] if i < len(first) else other, item) for i, item in enumerate(value)
            ]
        return value

    def member(self, node: dict[str, Any], value: Any) -> Any:
        members = self.members.get(id(node))
        if members is None:
            members = self.members[id(node)] = _Members(node)
        if type(value) in CONTAINERS:
            if type(value) not in members.kinds:
                return value
            self.count(extent(value).entries)
        elif not members.numbers:
            return value
        return members.find(value)

    def beside(self, node: dict[str, Any]) -> Iterator[Any]:
        if type(node.get("$ref")) is str:
            yield self.references.target(node["$ref"])
        for word in ("allOf", "anyOf", "oneOf"):
            yield from node.get(word, ())

    def count(self, steps: int) -> None:
        self.steps += steps
        if self.steps > MAX_STEPS:
            raise LimitExceeded(
                "the value is too large to be spelled as its schema spells it; give less"
            )


def _spelled_in_many_ways(node: Any, *, names: bool) -> bool:
    """Whether an enum or const in *node* has a member that equal values can spell otherwise."""
    if type(node) is list:
        return any(_spelled_in_many_ways(item, names=False) for item in node)
    if type(node) is not dict:
        return False
    members = [] if names else [node["const"]] if "const" in node else node.get("enum", [])
    return any(type(member) not in _SPELLED_ALIKE for member in members) or any(
        _spelled_in_many_ways(value, names=not names and key in NAMED_WORDS)
        for key, value in node.items()
        if names or key not in DATA_WORDS
    )
