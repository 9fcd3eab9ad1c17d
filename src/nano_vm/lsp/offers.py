"""What the language offers: the fields of each type of step with what they mean, and their words.

All of it is read off the JSON Schema of the language, so that it says what the language says.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from ..language.kinds import TYPES
from ..language.policy_schema import POLICY_SCHEMA
from ..language.program import ERROR_KINDS, Program

ABSENT: dict[str, Any] = {"enum": [None, {}, []]}
"""The schema of a field of another type, which may only stand there empty."""

ERRORS = (*ERROR_KINDS, "*")

JSON_TYPES = ("string", "integer", "number", "boolean", "array", "object", "null")

SCHEMA_FIELDS = {
    "type": "What a value is: " + ", ".join(JSON_TYPES) + ".",
    "properties": "The fields of an object, by name.",
    "required": "Names of fields that must be there.",
    "additionalProperties": "Whether other fields may be there.",
    "items": "What the items of a list are.",
    "enum": "The only values.",
    "const": "The only value.",
    "minimum": "The smallest number.",
    "maximum": "The largest number.",
    "minLength": "The fewest characters.",
    "maxLength": "The most characters; it bounds the worst case.",
    "minItems": "The fewest items.",
    "maxItems": "The most items; it bounds the worst case.",
    "pattern": "A regular expression that matches.",
    "format": "date, date-time, email, uri, ...",
    "default": "Taken where it is not given.",
    "description": "For readers.",
}
"""Fields of a JSON Schema that are offered in `inputs` and `output_schema`."""


@cache
def schema() -> dict[str, Any]:
    """The JSON Schema of the language."""
    return Program.json_schema()


@cache
def _steps() -> dict[str, dict[str, Any]]:
    """By type of step, the schema of its fields."""
    found = {}
    for part in schema()["$defs"].values():
        kind = _constant(part.get("properties", {}).get("type", {}))
        if kind in TYPES:
            found[kind] = part
    return found


def _constant(kind: dict[str, Any]) -> str | None:
    for one in (kind, *kind.get("anyOf", ())):
        if "const" in one:
            return str(one["const"])
    return None


@cache
def step_fields(kind: str | None) -> dict[str, str]:
    """The fields of a type of step with what they mean, those that it needs first; of all types
    where *kind* is none of them.
    """
    if kind not in _steps():
        found: dict[str, str] = {}
        for one in TYPES:
            found |= step_fields(one)
        return found
    part = _steps()[kind]
    needed = ["id", "type", *part.get("required", ())]
    names = {name: None for name in needed if name in part["properties"]} | {
        name: None for name in part["properties"] if part["properties"][name] != ABSENT
    }
    return {name: _said(part["properties"][name]) for name in names}


def needed(kind: str | None) -> list[str]:
    """The fields that a type of step cannot be without."""
    return list(_steps()[kind].get("required", ())) if kind in _steps() else []


@cache
def part_fields(name: str) -> dict[str, str]:
    """The fields of another part of a program: ``Program``, ``Budget``, ``Retry``, ``Catch``, ..."""
    return {
        field: _said(kind) for field, kind in schema()["$defs"][name].get("properties", {}).items()
    }


def step_text(kind: str) -> str:
    """What a type of step does."""
    return str(_steps()[kind].get("description", "")).partition("\n\n")[0]


@cache
def words(kind: str | None, field: str) -> tuple[str, ...]:
    """The words that a field of a step takes, where it takes only these."""
    for one in (kind,) if kind in _steps() else TYPES:
        properties = _steps()[one or ""]["properties"]
        if field in properties and properties[field] != ABSENT:
            found = tuple(_words(properties[field]))
            if found:
                return found
    return ()


def _policy_at(path: tuple[str, ...]) -> list[dict[str, Any]]:
    """The schemas of what may stand at *path* in a policy, also of one that declares no labels."""
    found = [POLICY_SCHEMA, POLICY_SCHEMA["then"]]
    for part in path:
        found = [below for kind in found for below in _below(kind, part)]
    return found


def _below(kind: dict[str, Any], part: str) -> Iterator[dict[str, Any]]:
    """The schemas of a field, or of an item, of what a schema allows."""
    if part == "-":
        found = kind.get("items")
    else:
        found = kind.get("properties", {}).get(part, kind.get("additionalProperties"))
    if isinstance(found, dict):  # else anything, or nothing
        yield from _ways(found)


def _ways(kind: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Each schema that a value may follow."""
    yield kind
    for one in kind.get("anyOf", ()):
        yield from _ways(one)


def policy_fields(path: tuple[str, ...]) -> dict[str, str]:
    """The fields of a part of a policy."""
    found: dict[str, str] = {}
    for part in _policy_at(path):
        for name, kind in part.get("properties", {}).items():
            found[name] = found.get(name) or (_said(kind) if isinstance(kind, dict) else "")
    return found


def policy_words(path: tuple[str, ...]) -> list[str]:
    """The words that stand for a value of a policy."""
    return list(dict.fromkeys(word for kind in _policy_at(path) for word in _words(kind)))


def _words(kind: dict[str, Any]) -> list[str]:
    found = [word for word in kind.get("enum", ()) if isinstance(word, str)]
    if kind.get("type") == "boolean":
        found += ["true", "false"]
    if "$ref" in kind:
        found += _words(schema()["$defs"].get(kind["$ref"].rpartition("/")[2], {}))
    for one in kind.get("anyOf", ()):
        found += _words(one)
    return list(dict.fromkeys(found))


def _said(kind: dict[str, Any]) -> str:
    if "description" in kind:
        return str(kind["description"])
    reference = kind.get("$ref", "")
    if reference:
        at: Any = schema()
        for part in reference.removeprefix("#/").split("/"):
            at = at.get(part, {})
        return str(at.get("description", ""))
    return ""
