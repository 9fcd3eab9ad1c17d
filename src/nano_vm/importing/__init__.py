"""Workflows of other engines in, programs out, with what a person has to look at.

A state machine of AWS Step Functions is JSON in Amazon's States Language. Nothing of a file is
dropped without a finding. No file is read here: what a workflow names beside itself is passed in.
"""

from __future__ import annotations

from typing import Any

from ..errors import ProgramError
from ..language.program import Program
from ..language.reader import marks, read_text
from .report import Finding, Findings, Imported
from .step_functions import program_of

__all__ = ["Finding", "Imported", "imported"]

STEP_FUNCTIONS = "step-functions"


def imported(text: str, *, name: str, file: str | None = None) -> Imported:
    """The program that the workflow in *text* is, under *name*; *file* is for places.

    Raises:
        ProgramError: If *text* is no JSON or YAML.
    """
    document = read_text(text, file=file, format="json" if text.lstrip()[:1] == "{" else "yaml")
    findings = Findings(marks(text))
    if not isinstance(document, dict) or not ({"StartAt", "States"} & document.keys()):
        findings.add(
            "fault",
            (),
            "this is no workflow that can be imported",
            "give a state machine in Amazon's States Language, with StartAt and States",
        )
        return Imported("unknown", None, findings.in_order(), {})
    made = program_of(document, findings, name)
    program = _program(made, findings) if made is not None else None
    tools = _tools(made["steps"]) if made is not None else {}
    return Imported(STEP_FUNCTIONS, program, findings.in_order(), tools)


def _program(document: dict[str, Any], findings: Findings) -> Program | None:
    """The program, or None with a fault for each thing that the language does not take."""
    try:
        return Program.from_dict(document)
    except ProgramError as error:
        for one in error.diagnostics:
            findings.add("fault", (), f"{one.place}: {one.message}", one.hint or "write it by hand")
        return None


def _tools(steps: list[Any]) -> dict[str, tuple[str, ...]]:
    """The tools that *steps* call, with their arguments."""
    found: dict[str, dict[str, None]] = {}
    pending = list(steps)
    while pending:
        step = pending.pop(0)
        if isinstance(step, list):
            pending = [*step, *pending]
            continue
        if step["type"] == "tool":
            found.setdefault(step["tool"], {}).update(dict.fromkeys(step["args"]))
        pending = [*step.get("steps", []), *step.get("parallel_steps", []), *pending]
    return {name: tuple(arguments) for name, arguments in found.items()}
