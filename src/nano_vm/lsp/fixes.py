"""Quick fixes: the remedies of diagnostics as edits of the text.

A diagnostic and the text come in, edits go out. A fix is offered only where it follows from what
the diagnostic says; nothing is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ..diagnostics import Diagnostic
from .diagnose import Shown
from .index import Index, Span, StepNode

_MEANT = re.compile(r"did you mean '([^']+)'\?")
_QUOTED = re.compile(r"'([^']+)'")
_REQUIRED = re.compile(r"field '(\w+)' is required")
_PLAIN_VALUE = re.compile(r"(\s*(?:- )*[\w-]+:[ \t]+)(\S.*?)\s*$")

FILLED = {
    "max_iterations": "3",
    "otherwise": "$end",
    "then": "$end",
    "steps": "[]",
    "role": "reviewer",
    "message": '""',
    "seconds": "60",
}
"""What a field that is missing is filled with; others are left empty, to be written."""


@dataclass(frozen=True, slots=True)
class Edit:
    """A piece of the text, and what takes its place."""

    span: Span
    text: str


@dataclass(frozen=True, slots=True)
class Fix:
    """A change that mends a diagnostic."""

    title: str
    edits: tuple[Edit, ...]


def fixes(index: Index, shown: Shown) -> list[Fix]:
    """What would mend a diagnostic of the text."""
    d = shown.diagnostic
    return [
        *_meant(index, shown),
        *_missing(index, shown),
        *_without_otherwise(index, shown),
        *(_quoted(index, d) if d.code == "P001" else ()),
        *(_dollar(index, shown) if d.hint is not None and "$$" in d.hint else ()),
    ]


def _meant(index: Index, shown: Shown) -> Iterator[Fix]:
    """The name that was meant, in place of the one that is written."""
    d = shown.diagnostic
    found = _MEANT.search(d.hint or "")
    if found is None:
        return
    meant = found[1].removeprefix("$").removesuffix(".output")
    line = shown.span.line
    text = index.lines[line] if line < len(index.lines) else ""
    for wrong in reversed(_QUOTED.findall(d.message)):
        plain = wrong.removeprefix("$").removesuffix(".output")
        if plain == meant:
            continue
        for at in range(line, min(line + 40, len(index.lines))):  # a prompt has several lines
            text = index.lines[at]
            start = shown.span.start if at == line else 0
            place = re.compile(rf"(?<![\w]){re.escape(plain)}(?![\w])").search(text, start)
            if place is not None:
                span = Span(at, place.start(), place.end())
                yield Fix(f"write {meant!r}", (Edit(span, meant),))
                return


def _missing(index: Index, shown: Shown) -> Iterator[Fix]:
    found = _REQUIRED.search(shown.diagnostic.message)
    step = index.step_at(shown.span.line, shown.span.start)
    if found is not None and step is not None and step.node.get(found[1]) is None:
        yield _added(index, step, found[1], FILLED.get(found[1], ""))


def _without_otherwise(index: Index, shown: Shown) -> Iterator[Fix]:
    d = shown.diagnostic
    step = index.step_at(shown.span.line, shown.span.start)
    if step is None or step.type != "condition" or step.node.get("otherwise") is not None:
        return
    if "otherwise" in f"{d.message} {d.hint or ''}":
        yield _added(index, step, "otherwise", FILLED["otherwise"])


def _added(index: Index, step: StepNode, field: str, value: str) -> Fix:
    """A field behind the last of a step, in the form in which the step is written."""
    node = step.node
    line = index.lines[min(step.first, len(index.lines) - 1)]
    if node.start[1] < len(line) and line[node.start[1]] == "{":
        last = min(step.line + node.end[0], len(index.lines) - 1)
        at = max(node.end[1] - 1, 0)
        text = f", {field}: {value}" if node.pairs else f"{field}: {value}"
        return Fix(f"add {field!r}", (Edit(Span(last, at, at), text),))
    head = min(step.first + 1, len(index.lines))
    first = node.pairs[0][0] if node.pairs else None
    if first is not None:  # behind the first field: what follows may be a block of text
        value_node = node.pairs[0][1]
        head = min(step.line + value_node.end[0] + 1, len(index.lines))
    indent = " " * node.start[1]
    return Fix(f"add {field!r}", (Edit(Span(head, 0, 0), f"{indent}{field}: {value}\n"),))


def _quoted(index: Index, d: Diagnostic) -> Iterator[Fix]:
    """Quotes around a plain value that YAML does not take."""
    line = (d.line or 1) - 1
    if not 0 <= line < len(index.lines) or "quote a string" not in (d.hint or ""):
        return
    found = _PLAIN_VALUE.match(index.lines[line])
    if found is None or found[2][:1] in "\"'{[|>":
        return
    text = found[2].replace("\\", "\\\\").replace('"', '\\"')
    span = Span(line, found.start(2), found.end(2))
    yield Fix("quote the value", (Edit(span, f'"{text}"'),))


def _dollar(index: Index, shown: Shown) -> Iterator[Fix]:
    """A dollar sign that is no reference."""
    names = [n for n in _QUOTED.findall(shown.diagnostic.message) if n.startswith("$")]
    line = shown.span.line
    for name in names:
        at = index.lines[line].find(name, shown.span.start) if line < len(index.lines) else -1
        if at >= 0:
            yield Fix(f"write ${name} for the text {name}", (Edit(Span(line, at, at), "$"),))
            return


# --- formatting ---

_COMMENT = re.compile(r"(?:^|\s)#")


class CannotFormat(Exception):
    """Why text is left as it is."""


def commented(text: str, formatted: str) -> str:
    """*formatted*, the canonical form of *text*, with the comments that stand above the program and
    above its steps.

    Raises:
        CannotFormat: If a comment stands anywhere else: it would be lost.
    """
    index = Index(text)
    strings = _string_lines(index)
    comments = {
        number
        for number, line in enumerate(index.lines)
        if _COMMENT.search(line) and number not in strings
    }
    if not comments:
        return formatted
    head, above = _placed_comments(index, comments)
    lost = comments - set(head) - {line for lines in above.values() for line in lines}
    if lost:
        raise CannotFormat(f"formatting would lose the comment in line {min(lost) + 1}")
    lines = [index.lines[number] for number in head]
    for line in formatted.split("\n"):
        found = re.match(r"( *)- id: (.+)$", line)
        if found is not None and found[2] in above:
            kept = above.pop(found[2])
            lines += [f"{found[1]}{index.lines[number].strip()}" for number in kept]
        lines.append(line)
    if above:
        raise CannotFormat("formatting would lose the comment above a step")
    return "\n".join(lines)


def _placed_comments(index: Index, comments: set[int]) -> tuple[list[int], dict[str, list[int]]]:
    """Lines of comments above the first field, and above steps by their ids."""
    first = next((part.line for part in index.parts if part.name), len(index.lines))
    head = [number for number in sorted(comments) if number < first]
    above: dict[str, list[int]] = {}
    for step in index.steps():
        line = step.first - 1
        found: list[int] = []
        while line >= first and index.lines[line].lstrip().startswith("#"):
            found.insert(0, line)
            line -= 1
        if found and step.id and step.id not in above:
            above[step.id] = found
    return head, above


def _string_lines(index: Index) -> set[int]:
    """Lines in whose strings a number sign is no comment: they are left alone by the search."""
    lines: set[int] = set()
    for part in index.parts:
        work = [part.parsed.root] if part.parsed.root is not None else []
        while work:
            node = work.pop()
            if node.kind == "text" and "#" in node.value:
                lines |= {part.line + n for n in range(node.start[0], node.end[0] + 1)}
            work += [*node.items, *(value for _, value in node.pairs)]
    return lines
