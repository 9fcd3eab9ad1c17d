"""The shapes that the pages read are those that Python writes, field by field."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import is_typeddict

from nano_vm.draw import chart, view
from nano_vm.ui import asking, library

TYPES = Path(__file__).parents[2] / "ui" / "src" / "api" / "types.ts"


SHAPES = {
    shape.__name__: shape
    for module in (chart, view, library, asking)
    for shape in vars(module).values()
    if is_typeddict(shape)
}


def interfaces() -> dict[str, set[str]]:
    text = TYPES.read_text(encoding="utf-8")
    found = re.findall(r"export interface (\w+) \{\n(.*?)\n\}", text, re.DOTALL)
    return {name: set(re.findall(r"^  (\w+)\??:", body, re.MULTILINE)) for name, body in found}


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_a_shape_has_the_same_fields_on_both_sides(name: str) -> None:
    shape: Any = SHAPES[name]
    assert interfaces()[name] == set(shape.__annotations__)
