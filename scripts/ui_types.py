"""Writes the types that the pages read, ``ui/src/api/types.ts``, from the API's OpenAPI document.

A schema that this cannot say in TypeScript stops it: a page is not given a type that is wrong.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "src/nano_vm/server/openapi.json"
TYPES = ROOT / "ui/src/api/types.ts"

HEAD = (
    "// Written by scripts/ui_types.py from the API's OpenAPI document: change shapes in Python.\n"
)

COLUMNS = 100  # where the formatter of the pages breaks a line

_PLAIN = {
    "string": "string",
    "integer": "number",
    "number": "number",
    "boolean": "boolean",
    "null": "null",
}

_ABOUT = {"title", "description", "default"}

_CHECKED = {
    "maxLength",
    "minLength",
    "pattern",
    "minimum",
    "maximum",
    "exclusiveMaximum",
    "minItems",
    "maxItems",
    "maxProperties",
    "propertyNames",
}
"""What a server holds a value against, and a type does not say."""


def types_of(document: Mapping[str, Any]) -> str:
    """The schemas of an OpenAPI *document*, in TypeScript, as its formatter would leave it.

    Raises:
        ValueError: If one of them says what is not known here.
    """
    schemas = document["components"]["schemas"]
    return "\n".join([HEAD, *(_interface(name, schemas[name]) for name in sorted(schemas))])


def _interface(name: str, schema: Mapping[str, Any]) -> str:
    where = f"schema {name}"
    _only(schema, {"type", "properties", "required"}, where)
    required = schema.get("required", ())
    lines = [*_comment(schema.get("description")), f"export interface {name} {{"]
    for field, kind in schema["properties"].items():
        mark = "" if field in required else "?"
        lines += [f"  {line}" for line in _comment(kind.get("description"))]
        lines += _field(f"{field}{mark}:", _choices(kind, f"{where}, field {field}"))
    return "\n".join([*lines, "}", ""])


def _comment(text: str | None) -> Iterator[str]:
    if text is None:
        return
    first, *rest = re.sub(r"\bNone\b", "null", text.replace("``", "`")).splitlines()
    if not rest:
        yield f"/** {first} */"
        return
    yield "/**"
    for line in (first, *rest):
        yield f" * {line}".rstrip()
    yield " */"


def _field(name: str, choices: list[str]) -> Iterator[str]:
    line = f"  {name} {' | '.join(choices)};"
    if len(line) <= COLUMNS:
        yield line
        return
    yield f"  {name}"
    *others, last = choices
    yield from (f"    | {choice}" for choice in others)
    yield f"    | {last};"


def _type(schema: Mapping[str, Any], where: str) -> str:
    return " | ".join(_choices(schema, where))


def _choices(schema: Mapping[str, Any], where: str) -> list[str]:
    """The types that a value of *schema* may have."""
    match schema:
        case {"$ref": str(to)}:
            _only(schema, {"$ref"}, where)
            return [to.removeprefix("#/components/schemas/")]
        case {"anyOf": list(several)}:
            _only(schema, {"anyOf"}, where)
            return [choice for one in several for choice in _choices(one, where)]
        case {"enum": list(values)}:
            _only(schema, {"enum", "type"}, where)
            return [json.dumps(value) for value in values]
        case {"const": value}:
            _only(schema, {"const", "type"}, where)
            return [json.dumps(value)]
        case {"type": "array", "prefixItems": list(items)}:
            _only(schema, {"type", "prefixItems"}, where)
            return [f"[{', '.join(_type(item, where) for item in items)}]"]
        case {"type": "array", "items": of}:
            _only(schema, {"type", "items"}, where)
            inner = _type(of, where)
            return [f"({inner})[]" if " | " in inner else f"{inner}[]"]
        case {"type": "object", "additionalProperties": of}:
            _only(schema, {"type", "additionalProperties"}, where)
            return [f"Record<string, {'unknown' if of is True else _type(of, where)}>"]
        case {"type": str(plain)} if plain in _PLAIN:
            _only(schema, {"type"}, where)
            return [_PLAIN[plain]]
    _only(schema, set(), where)
    return ["unknown"]


def _only(schema: Mapping[str, Any], known: set[str], where: str) -> None:
    """Refuse what this does not understand."""
    if unknown := schema.keys() - known - _ABOUT - _CHECKED:
        raise ValueError(f"{where}: scripts/ui_types.py cannot say {', '.join(sorted(unknown))}")


def main() -> None:
    """Write them."""
    document = json.loads(DOCUMENT.read_text(encoding="utf-8"))
    TYPES.write_text(types_of(document), encoding="utf-8")


if __name__ == "__main__":
    main()
