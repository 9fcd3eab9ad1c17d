"""Domains: what values a name can hold, as a set that is never too small.

Schemas, type hints and literals come in; a `Domain` goes out: all its values where they are few,
else the kinds of value, the fields of its objects and the items of its lists. What is not
understood is `ANYTHING`. Nothing is ever guessed: a domain may hold values that never come about,
and never lacks one that can.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

from pydantic import BaseModel

from ...errors import ExprError, VMError
from ...language.operators import equal, index, is_number, number_in
from ...values import admit, canonical, short

NULL, BOOL, NUMBER, TEXT, LIST, OBJECT = (1 << i for i in range(6))
ALL_KINDS = NULL | BOOL | NUMBER | TEXT | LIST | OBJECT

MAX_VALUES = 64
"""Values that a domain lists one by one; the longest enum of the example programs has nine. More
are a kind of value.
"""

MAX_DEPTH = 12
"""Levels of schemas and hints that are followed; what lies deeper is anything, and so is a part of
itself.
"""

MAX_EXACT = 1 << 53
"""Up to here a whole number and its float are the same number to every reader of a schema."""

_KIND_OF = {
    type(None): NULL,
    bool: BOOL,
    int: NUMBER,
    float: NUMBER,
    str: TEXT,
    list: LIST,
    dict: OBJECT,
}
_WORDS = {
    NULL: "null",
    BOOL: "true or false",
    NUMBER: "a number",
    TEXT: "a string",
    LIST: "a list",
    OBJECT: "an object",
}


@dataclass(slots=True, eq=False)
class Domain:
    """A set of values. ``values``, where it is there, lists all of them; ``absent`` says that there
    may be none at all.
    """

    kinds: int
    values: dict[Any, Any] | None = None  # by `identity`
    fields: Mapping[str, Domain] | None = None  # of the objects in it, where they are known
    closed: bool = False  # whether its objects have no other fields
    items: Domain | None = None  # of the lists in it
    absent: bool = False

    @property
    def empty(self) -> bool:
        """Whether no value is in it."""
        return not self.kinds

    def __str__(self) -> str:
        return described(self)


ANYTHING = Domain(ALL_KINDS)
NOTHING = Domain(0, {})
A_TEXT, A_NUMBER, A_LIST, AN_OBJECT = Domain(TEXT), Domain(NUMBER), Domain(LIST), Domain(OBJECT)


def identity(value: Any) -> Any:
    """A key that tells values apart by type too: 1 is not 1.0 and not true, 0.0 is not -0.0."""
    kind = type(value)
    return canonical(value) if kind is float or kind is list or kind is dict else (kind, value)


def of_values(values: Iterable[Any], absent: bool = False) -> Domain:
    """The domain of just these values, or of their kinds where they are many."""
    listed = {identity(value): value for value in values}
    kinds = 0
    for value in listed.values():
        kinds |= _KIND_OF[type(value)]
    found = Domain(kinds, listed, absent=absent)
    return found if len(listed) <= MAX_VALUES else spread(found)


def of_kinds(kinds: int) -> Domain:
    """All values of these kinds."""
    if kinds & ~(NULL | BOOL):
        return Domain(kinds)
    return of_values([*([None] if kinds & NULL else []), *([True, False] if kinds & BOOL else [])])


THE_NULL, A_BOOL = of_kinds(NULL), of_kinds(BOOL)


def lacking(domain: Domain, absent: bool = True) -> Domain:
    """*domain* with *absent* as given."""
    if domain.absent == absent:
        return domain
    return Domain(domain.kinds, domain.values, domain.fields, domain.closed, domain.items, absent)


def spread(domain: Domain) -> Domain:
    """*domain* without a list of its values: their kinds, fields and items."""
    if domain.values is None:
        return domain
    fields: dict[str, Domain] | None = None
    items: Domain | None = None
    for value in domain.values.values():
        if type(value) is dict:
            own = {name: of_values([part]) for name, part in value.items()}
            fields = own if fields is None else _joined_fields(fields, True, own, True)
        elif type(value) is list:
            inner = of_values(value)
            items = inner if items is None else join(items, inner)
    return Domain(domain.kinds, None, fields, fields is not None, items, domain.absent)


def join(a: Domain, b: Domain) -> Domain:
    """A domain that holds both."""
    if a is b:
        return a
    absent = a.absent or b.absent
    if a.values is not None and b.values is not None:
        if len(b.values) <= len(a.values) and b.values.keys() <= a.values.keys():
            return lacking(a, absent)
        merged = a.values | b.values
        both = Domain(a.kinds | b.kinds, merged, absent=absent)
        return both if len(merged) <= MAX_VALUES else spread(both)
    a, b = spread(a), spread(b)
    if not a.kinds & OBJECT:
        fields, closed = b.fields, b.closed
    elif not b.kinds & OBJECT:
        fields, closed = a.fields, a.closed
    elif a.fields is None or b.fields is None:
        fields, closed = None, False
    else:
        fields, closed = (
            _joined_fields(a.fields, a.closed, b.fields, b.closed),
            a.closed and b.closed,
        )
    if not a.kinds & LIST:
        items = b.items
    elif not b.kinds & LIST:
        items = a.items
    else:
        items = join(a.items, b.items) if a.items is not None and b.items is not None else None
    return Domain(a.kinds | b.kinds, None, fields, closed, items, absent)


def _joined_fields(
    a: Mapping[str, Domain], a_closed: bool, b: Mapping[str, Domain], b_closed: bool
) -> dict[str, Domain]:
    result = {}
    for name in dict.fromkeys([*a, *b]):
        if name in a and name in b:
            result[name] = join(a[name], b[name])
        elif b_closed if name in a else a_closed:  # the others surely lack it
            result[name] = lacking(a[name] if name in a else b[name])
        else:
            result[name] = lacking(ANYTHING)
    return result


def joined(domains: Iterable[Domain]) -> Domain:
    """A domain that holds all of *domains*."""
    return functools.reduce(join, domains, NOTHING)


def same(a: Domain | None, b: Domain | None) -> bool:
    """Whether two domains say the same."""
    if a is b:
        return True
    if a is None or b is None or a.kinds != b.kinds or a.absent != b.absent or a.closed != b.closed:
        return False
    if (a.values is None) != (b.values is None) or (a.fields is None) != (b.fields is None):
        return False
    if a.values is not None and b.values is not None and a.values.keys() != b.values.keys():
        return False
    if a.fields is not None and b.fields is not None:
        if a.fields.keys() != b.fields.keys() or not all(
            same(a.fields[name], b.fields[name]) for name in a.fields
        ):
            return False
    return same(a.items, b.items)


def descend(domain: Domain, path: tuple[str | int, ...]) -> Domain:
    """What ``.a[0]`` gives of *domain*; ``absent`` where that may be an error."""
    for part in path:
        absent = domain.absent
        if domain.values is not None:
            found = []
            for value in domain.values.values():
                try:
                    found.append(index(value, part))
                except ExprError:
                    absent = True
            domain = of_values(found, absent)
            continue
        kinds = domain.kinds
        result = NOTHING
        if type(part) is str:
            absent = absent or bool(kinds & ~OBJECT)
            if kinds & OBJECT:
                known = domain.fields.get(part) if domain.fields is not None else None
                result = known if known is not None else NOTHING if domain.closed else ANYTHING
                absent = absent or known is None
        else:
            absent = True  # there may be fewer items
            if kinds & LIST:
                result = domain.items if domain.items is not None else ANYTHING
            if kinds & TEXT:
                result = join(result, A_TEXT)
        domain = lacking(result, absent or result.absent)
    return domain


def described(domain: Domain) -> str:
    """A domain in a message: ``one of 'yes', 'no'``, ``a number or null``."""
    if domain.values is not None:
        shown = [shown_value(value) for value in domain.values.values()]
        if len(shown) > 8:
            shown = [*shown[:7], f"... ({len(shown)} values)"]
        if not shown:
            return "nothing"
        return shown[0] if len(shown) == 1 else f"one of {', '.join(shown)}"
    if domain.kinds == ALL_KINDS:
        return "anything"
    words = [word for kind, word in _WORDS.items() if domain.kinds & kind and kind != NULL]
    if domain.kinds & LIST and domain.items is not None and domain.items.values:
        each = described(domain.items)
        words[words.index(_WORDS[LIST])] = (
            f"a list of {each}" if each.startswith("one of ") else f"a list of only {each}"
        )
    return " or ".join([*words, "null"] if domain.kinds & NULL else words)


def shown_value(value: Any) -> str:
    """A JSON value in a message, as a program spells it."""
    if value is None or type(value) is bool:
        return {None: "null", True: "true", False: "false"}[value]
    return short(value)


# --- by JSON Schema -------------------------------------------------------------------------------


_SCHEMA_KINDS = {
    "null": NULL,
    "boolean": BOOL,
    "number": NUMBER,
    "integer": NUMBER,
    "string": TEXT,
    "array": LIST,
    "object": OBJECT,
}


def of_schema(schema: Any) -> Domain:
    """The values that are valid by *schema*; keywords that it does not know only leave values
    in.
    """
    return _Schema(schema).domain(schema, 0, True)


class _Schema:
    def __init__(self, root: Any) -> None:
        self.root = root
        # of parts that a reference names, by identity; anything while it is at work
        self.named: dict[int, Domain] = {}

    def domain(self, schema: Any, depth: int, based: bool) -> Domain:
        """*based* is whether ``#/...`` means the root's parts here: below an ``$id`` it does
        not.
        """
        if schema is False:
            return NOTHING
        if not isinstance(schema, dict) or depth > MAX_DEPTH:
            return ANYTHING
        based = based and (depth == 0 or "$id" not in schema)
        if "const" in schema:
            return _listed([schema["const"]])
        if isinstance(schema.get("enum"), list):
            return _listed(schema["enum"])
        for keyword in ("anyOf", "oneOf"):
            if (
                isinstance(schema.get(keyword), list)
                and "type" not in schema
                and "properties" not in schema
            ):
                return joined([self.domain(part, depth + 1, based) for part in schema[keyword]])
        if "$ref" in schema and "type" not in schema and "properties" not in schema:
            found = self.referred(schema["$ref"]) if based else None
            if found is None:
                return ANYTHING
            if id(found) not in self.named:
                self.named[id(found)] = ANYTHING
                self.named[id(found)] = self.domain(found, depth + 1, based)
            return self.named[id(found)]
        kind = schema.get("type")
        names = (
            kind
            if isinstance(kind, list)
            else [kind]
            if isinstance(kind, str)
            else list(_SCHEMA_KINDS)
        )
        kinds = 0
        for name in names:
            kinds |= _SCHEMA_KINDS.get(name, ALL_KINDS) if isinstance(name, str) else ALL_KINDS
        if not kinds & (OBJECT | LIST):
            return of_kinds(kinds)
        fields, closed = None, False
        properties = schema.get("properties")
        if kinds & OBJECT and (
            isinstance(properties, dict) or schema.get("additionalProperties") is False
        ):
            required = schema.get("required")
            needed = (
                {name for name in required if isinstance(name, str)}
                if isinstance(required, list)
                else set()
            )
            fields = {}
            for name, part in (properties or {}).items():
                inner = self.domain(part, depth + 1, based)
                fields[name] = inner if name in needed else lacking(inner)
            closed = (
                schema.get("additionalProperties") is False and "patternProperties" not in schema
            )
            if not closed:
                for name in needed:
                    fields.setdefault(name, ANYTHING)
        items = None
        if kinds & LIST and "items" in schema and "prefixItems" not in schema:
            items = self.domain(schema["items"], depth + 1, based)
        return Domain(kinds, None, fields, closed, items)

    def referred(self, reference: Any) -> Any:
        """The part of the root that a local reference names; None for any other."""
        if reference == "#":
            return self.root
        if not isinstance(reference, str) or not reference.startswith("#/"):
            return None
        at: Any = self.root
        for part in reference[2:].split("/"):
            if not isinstance(at, dict) or "%" in part:
                return None
            if at is not self.root and "$id" in at:
                return None
            at = at.get(part.replace("~1", "/").replace("~0", "~"))
        return at


def _listed(members: list[Any]) -> Domain:
    """Members of an enum. By JSON Schema 1 and 1.0 are the same number, so the other spelling is
    valid too.
    """
    values: list[Any] = []
    for member in members:
        if is_number(member):
            if not -MAX_EXACT < member < MAX_EXACT:
                return _by_kind(members)
            values.append(member)
            if member == int(member):
                values += [int(member), float(member)]
            if member == 0:
                values.append(-0.0)
        elif type(member) in (list, dict):
            return _by_kind(members)
        else:
            values.append(member)
    return of_values(values)


def _by_kind(members: list[Any]) -> Domain:
    kinds = 0
    for member in members:
        kinds |= _KIND_OF[type(member)]
    return of_kinds(kinds)


# --- by type hint ---------------------------------------------------------------------------------


_PLAIN_HINTS: dict[Any, Domain] = {
    None: THE_NULL,
    type(None): THE_NULL,
    bool: A_BOOL,
    int: A_NUMBER,
    float: A_NUMBER,
    Decimal: A_NUMBER,
    str: A_TEXT,
    datetime: A_TEXT,
    date: A_TEXT,
    time: A_TEXT,
    list: A_LIST,
    tuple: A_LIST,
    dict: AN_OBJECT,
}


def of_hint(hint: Any) -> Domain:
    """The plain values of a type hint; a hint that it does not know is anything."""
    return _Hints().domain(hint, 0)


class _Hints:
    def __init__(self) -> None:
        # anything while it is at work: a class may hold itself
        self.classes: dict[type, Domain] = {}

    def domain(self, hint: Any, depth: int) -> Domain:
        try:
            plain = _PLAIN_HINTS.get(hint)
        except TypeError:
            return ANYTHING
        if plain is not None:
            return plain
        if depth > MAX_DEPTH:
            return ANYTHING
        depth += 1
        origin, args = typing.get_origin(hint), typing.get_args(hint)
        if origin is typing.Annotated or origin in (typing.Required, typing.NotRequired):
            return self.domain(args[0], depth)
        if origin is typing.Literal:
            return _plain_values(args)
        if origin in (typing.Union, types.UnionType):
            return joined(self.domain(arg, depth) for arg in args)
        if origin is list and len(args) == 1:
            return Domain(LIST, items=self.domain(args[0], depth))
        if origin is tuple and args:
            return Domain(
                LIST, items=joined(self.domain(arg, depth) for arg in args if arg is not Ellipsis)
            )
        if origin is dict:
            return AN_OBJECT
        if isinstance(hint, typing.NewType):
            return self.domain(hint.__supertype__, depth)
        if isinstance(hint, type) and origin is None:
            if hint not in self.classes:
                self.classes[hint] = ANYTHING
                self.classes[hint] = self.of_class(hint, depth)
            return self.classes[hint]
        return ANYTHING

    def of_class(self, kind: type, depth: int) -> Domain:
        if issubclass(kind, enum.Enum):
            return _plain_values(kind)
        try:
            hints = typing.get_type_hints(kind, include_extras=True)
        except Exception:  # noqa: BLE001 - an annotation may raise anything
            return ANYTHING
        if typing.is_typeddict(kind):
            needed: Iterable[str] = getattr(kind, "__required_keys__", ())
            return self.record(
                {name: (hint, name in needed) for name, hint in hints.items()}, depth
            )
        if issubclass(kind, BaseModel):
            decorators = kind.__pydantic_decorators__
            if (
                kind.model_dump is not BaseModel.model_dump
                or kind.__pydantic_root_model__
                or decorators.model_serializers
                or decorators.field_serializers
            ):
                return ANYTHING
            if kind.model_computed_fields or kind.model_config.get("extra") == "allow":
                return AN_OBJECT
            fields = {
                name: (field.annotation, not field.exclude)
                for name, field in kind.model_fields.items()
            }
            return self.record(fields, depth)
        if dataclasses.is_dataclass(kind):
            return self.record(
                {f.name: (hints.get(f.name, Any), True) for f in dataclasses.fields(kind)}, depth
            )
        return ANYTHING

    def record(self, hints: Mapping[str, tuple[Any, bool]], depth: int) -> Domain:
        fields = {}
        for name, (hint, always) in hints.items():
            found = self.domain(hint, depth)
            fields[name] = found if always else lacking(found)
        return Domain(OBJECT, None, fields, True)


def _plain_values(values: Iterable[Any]) -> Domain:
    try:
        return of_values([admit(value)[0] for value in values])
    except VMError:
        return ANYTHING


# --- comparisons of kinds -------------------------------------------------------------------------

YES, NO, FAILS = 1, 2, 4
"""What a test can be: true, false, an error."""


def may_equal(a: Domain, b: Domain) -> bool:
    """Whether a value of *a* can equal one of *b*, going by kinds where the values are not all
    known.
    """
    if a.values is not None and b.values is not None:
        return any(equal(x, y) for x in a.values.values() for y in b.values.values())
    if a.values is not None:
        a, b = b, a
    if b.values is not None:
        return any(_may_equal_value(a, value) for value in b.values.values())
    numeric = NUMBER | TEXT
    return bool(a.kinds & b.kinds) or bool(a.kinds & numeric and b.kinds & numeric)


def _may_equal_value(domain: Domain, value: Any) -> bool:
    kind = _KIND_OF[type(value)]
    if domain.kinds & kind:
        return True
    if kind == TEXT:
        return bool(domain.kinds & NUMBER) and number_in(value) is not None
    return kind == NUMBER and bool(domain.kinds & TEXT)


def compared(op: str, a: Domain, b: Domain) -> int:
    """What ``a op b`` can give; at least one of the two is not known by its values."""
    if a.empty or b.empty:
        return FAILS
    match op:
        case "==":
            return YES | NO if may_equal(a, b) else NO
        case "!=":
            return YES | NO if may_equal(a, b) else YES
        case "in" | "not in":
            return _contained(a, b, op)
    result = 0
    if may_order(a, b):
        result |= YES | NO
    if (a.kinds | b.kinds) != TEXT and (a.kinds | b.kinds) != NUMBER:
        result |= FAILS
    return result


def may_order(a: Domain, b: Domain) -> bool:
    """Whether ``<`` between some value of each is no error."""
    if a.kinds & NUMBER and b.kinds & NUMBER:
        return True
    if a.kinds & TEXT and b.kinds & TEXT:
        return True
    return (
        (a.kinds & NUMBER and _numeric_text(b)) or (b.kinds & NUMBER and _numeric_text(a)) or False
    )


def _numeric_text(domain: Domain) -> bool:
    if domain.values is None:
        return bool(domain.kinds & TEXT)
    return any(
        type(value) is str and number_in(value) is not None for value in domain.values.values()
    )


def _contained(item: Domain, box: Domain, op: str) -> int:
    found, lacking = (YES, NO) if op == "in" else (NO, YES)
    result = 0
    if box.kinds & LIST:
        lists = (
            [value for value in box.values.values() if type(value) is list]
            if box.values is not None
            else None
        )
        members = (
            of_values([part for each in lists for part in each]) if lists is not None else box.items
        )
        result |= lacking
        if members is None or may_equal(item, members):
            result |= found
    if box.kinds & (TEXT | OBJECT):
        if item.kinds & TEXT:
            result |= found | lacking
        if item.kinds != TEXT:
            result |= FAILS
    if box.kinds & ~(LIST | TEXT | OBJECT):
        result |= FAILS
    return result
