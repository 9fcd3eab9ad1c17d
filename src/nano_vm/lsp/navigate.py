"""From one place of a program's text to others: definition, references, rename, outline."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..language.program import MAX_ID_CHARS
from .cursor import cursor_at
from .index import Index, Span, StepNode, Use
from .project import Known
from .tree import Place

_STEP_ID = re.compile(r"[A-Za-z_][\w-]*\Z")
_NAME = re.compile(r"[A-Za-z_]\w*\Z")


class CannotRename(Exception):
    """Why a rename would not leave the same program."""


@dataclass(frozen=True, slots=True)
class Symbol:
    """What a cursor is on: a step (``step``), a name (``name``) or both, since `$judge` reads the
    step of that id where nothing writes such a name.
    """

    name: str
    kind: str
    scope: int
    span: Span


def symbol_at(index: Index, place: Place) -> Symbol | None:
    """The step or name at *place*."""
    for use in index.uses_at(place[0]):
        if not use.span.holds(place):
            continue
        kind = "step" if use.kind in ("step", "jump", "edge") else "name"
        if use.kind == "ref" and _is_step(index, use):
            kind = "step"
        return Symbol(use.name, kind, use.scope, use.span)
    return None


def _is_step(index: Index, ref: Use) -> bool:
    """Whether a ``$name`` reads a step's output by its id."""
    written = any(
        use.kind == "name" and use.name == ref.name and use.scope == ref.scope
        for use in index.uses()
    )
    if written and not ref.fields.startswith((".output", ".error")):
        return False
    return any(
        use.kind == "step" and use.name == ref.name and use.scope == ref.scope
        for use in index.uses()
    )


def uses_of(index: Index, symbol: Symbol) -> Iterator[Use]:
    """Every place that names what *symbol* does, its definitions included."""
    written = any(
        use.kind == "name" and use.name == symbol.name and use.scope == symbol.scope
        for use in index.uses()
    )
    for use in index.uses():
        if use.name != symbol.name or (use.scope != symbol.scope and use.kind != "edge"):
            continue
        by_id = use.kind == "ref" and (not written or use.fields.startswith((".output", ".error")))
        if symbol.kind == "step":
            if use.kind in ("step", "jump", "edge") or by_id:
                yield use
        elif use.kind == "name" or (use.kind == "ref" and not (written and _by_id(index, use))):
            yield use


def _by_id(index: Index, ref: Use) -> bool:
    return ref.fields.startswith((".output", ".error")) and _is_step(index, ref)


def definitions(index: Index, place: Place) -> list[Span]:
    """Where what stands at *place* is written."""
    symbol = symbol_at(index, place)
    if symbol is None:
        return []
    wanted = "step" if symbol.kind == "step" else "name"
    return [use.span for use in uses_of(index, symbol) if use.kind == wanted]


def references(index: Index, place: Place, *, declared: bool = True) -> list[Span]:
    """Every place that names what stands at *place*."""
    symbol = symbol_at(index, place)
    if symbol is None:
        return []
    return [
        use.span for use in uses_of(index, symbol) if declared or use.kind not in ("step", "name")
    ]


def renamed(index: Index, place: Place, name: str) -> list[Span]:
    """The pieces that become *name*.

    Raises:
        CannotRename: If there is nothing to rename, or *name* would not do.
    """
    symbol = symbol_at(index, place)
    if symbol is None:
        raise CannotRename("there is no step and no name here")
    form = _STEP_ID if symbol.kind == "step" else _NAME
    if not form.match(name) or len(name) > MAX_ID_CHARS:
        kind = "a step's id" if symbol.kind == "step" else "a name"
        raise CannotRename(f"{name!r} cannot be {kind}: use letters, digits and '_'")
    spans = list(dict.fromkeys(use.span for use in uses_of(index, symbol)))
    read = any(use.kind == "ref" for use in uses_of(index, symbol))
    if read and not _NAME.match(name):
        raise CannotRename(f"{name!r} is read as $name, where a '-' ends the name")
    for use in index.uses():
        if use.scope == symbol.scope and use.name == name and use.kind in ("step", "name"):
            if name != symbol.name:
                raise CannotRename(
                    f"there is a {use.kind} {name!r} already, in line {use.span.line + 1}"
                )
    return spans


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A place in another file."""

    path: Path
    line: int


def tool_at(index: Index, place: Place) -> str | None:
    """The tool that a cursor is on the name of."""
    word = word_at(index, place, "tool")
    return word


def word_at(index: Index, place: Place, key: str) -> str | None:
    """The whole scalar under *key* that a cursor is on."""
    if not index.parts or place[0] >= len(index.lines):
        return None
    part = index.parts[index.part_at(place[0])]
    line = index.lines[place[0]]
    end = place[1]
    while end < len(line) and (line[end].isalnum() or line[end] in "_.-/"):
        end += 1
    cursor = cursor_at(part.lines, (place[0] - part.line, end))
    if cursor.key != key:
        return None
    return cursor.text.strip().strip("\"'") or None


def tool_source(known: Known, name: str) -> Elsewhere | None:
    """Where a tool's function stands."""
    function = known.functions.get(name)
    if function is None:
        return None
    try:
        plain = inspect.unwrap(function)
        file = inspect.getsourcefile(plain)
        line = inspect.getsourcelines(plain)[1]
    except (OSError, TypeError, ValueError):
        return None
    return Elsewhere(Path(file), line - 1) if file is not None else None


@dataclass(slots=True)
class Entry:
    """A line of the outline."""

    name: str
    detail: str
    line: int
    end: int
    span: Span
    children: list[Entry]


def outline(index: Index) -> list[Entry]:
    """The steps, those in blocks below theirs."""
    roots: list[Entry] = []
    stack: list[tuple[int, Entry]] = []
    for step in index.steps():
        entry = _entry(index, step)
        while stack and stack[-1][0] >= step.depth:
            stack.pop()
        (stack[-1][1].children if stack else roots).append(entry)
        stack.append((step.depth, entry))
    return roots


def _entry(index: Index, step: StepNode) -> Entry:
    last = min(step.last - 1, len(index.lines) - 1)
    span = step.span or Span(step.first, step.node.start[1], step.node.start[1])
    first = min(step.first, span.line)
    return Entry(step.id or "(no id)", step.type or "", first, max(last, span.line), span, [])
