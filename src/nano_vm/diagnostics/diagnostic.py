"""Diagnostic: a fault in a program or policy, with the place where it stands.

None is made with a code that the register lacks.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy
from dataclasses import MISSING, dataclass, fields
from typing import TYPE_CHECKING, Any

from .code import Severity
from .register import CODES

if TYPE_CHECKING:
    from typing import Self

Loc = tuple[str | int, ...]
"""Path into a program's document: ``("steps", 1, "then")``."""


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """A fault in a program: its code, place, message and, where one is known, its remedy.

    ``loc`` is the path into the document; ``file``, ``line`` and ``column`` (both from 1) are set
    where the program was read from text.

    Examples:
        >>> from nano_vm import Program, ProgramError
        >>> try:
        ...     Program.from_yaml("steps: [{id: a, type: sett}]")
        ... except ProgramError as error:
        ...     diagnostic = error.diagnostics[0]
        >>> diagnostic.code, diagnostic.line, diagnostic.hint
        ('P014', 1, "did you mean 'set'?")
    """

    code: str
    loc: Loc
    message: str
    hint: str | None = None
    severity: Severity = "error"
    file: str | None = None
    line: int | None = None
    column: int | None = None

    def __post_init__(self) -> None:
        if self.code not in CODES:
            raise ValueError(
                f"no code {self.code!r} is registered; describe it in nano_vm/diagnostics/codes"
            )

    @property
    def place(self) -> str:
        """The place in one text: ``program.yaml:4:7: steps[1].then``."""
        mark = format_loc(self.loc)
        if self.line is None:
            return f"{self.file}: {mark}" if self.file else mark
        return f"{self.file or '<text>'}:{self.line}:{self.column}: {mark}"

    def __str__(self) -> str:
        hint = f"; {self.hint}" if self.hint else ""
        return f"{self.place}: {self.code}: {self.message}{hint}"

    def at(
        self,
        loc: Loc,
        file: str | None = None,
        line: int | None = None,
        column: int | None = None,
    ) -> Self:
        """The same at another place, which may be in no text; as `from_dict`, whatever its code."""
        moved = copy(self)
        for name, value in (("loc", loc), ("file", file), ("line", line), ("column", column)):
            object.__setattr__(moved, name, value)
        return moved

    def to_dict(self) -> dict[str, Any]:
        """The JSON form; absent fields are left out."""
        parts = {
            "code": self.code,
            "severity": self.severity,
            "loc": list(self.loc),
            "place": self.place,
            "message": self.message,
            "hint": self.hint,
            "file": self.file,
            "line": self.line,
            "column": self.column,
        }
        return {key: value for key, value in parts.items() if value is not None}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The inverse of `to_dict`, also of what another version wrote, whose code may be unknown
        here.
        """
        written = cls.__new__(cls)
        for field in fields(cls):
            value = (
                data[field.name]
                if field.default is MISSING
                else data.get(field.name, field.default)
            )
            object.__setattr__(written, field.name, tuple(value) if field.name == "loc" else value)
        return written


def format_loc(loc: Loc) -> str:
    """``("steps", 1, "then")`` as ``steps[1].then``."""
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text or "program"


def summary(diagnostics: Iterable[Diagnostic]) -> str:
    """The errors among *diagnostics*, one a line."""
    return "\n".join(str(d) for d in diagnostics if d.severity == "error")
