"""The types that the pages read are those of the API's OpenAPI document, and no page has its own."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from loading import loaded
from pydantic import TypeAdapter
from typing_extensions import is_typeddict

from nano_vm.draw import chart, view
from nano_vm.ui import asking, forks, library

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "ui" / "src"


UI_TYPES: Any = loaded("scripts/ui_types.py")
DOCUMENT: dict[str, Any] = json.loads(UI_TYPES.DOCUMENT.read_text(encoding="utf-8"))
SCHEMAS: dict[str, dict[str, Any]] = DOCUMENT["components"]["schemas"]

LOCAL = {
    shape.__name__: shape
    for module in (chart, view, library, asking, forks)
    for shape in vars(module).values()
    if is_typeddict(shape) and shape.__module__ == module.__name__
}
"""What `nano-vm ui` and an exported file give to the same pages, without the API."""


def test_the_types_are_those_of_the_document() -> None:
    written = UI_TYPES.TYPES.read_text(encoding="utf-8")
    assert written == UI_TYPES.types_of(DOCUMENT), "run scripts/ui_types.py"


@pytest.mark.parametrize("name", sorted(LOCAL))
def test_pages_without_a_server_get_the_same_shapes(name: str) -> None:
    made = TypeAdapter(LOCAL[name]).json_schema(ref_template="#/components/schemas/{model}")
    assert made["properties"] == SCHEMAS[name]["properties"]
    assert made.get("required") == SCHEMAS[name].get("required")


def asked() -> list[tuple[str, str]]:
    """Each type that a page takes an answer for, with its file."""
    calls = re.compile(r"\b(?:call|send|get|ask|useAsked)<((?:[^<>]|<[^<>]*>)+)>\(")
    found: list[tuple[str, str]] = []
    for path in sorted([*PAGES.rglob("*.ts"), *PAGES.rglob("*.tsx")]):
        text = path.read_text(encoding="utf-8")
        found += [(str(path.relative_to(PAGES)), kind) for kind in calls.findall(text)]
    return found


def test_each_answer_has_a_type_of_the_document() -> None:
    answers = [(file, kind) for file, kind in asked() if kind != "T"]
    assert len(answers) > 20
    assert [one for one in answers if one[1] not in SCHEMAS] == []


def test_no_page_writes_a_shape_of_the_document_by_hand() -> None:
    told = re.compile(r"^(?:export )?(?:interface|type) (\w+)\b", re.MULTILINE)
    pages = [*(PAGES / "team").iterdir(), *(PAGES / "api").iterdir()]
    own = {
        name
        for path in pages
        if path != UI_TYPES.TYPES
        for name in told.findall(path.read_text(encoding="utf-8"))
    }
    assert own & SCHEMAS.keys() == set()


def said(schema: dict[str, Any], **more: Any) -> str:
    """The field ``f`` of an interface, as it is written for *schema*."""
    shape = {"type": "object", "properties": {"f": schema}, **more}
    text: str = UI_TYPES.types_of({"components": {"schemas": {"One": shape}}})
    return text.partition("export interface One {\n")[2].removesuffix("}\n")


NUMBER, STRING = {"type": "integer", "minimum": 1}, {"type": "string", "maxLength": 9}


@pytest.mark.parametrize(
    ("schema", "written"),
    [
        (STRING, "string"),
        (NUMBER, "number"),
        ({"type": "boolean"}, "boolean"),
        ({}, "unknown"),
        ({"$ref": "#/components/schemas/Box"}, "Box"),
        ({"anyOf": [STRING, {"type": "null"}]}, "string | null"),
        ({"type": "string", "enum": ["", "a"]}, '"" | "a"'),
        ({"type": "string", "const": "a"}, '"a"'),
        ({"type": "array", "items": STRING}, "string[]"),
        ({"type": "array", "items": {"anyOf": [STRING, NUMBER]}}, "(string | number)[]"),
        ({"type": "array", "prefixItems": [STRING, NUMBER]}, "[string, number]"),
        ({"type": "object", "additionalProperties": True}, "Record<string, unknown>"),
        ({"type": "object", "additionalProperties": NUMBER}, "Record<string, number>"),
    ],
)
def test_what_a_schema_is_in_typescript(schema: dict[str, Any], written: str) -> None:
    assert said(schema, required=["f"]) == f"  f: {written};\n"
    assert said(schema) == f"  f?: {written};\n"


def test_long_choices_stand_one_in_a_line() -> None:
    words = [letter * 30 for letter in "abc"]
    lines = "".join(f'    | "{word}"\n' for word in words)
    assert said({"enum": words}, required=["f"]) == f"  f:\n{lines.removesuffix(chr(10))};\n"


def test_comments_say_null_for_none() -> None:
    field = {"type": "string", "description": "``a``, or None"}
    assert said(field) == "  /** `a`, or null */\n  f?: string;\n"


@pytest.mark.parametrize(
    "schema",
    [
        {"oneOf": [STRING, NUMBER]},
        {"allOf": [STRING]},
        {"$ref": "#/components/schemas/Box", "nullable": True},
        {"type": "object", "properties": {"a": STRING}},
        {"type": "object", "additionalProperties": True, "properties": {"a": STRING}},
        {"type": ["string", "null"]},
    ],
)
def test_a_schema_that_cannot_be_said_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"schema One, field f: .* cannot say"):
        said(schema)
