"""What came of an import: the program, and what a person has to know of it.

A *fault* is a mistake of the file, a *gap* is a part of it that has no counterpart here, and a
*difference* is a part that was converted and does not mean quite the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ..diagnostics import Loc
from ..diagnostics.diagnostic import format_loc
from ..language.program import Program
from ..language.reader import Marks

Kind = Literal["fault", "gap", "difference"]


class NoCounterpart(Exception):
    """A part of a workflow that cannot be converted: what it is, and what to do by hand."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Finding:
    """One part of the file that a person has to look at."""

    kind: Kind
    loc: Loc
    message: str
    remedy: str
    line: int
    column: int

    def text(self, file: str) -> str:
        """The finding on one line."""
        place = f"{file}:{self.line}:{self.column}: {format_loc(self.loc) if self.loc else 'file'}"
        return f"{place}: {self.kind}: {self.message}; {self.remedy}"

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "kind": self.kind,
            "loc": list(self.loc),
            "line": self.line,
            "column": self.column,
            "message": self.message,
            "remedy": self.remedy,
        }


@dataclass(slots=True)
class Findings:
    """Findings as they are made, each once, at their lines."""

    marks: Marks
    found: dict[Finding, None] = field(default_factory=dict)

    def add(self, kind: Kind, loc: Loc, message: str, remedy: str) -> None:
        """Note a finding at *loc*, or at the line of what contains it."""
        at = loc
        while at and at not in self.marks:
            at = at[:-1]
        line, column = self.marks.get(at, (1, 1))
        self.found[Finding(kind, loc, message, remedy, line, column)] = None

    def gap(self, loc: Loc, gap: NoCounterpart) -> None:
        """Note what could not be converted."""
        self.add("gap", loc, str(gap), gap.remedy)

    def in_order(self) -> tuple[Finding, ...]:
        """All of them, by their place in the file."""
        return tuple(sorted(self.found, key=lambda one: (one.line, one.column)))

    @property
    def faulty(self) -> bool:
        """Whether the file itself is wrong."""
        return any(one.kind == "fault" for one in self.found)


@dataclass(frozen=True, slots=True)
class Imported:
    """A converted program, None where the file has faults, with the findings."""

    format: str
    program: Program | None
    findings: tuple[Finding, ...]
    tools: Mapping[str, tuple[str, ...]]
    """The tools that the program calls, each with the names of its arguments."""

    @property
    def complete(self) -> bool:
        """Whether every part of the file has been converted."""
        return all(one.kind == "difference" for one in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "format": self.format,
            "complete": self.complete,
            "findings": [one.to_dict() for one in self.findings],
            "tools": {name: list(arguments) for name, arguments in self.tools.items()},
            "program": self.program.to_dict() if self.program is not None else None,
        }


def not_imported(step_id: str, message: str, source: Any) -> dict[str, Any]:
    """A step in place of one that has no counterpart: it fails, and keeps what was written."""
    return {
        "id": step_id,
        "type": "assert",
        "condition": "false",
        "message": f"not imported: {message}".replace("$", "$$"),
        "metadata": {"not_imported": source},
    }
