"""JSON Schemas in the files of a project, by which editors know programs and tests; and whether the
one that a program names is of a newer nano-vm than this.
"""

from __future__ import annotations

import json
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

MADE_BY = "x-nano-vm"
"""The field of a schema that holds the version that wrote it."""

EDITOR_LINE = "# yaml-language-server: $schema={}\n"
"""The line by which editors find the schema of a file."""

HEAD_LINES = 5
"""Lines of a program in which that one may stand."""

_LINE = re.compile(r"#\s*yaml-language-server:\s*\$schema=(\S+)")


def own_version() -> str:
    """The version of the package that is installed; none where it runs from its sources."""
    try:
        return version("llm-nano-vm")
    except PackageNotFoundError:
        return ""


def schema(kind: str) -> dict[str, Any]:
    """The schema of a ``program`` or of ``tests``, with the version that makes it."""
    from ..language.program import Program
    from ..program_tests.document import json_schema

    found = Program.json_schema() if kind == "program" else json_schema()
    return {**found, MADE_BY: own_version()}


def newer_schema(path: str) -> str | None:
    """A sentence, where the schema that a program names is of a newer version than this package:
    then its editor knows fields that are unknown here.
    """
    try:
        with Path(path).open(encoding="utf-8") as file:
            head = [line for _, line in zip(range(HEAD_LINES), file, strict=False)]
        named = next((found[1] for line in head if (found := _LINE.match(line))), None)
        if named is None or "://" in named:
            return None
        made_by = json.loads((Path(path).parent / named).read_text(encoding="utf-8"))[MADE_BY]
    except (OSError, ValueError, KeyError, TypeError):
        return None  # no such schema, or not one of ours
    own = own_version()
    if not isinstance(made_by, str) or _number(made_by) <= _number(own):
        return None
    return (
        f"{named} is of nano-vm {made_by}, and this is {own or 'run from its sources'}: what is "
        f"unknown here may be new there; upgrade, or write it anew with nano-vm schema"
    )


def _number(text: str) -> tuple[int, ...]:
    """The release that a version is of, or leads to."""
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])
