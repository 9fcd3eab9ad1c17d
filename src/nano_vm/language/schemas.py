"""JSON Schemas: a value in, its first fault out.

No remote reference is followed, no code is generated, patterns run on a linear-time engine. A check
takes bounded time and memory, whatever the schema and the value are: see `schema_cost`.
"""

from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import Callable
from typing import Any

from ..spelling import meant
from ..values import copied, short
from .schema_cost import MAX_CHECK_COST, NOTHING, REFERENCES, Rates, everywhere, extent, rates


def schema_check(schema: dict[str, Any]) -> Callable[[Any], str | None]:
    """A function that gives the first fault of a value by *schema*, or None.

    The validator is built at first use. A value that could take more than `MAX_CHECK_COST` to check
    is refused unchecked.
    """
    validator: Any = None
    limits: Rates = NOTHING

    def check(value: Any) -> str | None:
        nonlocal validator, limits
        if validator is None:
            limits = rates(schema, _in_python)
            validator = _validator(schema)
        size = extent(value)
        cost = limits.cost(size)
        if cost > MAX_CHECK_COST:
            return (
                f"it is too large to be checked by this schema: {size.entries} entries and "
                f"{size.characters} characters, "
                f"{cost / MAX_CHECK_COST:.1f} times of what can be; give less, or a schema with "
                f"fewer alternatives"
            )
        if validator.is_valid(value):
            return None
        explained = (
            cost <= MAX_EXPLAINED_COST and size.entries + size.limbs <= MAX_EXPLAINED_ENTRIES
        )
        return (
            _fault(schema, value)
            if explained
            else "it does not fit the schema; it is too large to find the place"
        )

    return check


def schema_fault(schema: dict[str, Any]) -> str | None:
    """What is wrong with *schema* itself, or None."""
    try:
        rates(schema, _in_python)
        _validator(schema)
    except ValueError as error:
        return str(error).split("\n", 1)[0]
    return None


MAX_PATTERN_BYTES = 256 * 1024
"""Size of a compiled pattern. "Linear" has a constant: at 1 MB a pattern was found that takes 32 s
per MB of text, at this limit the slowest takes 24 ms."""

MAX_PATTERNS_BYTES = 64 * 1024 * 1024
"""Size of all compiled patterns of a schema; tables that they fill as they run are four times it.
"""


