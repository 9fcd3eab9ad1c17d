"""JSON Schemas: a value in, its first fault out.

No remote reference is followed, no code is generated, patterns run on a linear-time engine.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .values import short


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


def _check_cost(schema: dict[str, Any]) -> None:
    """Refuse a schema whose references unfold to more than `MAX_SCHEMA_COST` subschemas; a cyclic one counts once round."""
    costs: dict[str, int] = {}

    def target(reference: str) -> Any:
        at: Any = schema
        for part in reference[1:].split("/")[1:]:
            part = part.replace("~1", "/").replace("~0", "~")
            at = at[int(part)] if isinstance(at, list) else at[part]
        return at

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
                try:
                    costs[reference] = cost(target(reference))
                except (KeyError, IndexError, ValueError, TypeError):
                    pass  # the validator says that it leads nowhere
            total += costs[reference]
        if total > MAX_SCHEMA_COST:
            raise ValueError(f"its references unfold to more than {MAX_SCHEMA_COST} subschemas")
        return total

    cost(schema)
