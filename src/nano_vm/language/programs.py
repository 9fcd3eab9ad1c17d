"""Programs as callers give them: one, or several by name. Not a `Program`: an error that says how to
load one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..given import by_name, instance
from .program import Program

HOW_TO_LOAD = "see Program.from_dict and Program.from_file"


def program_given(given: Any) -> Program:
    """*given*, if it is a program."""
    return instance(given, Program, "a program", HOW_TO_LOAD)


def programs_in(program: Program, programs: Mapping[str, Program]) -> Iterator[Program]:
    """*program*, those that it is given by name, and those that stand in calls of them, once each."""
    work, seen = [program, *programs.values()], set()
    while work:
        at = work.pop()
        if id(at) in seen:
            continue
        seen.add(id(at))
        yield at
        work += [
            inner
            for step, _ in at.walk()
            if isinstance(inner := getattr(step, "program", None), Program)
        ]


def programs_given(given: Any) -> dict[str, Program]:
    """Programs by name, empty where nothing is given."""
    named = by_name(given, "programs", "write programs={'name': Program.from_file(...)}")
    for name, program in named.items():
        instance(program, Program, f"programs[{name!r}]", HOW_TO_LOAD)
    return named
