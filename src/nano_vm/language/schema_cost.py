"""What it costs to check a value by a JSON Schema, bounded before the check begins.

A schema comes in; `Rates` go out: the most work that an entry of a value can cause. The engine
cannot be stopped once it runs, and it holds the interpreter's lock: so what could take too long is
refused beforehand. Rates times size are a bound that depends on schema and value alone, never on
the speed of a machine. No value is checked here.

Theory: a schema is a graph of subschemas, with edges that stay at one place of the value
(``anyOf``, ``$ref``) and edges that lead one level down (``properties``, ``items``). The paths from
the root with *n* edges down are the checks of one place *n* levels deep. A subschema that contains
itself is counted once for each place: the engine remembers its verdicts there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from urllib.parse import unquote

from ..values import MINUS_SMALL_INT, SMALL_INT

MAX_CHECK_COST = 100_000_000
"""Units of work of one check. A unit is at most 10 ns on a core of 2023, measured for each keyword
with jsonschema-rs 0.60; so a check holds the loop for a second at worst, and mostly for a tenth."""

MAX_RATE = 100_000
"""Units that one entry may cost: references that double reach 2^24 in a page of text."""

MAX_SCHEMA_DEPTH = 100
"""Subschemas on one path, through references too: as deep as a value can be. The engine recurses.
"""


class Extent(NamedTuple):
    """The size of a value."""

    entries: int
    """Values at all levels, itself included."""
    containers: int
    """Lists and objects among them."""
    characters: int
    """Of all strings and keys."""
    limbs: int
    """Words of 64 bits of floats and of integers over 63 bits, written as whole numbers."""


FAR, FAR_LIMBS = 1e15, 16
"""A float beyond 10^15, or below 10^-15, has up to 1,024 bits as a fraction of whole numbers."""


def extent(value: Any) -> Extent:
    """Measure a plain value."""
    entries, containers, characters, limbs = 1, 0, 0, 0
    pending: list[Any] = [[value]]
    while pending:
        container = pending.pop()
        for item in container.values() if type(container) is dict else container:
            kind = type(item)
            if kind is str:
                characters += len(item)
            elif kind is int:
                if not MINUS_SMALL_INT < item < SMALL_INT:
                    limbs += item.bit_length() // 64 + 1
            elif kind is list or kind is dict:
                containers += 1
                if item:
                    entries += len(item)
                    pending.append(item)
                    if kind is dict:
                        characters += sum(map(len, item))
            elif kind is float:
                limbs += 1 if 1 / FAR < abs(item) < FAR or not item else FAR_LIMBS
    return Extent(entries, containers, characters, limbs)


class Rates(NamedTuple):
    """Units of work for each unit of an `Extent`."""

    entry: float
    container: float = 0
    character: float = 0
    limb: float = 0

    def plus(self, other: Rates, times: float = 1) -> Rates:
        """The sum of two rates, *other* taken *times* times."""
        a, b, c, d = self
        e, f, g, h = other
        return Rates(a + times * e, b + times * f, c + times * g, d + times * h)

    def highest(self, other: Rates) -> Rates:
        """The higher of two rates, for each kind of work."""
        return Rates(*map(max, self, other))

    def cost(self, size: Extent) -> float:
        """The most that the check of a value of this size can take."""
        return sum(rate * count for rate, count in zip(self, size, strict=True))


NOTHING = Rates(0)

EVALUATED = Rates(2, 3)
"""One subschema at one place: 6 to 20 ns by its keywords, 43 ns for an object."""

EVALUATED_BESIDE_PYTHON = Rates(10, 3)
"""The same in a schema of which a part runs in Python: then the engine keeps 30 bytes for each key
that it looks at, until the check ends. So they stay below 300 MB."""

DISTINCT = Rates(60, 0, 0.5, 25)
"""``uniqueItems``: an entry is spelled out in Python, 0.6 µs; an integer of 3,000 bits, 10 µs."""

REMEMBERED = Rates(1, 20)
"""One verdict that the engine remembers: 20 units keep the table of them below 250 MB."""

LOOKED_UP = Rates(4)
"""One key, looked up in ``properties``: 40 ns."""

KEY = Rates(10)
"""One key, made a string for ``propertyNames``: 100 ns."""

INTEGER = Rates(1, 0, 0, 70)
"""A value compared with one integer: 10 ns if it is an integer, 0.25 to 0.7 µs if it is a float."""

FRACTION = Rates(130, 0, 0, 130)
"""A value compared with one float, or an integer over 63 bits: up to 1.3 µs."""

CONTAINER = Rates(14)
"""One list or object of an ``enum``, compared with the value: 140 ns, and as much for its entries.
"""

LENGTH = Rates(0, 0, 0.25)
"""Characters are counted, where they are not all ASCII."""

FORMAT = Rates(20, 0, 0.5)
"""``email``, the slowest of those for ASCII, takes 0.12 µs for a short text."""

SLOW_FORMAT = Rates(500, 0, 5)
"""``idn-hostname`` takes 0.8 µs for a short text; those that Python reads, 5 µs."""

QUICK_FORMATS = frozenset(
    "date date-time time duration email hostname ipv4 ipv6 uri uri-reference uuid json-pointer "
    "relative-json-pointer".split()
)

MULTIPLE = Rates(150, 0, 0, 150)
"""``multipleOf``: 1.3 µs where one of both is a float."""

FAR_MULTIPLE = Rates(3_000, 0, 0, 3_000)
"""``multipleOf`` by a number whose exact fraction is long: 25 µs."""

UNEVALUATED = 3
"""``unevaluatedItems`` and ``unevaluatedProperties`` run the subschemas beside them twice more, and
those may do the same."""

CHARACTER_OF_PATTERN = 2.5
"""By the slowest pattern below `schemas.MAX_PATTERN_BYTES`: 24 ns."""


def pattern_rates(pattern: Any) -> Rates:
    """What a pattern costs: 1 ns a character, if repetition does not blow up its automaton."""
    text = pattern if isinstance(pattern, str) else ""
    plain = min(CHARACTER_OF_PATTERN, 0.1 + 0.02 * len(text))
    return Rates(2, 0, CHARACTER_OF_PATTERN if "{" in text else plain)


BRANCHES = ("allOf", "anyOf", "oneOf")
CONDITIONS = ("not", "if", "then", "else")
NAMED_BRANCHES = ("dependentSchemas", "dependencies")
NAMED_BELOW = ("properties", "patternProperties")
ITEMS = ("prefixItems", "items", "additionalItems", "contains", "unevaluatedItems")
PROPERTIES = ("additionalProperties", "propertyNames", "unevaluatedProperties")
REFERENCES = ("$ref", "$dynamicRef")
_PARTS = frozenset([*BRANCHES, *CONDITIONS, *ITEMS, *PROPERTIES])
_NAMED_PARTS = frozenset([*NAMED_BRANCHES, *NAMED_BELOW, "$defs", "definitions"])


def subschemas(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The subschemas that stand directly in *node*, those for references included."""
    for key, value in node.items():
        parts: Any = ()
        if key in _PARTS:
            parts = value if isinstance(value, list) else [value]
        elif key in _NAMED_PARTS and isinstance(value, dict):
            parts = value.values()
        yield from (part for part in parts if isinstance(part, dict))


