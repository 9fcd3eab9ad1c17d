"""What is wrong with a program's text, and what is proved of it, each at its place in the text.

The passes are those of every host. Where a part of the text is broken, the rest is looked at
without it: what is wrong there is no less true.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..diagnostics import Diagnostic
from ..errors import ProgramError, VMError
from ..explore.tree import assumed
from ..language.flow import Flow
from ..language.program import CallStep, Program
from ..verify.examine import examine
from ..verify.report import Report
from ..verify.summary import statuses, worst_case
from .index import Index, Span, said_of
from .project import Known
from .tree import Node

MAX_SHOWN = 200
"""Diagnostics of one text that are sent; who mends them sees the next."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A diagnostic and the piece of the text that it is about."""

    diagnostic: Diagnostic
    span: Span


@dataclass(slots=True)
class Findings:
    """What was found of one *text*; ``program`` and ``report`` where it can be read."""

    text: str | None = None
    shown: list[Shown] = field(default_factory=list)
    program: Program | None = None
    report: Report | None = None
    faults: tuple[str, ...] = ()


def program_in(text: str, file: Path | None) -> Program:
    """The program in *text*, which is YAML unless its *file* is called otherwise.

    Raises:
        ProgramError: If it is none.
    """
    name = str(file) if file is not None else None
    if file is not None and file.suffix == ".json":
        return Program.from_json(text, file=name)
    return Program.from_yaml(text, file=name)


def flow_of(program: Program, file: Path | None) -> Flow:
    """The graph of a program in *file*, with those of the files beside it that it calls."""
    return Flow(program, dict(_called(program, file)))


def diagnose(text: str, file: Path | None, known: Known) -> Findings:
    """What is found of *text*."""
    index = Index(text)
    found = Findings(text, faults=known.faults)
    try:
        found.program = program_in(text, file)
    except ProgramError as error:
        faults: list[Diagnostic] = list(error.diagnostics)
        if any(d.code == "P001" for d in faults):
            faults += _of_the_rest(index)
        found.shown = list(_shown(index, faults))
        return found
    except RecursionError:
        return found
    found.report = _report(found.program, file, known)
    diagnostics = [*found.report.diagnostics, *_unproved(found.report)]
    found.shown = list(_shown(index, found.program.place(diagnostics)))
    return found


def _report(program: Program, file: Path | None, known: Known) -> Report:
    flow = flow_of(program, file)
    contracts = known.contracts if known.contracts is not None else assumed(flow, {})
    budget = program.budget
    examined = examine(flow, contracts, policy=known.policy, budget=budget, more=program.warnings)
    report = examined.report
    if any(model for node in flow.nodes if (model := getattr(node.step, "model", None))):
        report = replace(
            report, diagnostics=tuple(d for d in report.diagnostics if d.code != "V033")
        )
    return report


def _called(program: Program, file: Path | None) -> Iterator[tuple[str, Program]]:
    """The programs in files that calls name, those beside this one."""
    if file is None:
        return
    for step, _ in program.walk():
        if isinstance(step, CallStep) and isinstance(step.program, str):
            beside = file.parent / step.program
            if beside.suffix in (".yaml", ".yml", ".json") and beside.is_file():
                try:
                    yield step.program, Program.from_file(beside)
                except VMError:
                    continue


def _unproved(report: Report) -> Iterator[Diagnostic]:
    """What would refuse the program, and is no diagnostic yet."""
    known = {(d.code, d.loc, d.message) for d in report.diagnostics}
    for proof in report.proofs:
        fault = proof.fault(report.flows)
        if fault is not None and (fault.code, fault.loc, fault.message) not in known:
            yield fault


def _of_the_rest(index: Index) -> list[Diagnostic]:
    """What is wrong in the parts that can be read, as if the others were not there."""
    broken = {
        number
        for number, part in enumerate(index.parts)
        if part.parsed.broken and part.parsed.root is not None
    }
    lines: list[str] = []
    lost: set[str] = set()
    for number, part in enumerate(index.parts):
        if number in broken or part.parsed.root is None:
            lines += [""] * len(part.lines)
            lost |= {step.id for step in said_of(part).steps if step.id}
            lost |= {use.name for use in said_of(part).uses}
            lost.add(part.name)
        else:
            lines += part.lines
    try:
        Program.from_yaml("\n".join(lines))
    except ProgramError as error:
        gone = [index.parts[number] for number in broken]
        return [
            d
            for d in error.diagnostics
            if d.code != "P001"
            and not any(part.line < (d.line or 0) <= part.end for part in gone)
            and not any(name and f"'{name}'" in d.message for name in lost)
        ]
    return []


def _shown(index: Index, found: Iterable[Diagnostic]) -> Iterator[Shown]:
    """Each with the piece of the text that it is about."""
    for number, d in enumerate(found):
        if number >= MAX_SHOWN:
            return
        yield Shown(d, _span(index, d))


def _span(index: Index, d: Diagnostic) -> Span:
    line = min(max((d.line or 1) - 1, 0), max(len(index.lines) - 1, 0))
    column = max((d.column or 1) - 1, 0)
    text = index.lines[line] if index.lines else ""
    node = _node_at(index, line, column)
    if node is not None and node.kind == "text":
        width = node.end[1] if node.end[0] == node.start[0] else len(text)
        return Span(line, column, max(min(width, len(text)), column + 1))
    end = len(text.rstrip())
    rest = text[column:end]
    if ":" in rest:  # a field or a step: its first field
        end = column + rest.index(":")
    return Span(line, min(column, len(text)), max(end, min(column, len(text)) + 1))


def _node_at(index: Index, line: int, column: int) -> Node | None:
    """The scalar that begins at a place, a field's value rather than its name."""
    if not index.parts:
        return None
    part = index.parts[index.part_at(line)]
    at = (line - part.line, column)
    work = [part.parsed.root] if part.parsed.root is not None else []
    while work:
        node = work.pop()
        if node.start == at and node.kind == "text":
            return node
        work += node.items
        for key, value in node.pairs:
            if key.start == at:
                return value if value.kind == "text" and value.start[0] == at[0] else key
            work.append(value)
    return None


@dataclass(frozen=True, slots=True)
class Lens:
    """A line of text above a line of the program."""

    line: int
    text: str


def lenses(index: Index, found: Findings) -> list[Lens]:
    """The worst case and what is proved above the program, and above each call what is proved of its
    tool.
    """
    report = found.report
    if report is None:
        return []
    top = next((part.line for part in index.parts if part.name), 0)
    result = [Lens(top, line) for line in list(worst_case(report))[:1]]
    if report.proofs:
        result.append(Lens(top, ", ".join(statuses(report.proofs))))
    by_tool: dict[str, list[str]] = {}
    for proof in report.proofs:
        note = " (an empty statement)" if proof.note else ""
        by_tool.setdefault(proof.tool, []).append(f"{proof.status}: {proof.statement}{note}")
    for step in index.steps():
        if step.type == "tool":
            for text in by_tool.get(step.node.text("tool") or "", ()):
                result.append(Lens(step.first, text))
    return result
