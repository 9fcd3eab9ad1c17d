"""The programs of simulated worlds: those of the kill campaigns, with deadlines that are sooner over,
so that a call that never answers keeps a world for seconds and not for minutes.
"""

from __future__ import annotations

from typing import Any

from soak.programs import CALLER, FAILS, FAN, FRUGAL, ORDER, SUB

from nano_vm import Program

DEADLINE_SECONDS = 4

_INPUTS = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}


def program(document: dict[str, Any]) -> Program:
    """A program whose calls end soon."""
    return Program.from_dict(
        {"inputs": _INPUTS, "defaults": {"timeout_seconds": DEADLINE_SECONDS}, **document}
    )


CALLED = {"sub": program(SUB)}
PROGRAMS = [program(document) for document in (ORDER, FAN, FAILS, CALLER, FRUGAL)]