def everywhere(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """*schema* and all its subschemas, the outer ones first."""
    found = [schema]
    for node in found:
        found.extend(subschemas(node))
    return found


class References:
    """Where the references of a schema lead."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self.schema = schema
        self.anchors: dict[str, list[dict[str, Any]]] = {}
        for node in everywhere(schema):
            if node is not schema and "$id" in node:
                raise ValueError(
                    "a subschema cannot have an '$id' of its own; refer to it by '#/$defs/NAME'"
                )
            for key in ("$anchor", "$dynamicAnchor"):
                if isinstance(node.get(key), str):
                    self.anchors.setdefault(node[key], []).append(node)

    def target(self, reference: str) -> Any:
        """What stands where *reference* leads; a ValueError if that is nowhere, or outside."""
        top = self.schema.get("$id")
        pointer = reference.removeprefix(top) if isinstance(top, str) else reference
        name = unquote(pointer[1:])
        nowhere = ValueError(f"a $ref leads out of the schema or nowhere: {reference[:200]!r}")
        if not pointer.startswith("#"):
            raise nowhere
        if name and not name.startswith("/"):
            found = self.anchors.get(name, ())
            if len(found) != 1:
                raise nowhere
            return found[0]
        at: Any = self.schema
        try:
            for part in name.split("/")[1:]:
                part = part.replace("~1", "/").replace("~0", "~")
                at = at[int(part)] if isinstance(at, list) else at[part]
        except (KeyError, IndexError, ValueError, TypeError):
            raise nowhere from None
        return at


def rates(schema: dict[str, Any], in_python: Callable[[dict[str, Any]], bool]) -> Rates:
    """The most that one entry of a value can cost when it is checked by *schema*.

    *in_python* says whether a keyword of a subschema is checked by Python.

    Raises:
        ValueError: If that is too much for any value, or the schema is nested too deep, or a
            reference leads nowhere, or back to itself without a step into the value.
    """
    try:
        return _Profiles(schema, in_python).highest()
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None


_TOO_DEEP = f"it is nested deeper than {MAX_SCHEMA_DEPTH} levels, references followed"


class _Profiles:
    """Rates of subschemas, by level: ``profile[0]`` is for the place where one applies."""

    def __init__(self, schema: dict[str, Any], in_python: Callable[[dict[str, Any]], bool]) -> None:
        self.schema = schema
        self.references = References(schema)
        self.evaluated = EVALUATED
        self.known: dict[int, list[Rates]] = {}
        # the level at which a subschema was entered, until it is done
        self.open: dict[int, int] = {}
        self.recursive: list[int] = []
        if any(map(in_python, everywhere(schema))):
            self.evaluated = EVALUATED_BESIDE_PYTHON

    def highest(self) -> Rates:
        total = _highest(self.profile(self.schema, 0))
        for key in self.recursive:
            total = total.plus(_highest(self.known[key]))
        if total.entry + total.container > MAX_RATE:
            raise ValueError(
                f"to check one entry of a value could take more than {MAX_RATE} steps; repeat "
                f"less in it"
            )
        return total

    def profile(self, node: Any, level: int) -> list[Rates]:
        if not isinstance(node, dict):
            return [self.evaluated]
        key = id(node)
        if key in self.known:
            return self.known[key]
        if key in self.open:
            if self.open[key] == level:
                raise ValueError("a $ref leads back to itself without a step into the value")
            if key not in self.recursive:
                self.recursive.append(key)
            return [REMEMBERED]
        if len(self.open) >= MAX_SCHEMA_DEPTH:
            raise ValueError(_TOO_DEEP)
        self.open[key] = level
        result = [self.evaluated.plus(_own(node))]
        for part in self.beside(node):
            _add(result, self.profile(part, level))
        _add(
            result,
            [NOTHING, *_higher(self.items(node, level + 1), self.properties(node, level + 1))],
        )
        if "unevaluatedItems" in node or "unevaluatedProperties" in node:
            _add(result, list(result), UNEVALUATED - 1)
        del self.open[key]
        self.known[key] = result
        return result

    def beside(self, node: dict[str, Any]) -> Iterator[Any]:
        """The subschemas that apply where *node* applies."""
        for key in BRANCHES:
            if isinstance(node.get(key), list):
                yield from node[key]
        for key in CONDITIONS:
            if key in node:
                yield node[key]
        for key in NAMED_BRANCHES:
            if isinstance(node.get(key), dict):
                yield from (part for part in node[key].values() if not isinstance(part, list))
        for key in REFERENCES:
            if isinstance(node.get(key), str):
                yield self.references.target(node[key])

    def items(self, node: dict[str, Any], level: int) -> list[Rates]:
        """The profile of one item of a list to which *node* applies."""
        result: list[Rates] = []
        for key in ITEMS[:3]:  # one of them applies
            value = node.get(key, [])
            for part in value if isinstance(value, list) else [value]:
                result = _higher(result, self.profile(part, level))
        return self.added(result, node, ITEMS[3:], level)

    def properties(self, node: dict[str, Any], level: int) -> list[Rates]:
        """The profile of one property of an object to which *node* applies."""
        result: list[Rates] = []
        named = node.get("properties")
        if isinstance(named, dict):
            for part in named.values():
                result = _higher(result, self.profile(part, level))
            _add(result, [LOOKED_UP])
        if "additionalProperties" in node:
            result = _higher(result, self.profile(node["additionalProperties"], level))
        patterns = node.get("patternProperties")
        for pattern, part in patterns.items() if isinstance(patterns, dict) else ():
            _add(result, [pattern_rates(pattern)])
            _add(result, self.profile(part, level))
        if "propertyNames" in node:
            _add(result, [KEY])
        return self.added(result, node, PROPERTIES[1:], level)

    def added(
        self, result: list[Rates], node: dict[str, Any], keys: tuple[str, ...], level: int
    ) -> list[Rates]:
        result = list(result)
        for key in keys:
            if key in node:
                _add(result, self.profile(node[key], level))
        return result


def _own(node: dict[str, Any]) -> Rates:
    """What the keywords of *node* cost that hold no subschema."""
    result = NOTHING
    for key, value in node.items():
        match key:
            case "enum" if isinstance(value, list):
                result = result.plus(_compared(value))
            case "const":
                result = result.plus(_compared([value]))
            case "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum":
                result = result.plus(INTEGER if type(value) is int else FRACTION)
            case "multipleOf":
                near = type(value) is int or (type(value) is float and 1 / FAR < abs(value) < FAR)
                result = result.plus(MULTIPLE if near else FAR_MULTIPLE)
            case "uniqueItems":
                result = result.plus(DISTINCT)
            case "pattern":
                result = result.plus(pattern_rates(value))
            case "minLength" | "maxLength":
                result = result.plus(LENGTH)
            case "format":
                result = result.plus(FORMAT if str(value) in QUICK_FORMATS else SLOW_FORMAT)
            case "dependentRequired" | "dependentSchemas" | "dependencies" if isinstance(
                value, dict
            ):
                result = result.plus(Rates(0, len(value)))
    return result


def _compared(options: list[Any]) -> Rates:
    """The cost of ``enum``. Strings only, and small integers only, are looked up in a table."""
    result = NOTHING
    for option in options:
        size = extent(option)
        if type(option) in (list, dict):
            result = result.plus(CONTAINER)
        if size.limbs:
            result = result.plus(FRACTION)
        elif type(option) is int:
            result = result.plus(INTEGER._replace(entry=0))
    if len({type(option) for option in options} - {type(None)}) > 1:
        result = result.plus(Rates(len(options)))
    return result


def _add(profile: list[Rates], other: list[Rates], times: float = 1) -> None:
    profile += [NOTHING] * (len(other) - len(profile))
    for level, rate in enumerate(other):
        profile[level] = profile[level].plus(rate, times)


def _higher(one: list[Rates], other: list[Rates]) -> list[Rates]:
    if len(one) < len(other):
        one, other = other, one
    return [*map(Rates.highest, one, other), *one[len(other) :]]


def _highest(profile: list[Rates]) -> Rates:
    result = NOTHING
    for rate in profile:
        result = result.highest(rate)
    return result
