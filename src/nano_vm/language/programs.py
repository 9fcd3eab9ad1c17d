"""Programs as callers give them: one, or several by name. Not a `Program`: an error that says how to
load one.
"""

from __future__ import annotations

from typing import Any

from ..given import by_name, instance
from .program import Program

HOW_TO_LOAD = "see Program.from_dict and Program.from_file"


def program_given(given: Any) -> Program:
    """*given*, if it is a program."""
    return instance(given, Program, "a program", HOW_TO_LOAD)


def programs_given(given: Any) -> dict[str, Program]:
    """Programs by name, empty where nothing is given."""
    named = by_name(given, "programs", "write programs={'name': Program.from_file(...)}")
    for name, program in named.items():
        instance(program, Program, f"programs[{name!r}]", HOW_TO_LOAD)
    return named
