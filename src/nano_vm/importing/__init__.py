"""Workflows of other engines in, programs out, with what a person has to look at.

A state machine of AWS Step Functions is JSON in Amazon's States Language, a DAG of Prompt flow is
YAML. Nothing of a file is
dropped without a finding. No file is read here: what a workflow names beside itself is passed in.
"""

from __future__ import annotations

from typing import Any

from ..errors import ProgramError
from ..language.program import Program, ToolStep
from ..language.reader import marks, read_text
from . import prompt_flow, step_functions
from .report import Finding, Findings, Imported

__all__ = ["Finding", "Imported", "imported"]

STEP_FUNCTIONS, PROMPT_FLOW = "step-functions", "prompt-flow"


def _nothing(_: str) -> None:
    """No file beside the workflow can be read."""


def imported(
    text: str, *, name: str, file: str | None = None, sources: prompt_flow.Sources = _nothing
) -> Imported:
    """The program that the workflow in *text* is, under *name*; *file* is for places, and *sources*
    gives the text of a file that it names.

    Raises:
        ProgramError: If *text* is no JSON or YAML.
    """
    document = read_text(text, file=file, format="json" if text.lstrip()[:1] == "{" else "yaml")
    findings = Findings(marks(text))
    keys = document.keys() if isinstance(document, dict) else set()
    if {"StartAt", "States"} & keys:
        kind, made = STEP_FUNCTIONS, step_functions.program_of(document, findings, name)
    elif "nodes" in keys:
        kind, made = PROMPT_FLOW, prompt_flow.program_of(document, findings, name, sources)
    else:
        findings.add(
            "fault",
            (),
            "this is no workflow that can be imported",
            "give a state machine with StartAt and States, or a flow with nodes",
        )
        return Imported("unknown", None, findings.in_order(), {})
    program = _program(made, findings) if made is not None else None
    tools = _tools(program) if program is not None else {}
    return Imported(kind, program, findings.in_order(), tools)


def _program(document: dict[str, Any], findings: Findings) -> Program | None:
    """The program, or None with a fault for each thing that the language does not take."""
    try:
        return Program.from_dict(document)
    except ProgramError as error:
        for one in error.diagnostics:
            findings.add("fault", (), f"{one.place}: {one.message}", one.hint or "write it by hand")
        return None


def _tools(program: Program) -> dict[str, tuple[str, ...]]:
    """The tools that *program* calls, with their arguments."""
    found: dict[str, dict[str, None]] = {}
    for step, _ in program.walk():
        if isinstance(step, ToolStep):
            found.setdefault(step.tool, {}).update(dict.fromkeys(step.args))
    return {name: tuple(arguments) for name, arguments in found.items()}
