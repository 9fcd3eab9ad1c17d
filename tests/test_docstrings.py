"""Examples in docstrings: each public name has one, and each gives what it says."""

from __future__ import annotations

import doctest
import importlib
import inspect
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pages import DOCS

import nano_vm
from nano_vm import Program
from nano_vm.program_tests.document import json_schema as schema_of_tests

SHOWN_ELSEWHERE = {
    "nano_vm.store.protocol.Store": "a protocol",
    "nano_vm.testing.RecordedLLM": "docs/reference/api/testing.md",
    "nano_vm.testing.simulate": "docs/how-to/simulation.md",
}
"""Names on the pages of the Python API that have no example of their own, and where there is one."""

SECTIONS = {
    "nano_vm.errors": "docs/reference/python.md",
    "nano_vm.mcp": "docs/how-to/mcp.md",
    "nano_vm.telemetry": "docs/how-to/observability.md",
}
"""Likewise all of a module."""

NAMES = sorted(
    line.removeprefix("::: ")
    for page in (DOCS / "reference" / "api").glob("*.md")
    for line in page.read_text(encoding="utf-8").splitlines()
    if line.startswith("::: ")
)

WITH_EXAMPLE = [
    name
    for name in NAMES
    if name not in SHOWN_ELSEWHERE and not name.startswith(tuple(f"{one}." for one in SECTIONS))
]


def value(name: str) -> Any:
    """What a name on a page is."""
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def test_every_public_name_is_on_a_page_of_the_api() -> None:
    public = {f"nano_vm.{name}" for name in nano_vm.__all__ if name != "__version__"}
    assert public <= set(NAMES)


@pytest.mark.parametrize("name", WITH_EXAMPLE)
def test_a_public_name_has_an_example_that_gives_what_it_says(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = inspect.getdoc(value(name)) or ""
    examples = doctest.DocTestParser().get_doctest(text, {}, name, name, 0)
    assert examples.examples, "it has no example"
    said: list[str] = []
    doctest.DocTestRunner(verbose=False).run(examples, out=said.append)
    assert "".join(said) == ""


def test_what_has_no_example_is_shown_on_a_page() -> None:
    for name, where in {**SHOWN_ELSEWHERE, **SECTIONS}.items():
        shown = [one for one in NAMES if one == name or one.startswith(f"{name}.")]
        assert shown, f"{name} is on no page"
        if where.endswith(".md"):
            page = (DOCS.parent / where).read_text(encoding="utf-8")
            for one in shown:
                word = one.rpartition(".")[2]
                assert re.search(rf"\b{word}\b", page), f"{where} has no {one}"


@pytest.mark.slow
@pytest.mark.parametrize("schema", [Program.json_schema, schema_of_tests])
def test_no_example_in_python_is_in_a_schema(schema: Callable[[], dict[str, Any]]) -> None:
    assert ">>>" not in json.dumps(schema())
