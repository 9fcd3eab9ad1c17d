"""JSON Schemas: a value in, its first fault out.

No remote reference is followed, no code is generated, patterns run on a linear-time engine.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .values import copied, short


def schema_check(schema: dict[str, Any]) -> Callable[[Any], str | None]:
    """A function that gives the first fault of a value by *schema*, or None; the validator is built at first use."""
    validator: Any = None

    def check(value: Any) -> str | None:
        nonlocal validator
        if validator is None:
            validator = _validator(schema)
        for error in validator.iter_errors(value):
            place = "".join(f"[{part!r}]" for part in error.instance_path)
            return (
                f"{place}: {error.message}".lstrip(": ")
                if len(error.message) < 500
                else f"{place} does not fit the schema"
            )
        return None

    return check


def schema_fault(schema: dict[str, Any]) -> str | None:
    """What is wrong with *schema* itself, or None."""
    try:
        _validator(schema)
    except ValueError as error:
        return str(error).split("\n", 1)[0]
    return None


def literals_of(schema: dict[str, Any]) -> Callable[[Any], Any] | None:
    """A function that puts the members of *schema*'s enums and consts in place of what a valid value spells otherwise: 1 for
    1.0, an object's keys in the member's order. None where equal values are spelled alike anyway.

    What an enum allows are its members, and a program may treat such a value as its own text. So no other spelling gets in.
    """
    if not _spelled_in_many_ways(schema, names=False):
        return None
    rebased = _has_id(schema)

    def settled(node: Any, value: Any, hops: int) -> Any:
        if type(node) is not dict or type(value) in _SPELLED_ALIKE or hops <= 0:
            return value
        for members in ([node["const"]] if "const" in node else (), node.get("enum", ())):
            value = next((copied(member) for member in members if _equal(member, value)), value)
        within = [_target(schema, node["$ref"])] if type(node.get("$ref")) is str and not rebased else []
        for word in ("allOf", "anyOf", "oneOf"):
            within += node.get(word, ())
        for inner in within:
            value = settled(inner, value, hops - 1)
        if type(value) is dict:
            fields, other = node.get("properties", {}), node.get("additionalProperties")
            return {key: settled(fields.get(key, other), item, MAX_HOPS) for key, item in value.items()}
        if type(value) is list:
            first, other = node.get("prefixItems", ()), node.get("items")
            return [settled(first[i] if i < len(first) else other, item, MAX_HOPS) for i, item in enumerate(value)]
        return value

    return lambda value: settled(schema, value, MAX_HOPS)


MAX_HOPS = 64
"""References and alternatives followed at one place; a hand-written schema has a handful, and a cyclic one no end."""

_SPELLED_ALIKE = frozenset({str, bool, type(None)})


def _spelled_in_many_ways(node: Any, *, names: bool) -> bool:
    """Whether an enum or const in *node* has a member that equal values can spell otherwise: a number, a list, an object."""
    if type(node) is list:
        return any(_spelled_in_many_ways(item, names=False) for item in node)
    if type(node) is not dict:
        return False
    members = [] if names else [node["const"]] if "const" in node else node.get("enum", [])
    return any(type(member) not in _SPELLED_ALIKE for member in members) or any(
        _spelled_in_many_ways(value, names=not names and key in _NAMED)
        for key, value in node.items()
        if names or key not in _DATA
    )


def _has_id(node: Any) -> bool:
    """Whether an ``$id`` anywhere gives references another meaning."""
    if type(node) is dict:
        return "$id" in node or any(map(_has_id, node.values()))
    return type(node) is list and any(map(_has_id, node))


def _equal(a: Any, b: Any) -> bool:
    """Equal as JSON Schema has it; numbers at least as loosely as any validator."""
    ta, tb = type(a), type(b)
    if ta is dict and tb is dict:
        return len(a) == len(b) and all(key in b and _equal(value, b[key]) for key, value in a.items())
    if ta is list and tb is list:
        return len(a) == len(b) and all(map(_equal, a, b))
    if ta in (int, float) and tb in (int, float):
        try:
            return a == b or float(a) == float(b)
        except OverflowError:
            return False
    return bool(ta is tb and a == b)


MAX_PATTERN_BYTES = 256 * 1024
"""Size of a compiled pattern. "Linear" has a constant: at 1 MB a pattern was found that takes 32 s per MB of text, at this
limit the slowest takes 24 ms."""

MAX_SCHEMA_COST = 100_000
"""Subschemas of a schema with its references unfolded: doubling references reach 2^24 in a page of text."""


def _validator(schema: dict[str, Any]) -> Any:
    import jsonschema_rs  # 36 ms: only where a schema is used

    _check_drafts(schema, top=True)
    _check_cost(schema)
    patterns = jsonschema_rs.RegexOptions(size_limit=MAX_PATTERN_BYTES, dfa_size_limit=4 * MAX_PATTERN_BYTES)
    # 2020-12 whatever "$schema" says: a schema that names another draft or host fetches nothing either
    body = {key: value for key, value in schema.items() if key != "$schema"}
    try:
        return jsonschema_rs.Draft202012Validator(body, pattern_options=patterns, offline=True)
    except jsonschema_rs.ValidationError as error:
        place = "".join(f"[{part!r}]" for part in error.instance_path)
        kind = error.kind.name
        if kind == "format":
            raise ValueError(
                f"{place}: the pattern is malformed, too large, or uses look-around or back-references; "
                "write a plain one, or minLength and maxLength"
            ) from None
        if kind == "$ref" or "retrieving" in error.message or "resource" in error.message.lower():
            raise ValueError(f"a $ref leads out of the schema or nowhere: {short(error.message, 200)}") from None
        raise ValueError(f"{place}: {short(error.message, 300)}".lstrip(": ")) from None


_NAMED = frozenset(
    {"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"}
)  # their keys are names
_DATA = frozenset({"enum", "const", "default", "examples"})


def _check_drafts(node: Any, *, top: bool = False, names: bool = False) -> None:
    """Refuse a subschema of a draft of its own: an older one ignores what stands beside a reference, and knows no ``const``."""
    if isinstance(node, list):
        for item in node:
            _check_drafts(item)
    elif isinstance(node, dict):
        if not top and not names and "$schema" in node:
            raise ValueError("a subschema can not have a '$schema' of its own; all is read as draft 2020-12")
        for key, value in node.items():
            if names or key not in _DATA:
                _check_drafts(value, names=not names and key in _NAMED)


def _target(schema: Any, reference: str) -> Any:
    """What a reference within *schema* leads to; None where it leads nowhere, which the validator says."""
    if reference != "#" and not reference.startswith("#/"):
        return None
    at = schema
    try:
        for part in reference[1:].split("/")[1:]:
            part = part.replace("~1", "/").replace("~0", "~")
            at = at[int(part)] if isinstance(at, list) else at[part]
    except (KeyError, IndexError, ValueError, TypeError):
        return None
    return at


def _check_cost(schema: dict[str, Any]) -> None:
    """Refuse a schema whose references unfold to more than `MAX_SCHEMA_COST` subschemas; a cyclic one counts once round."""
    costs: dict[str, int] = {}

    def cost(node: Any) -> int:
        if isinstance(node, list):
            return sum(map(cost, node))
        if not isinstance(node, dict):
            return 0
        total = 1 + sum(cost(value) for value in node.values())
        reference = node.get("$ref")
        if isinstance(reference, str) and reference.startswith("#"):
            if reference not in costs:
                costs[reference] = 0
                costs[reference] = cost(_target(schema, reference))
            total += costs[reference]
        if total > MAX_SCHEMA_COST:
            raise ValueError(f"its references unfold to more than {MAX_SCHEMA_COST} subschemas")
        return total

    cost(schema)