def _validator(schema: dict[str, Any], own_keywords: dict[str, type] | None = None) -> Any:
    import jsonschema_rs  # 36 ms: only where a schema is used

    _check_drafts(schema, top=True)
    # 2020-12 whatever "$schema" says: a schema that names another draft or host fetches nothing either
    body = {key: copied(value) for key, value in schema.items() if key != "$schema"}
    patterns, in_python = 0, False
    for node in everywhere(body):
        _hold_format(node)
        in_python = in_python or _in_python(node)
        keys = node.get("patternProperties")
        patterns += ("pattern" in node) + (len(keys) if isinstance(keys, dict) else 0)
    size = min(MAX_PATTERN_BYTES, MAX_PATTERNS_BYTES // max(patterns, 1))
    keywords = {**({"uniqueItems": _UniqueItems} if in_python else {}), **(own_keywords or {})}
    try:
        return jsonschema_rs.Draft202012Validator(
            body,
            pattern_options=jsonschema_rs.RegexOptions(size_limit=size, dfa_size_limit=4 * size),
            validate_formats=True,
            formats=_READ_FORMATS if in_python else None,
            ignore_unknown_formats=False,
            keywords=keywords or None,
            mask=_MASK,
            offline=True,
        )
    except jsonschema_rs.ValidationError as error:
        place, kind = _place(error.instance_path), error.kind.name
        message = error.message.replace(_MASK, short(_found(body, error.instance_path)))
        if kind == "format":
            raise ValueError(
                f"{place}: the pattern is malformed, too large, or uses look-around or "
                f"back-references; "
                "write a plain one, or minLength and maxLength"
            ) from None
        if kind == "$ref" or "retrieving" in message or "resource" in message.lower():
            raise ValueError(
                f"a $ref leads out of the schema or nowhere: {message[:200]}"
            ) from None
        raise ValueError(f"{place}: {message[:300]}".removeprefix(": ")) from None


def _in_python(node: dict[str, Any]) -> bool:
    """Whether a keyword of *node* is checked by Python; to the engine, that has its price."""
    return "uniqueItems" in node or str(node.get("format")) in _READ_FORMATS


def _hold_format(node: dict[str, Any]) -> None:
    """Make a number's format a bound, take away one that restricts nothing, refuse others."""
    name = node.get("format")
    if not isinstance(name, str):
        return
    if name in _BITS:
        bound = 1 << _BITS[name] - 1
        node["allOf"] = [*node.get("allOf", ()), {"minimum": -bound, "maximum": bound - 1}]
    if name in _BITS or name in _NOTES:
        del node["format"]
    elif name not in FORMATS and name not in _READ_FORMATS:
        known = [*FORMATS, *_READ_FORMATS, *_BITS, *_NOTES]
        hint = meant(name, known, otherwise="leave it out, or write a pattern")
        raise ValueError(f"the format {short(name)} is not known; {hint}")


NAMED_WORDS = frozenset(
    {"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"}
)  # their keys are names
DATA_WORDS = frozenset({"enum", "const", "default", "examples"})


def _check_drafts(node: Any, *, top: bool = False, names: bool = False) -> None:
    """Refuse a subschema of a draft of its own.

    An older one ignores what stands beside a reference, and knows no ``const``.
    """
    if isinstance(node, list):
        for item in node:
            _check_drafts(item)
    elif isinstance(node, dict):
        if not top and not names and "$schema" in node:
            raise ValueError(
                "a subschema cannot have a '$schema' of its own; all is read as draft 2020-12"
            )
        for key, value in node.items():
            if names or key not in DATA_WORDS:
                _check_drafts(value, names=not names and key in NAMED_WORDS)


FORMATS = (
    "date date-time time duration email idn-email hostname idn-hostname ipv4 ipv6 uri "
    "uri-reference iri "
    "iri-reference uuid uri-template json-pointer relative-json-pointer regex"
).split()
"""Formats of JSON Schema 2020-12, all that there are; the engine holds them."""

_BITS = {"int32": 32, "int64": 64}
"""Formats of OpenAPI for numbers, held as bounds."""

_NOTES = frozenset(
    "password binary byte path file-path directory-path multi-host-uri json-string float "
    "double".split()
)
"""Formats of OpenAPI and pydantic that say what a value is for, and restrict nothing."""


def _read_by(read: Callable[[str], Any]) -> Callable[[str], bool]:
    def holds(text: str) -> bool:
        try:
            read(text)
        except ValueError:
            return False
        return True

    return holds


def _uuid_of(version: int) -> Callable[[str], bool]:
    pattern = re.compile(
        rf"[0-9a-f]{{8}}-[0-9a-f]{{4}}-{version}[0-9a-f]{{3}}-[89ab][0-9a-f]{{3}}-[0-9a-f]{{12}}",
        re.I,
    )
    return lambda text: pattern.fullmatch(text) is not None


_READ_FORMATS: dict[str, Callable[[str], bool]] = {
    **{f"uuid{version}": _uuid_of(version) for version in (1, 3, 4, 5, 6, 7, 8)},
    "ipv4network": _read_by(ipaddress.IPv4Network),
    "ipv6network": _read_by(ipaddress.IPv6Network),
    "ipv4interface": _read_by(ipaddress.IPv4Interface),
    "ipv6interface": _read_by(ipaddress.IPv6Interface),
    "ipvanyaddress": _read_by(ipaddress.ip_address),
    "ipvanynetwork": _read_by(ipaddress.ip_network),
    "ipvanyinterface": _read_by(ipaddress.ip_interface),
    "base64": _read_by(lambda text: base64.b64decode(text, validate=True)),
    "base64url": _read_by(lambda text: base64.b64decode(text, altchars="-_", validate=True)),
}
"""Formats that pydantic writes, held by Python."""


class _UniqueItems:
    """``uniqueItems`` by a table of spellings.

    The engine's own table takes all integers above 2^53 for one: a million would take days.
    """

    def __init__(self, _parent: Any, wanted: Any, _path: Any) -> None:
        self.wanted = wanted is True

    def validate(self, value: Any) -> None:
        if self.wanted and type(value) is list and len(set(map(spelling, value))) < len(value):
            raise ValueError(f"{_MASK} has items that are equal")


def spelling(value: Any, *, loosely: bool = False) -> str:
    """The same text for values that are equal by JSON Schema: 1 and 1.0, any order of keys.

    *loosely*, numbers are equal that are the same float.
    """
    kind = type(value)
    if kind is list:
        return f"[{','.join([spelling(item, loosely=loosely) for item in value])}]"
    if kind is dict:
        return f"{{{','.join([f'{key!r}:{spelling(value[key], loosely=loosely)}' for key in sorted(value)])}}}"
    if loosely and kind in (int, float):
        try:
            return repr(float(value) + 0.0)  # -0.0 is 0
        except OverflowError:
            return repr(value)
    return repr(int(value)) if kind is float and value.is_integer() else repr(value)


MAX_FAULT_CHARS = 500
"""Of a fault's message: it is shown to a model, and kept in the record."""

MAX_REFERENCES_FOLLOWED = 100_000
"""References that the search for a fault follows: unlike the check, it remembers no verdicts."""

MAX_EXPLAINED_COST = 10_000_000
"""Cost of a check whose fault is looked for: references are counted in Python, see `schema_cost`.
"""

MAX_EXPLAINED_ENTRIES = 100_000
"""Entries of a value in which a fault is looked for: the engine copies them, to 1 kB at worst."""

_MASK = "\0value\0"
"""Stands for the value in messages of the engine, which would spell it out, all 16 MB."""

_EITHER = "nano_vm:either"
_FOLLOWED = "nano_vm:followed"


def _fault(schema: dict[str, Any], value: Any) -> str:
    """The message for the first fault of *value*, which is not valid.

    The engine explains a failed ``anyOf`` by all faults of all its branches, each with a copy of
    what it found: gigabytes. So a copy of the schema is asked, in which alternatives stand below a
    double negation: there it looks for no faults.
    """
    import jsonschema_rs

    plain: dict[str, Any] = copied(schema)
    refers = False
    for node in everywhere(plain):
        _hide_alternatives(node)
        if any(key in node for key in REFERENCES):
            node[_FOLLOWED] = refers = True
    try:
        _validator(plain, {_FOLLOWED: _follower()} if refers else None).validate(value)
    except jsonschema_rs.ValidationError as error:
        if error.kind.name != _FOLLOWED:
            return _message(error, plain, value)
    except ValueError:
        pass  # a reference into what was moved
    return "it does not fit the schema"


def _follower() -> type:
    """A keyword that fails when it was met too often."""
    followed = 0

    class Followed:
        def __init__(self, *_: Any) -> None: ...

        def validate(self, _value: Any) -> None:
            nonlocal followed
            followed += 1
            if followed > MAX_REFERENCES_FOLLOWED:
                raise ValueError("too many references")

    return Followed


def _hide_alternatives(node: dict[str, Any]) -> None:
    """Put the alternatives in *node* under double negations."""
    for key in ("anyOf", "oneOf"):
        if key in node:
            hidden = {"not": {"not": {key: node.pop(key)}}, _EITHER: key}
            node["allOf"] = [*node.get("allOf", ()), hidden]


def _message(error: Any, schema: dict[str, Any], value: Any) -> str:
    at: Any = schema
    for part in error.schema_path[:-1]:
        at = at[part] if isinstance(at, list) else at.get(part, {})
    value = _found(value, error.instance_path)
    alternatives = at.get(_EITHER) if isinstance(at, dict) else None
    said = f"{_MASK} does not fit what {alternatives!r} allows" if alternatives else error.message
    text = f"{_place(error.instance_path)}: {said.replace(_MASK, short(value))}".removeprefix(": ")
    return text if len(text) <= MAX_FAULT_CHARS else text[: MAX_FAULT_CHARS - 3] + "..."


def _found(value: Any, path: Any) -> Any:
    for part in path:
        value = value[part]
    return value


def _place(path: Any) -> str:
    return "".join(f"[{short(part)}]" for part in path)
