"""What is known of the thing under a cursor, as Markdown."""

from __future__ import annotations

from ..language.kinds import TYPES
from . import offers
from .cursor import cursor_at
from .index import Index
from .names import names_of, output_of, signature
from .navigate import symbol_at, tool_at, word_at
from .project import Known
from .tree import Place


def hover(index: Index, place: Place, known: Known) -> str | None:
    """What is known of what stands at *place*; None where nothing is."""
    if not index.parts or place[0] >= len(index.lines):
        return None
    return _symbol(index, place, known) or _tool(index, place, known) or _field(index, place)


def _symbol(index: Index, place: Place, known: Known) -> str | None:
    symbol = symbol_at(index, place)
    if symbol is None:
        return None
    if symbol.kind == "step":
        step = index.step_named(symbol.name)
        if step is None:
            return None
        gives = output_of(step, known)
        what = offers.step_text(step.type) if step.type in TYPES else ""
        line = f"line {step.first + 1}"
        return f"**{symbol.name}**: {step.type or 'no type'}, {line}\n\n{what}\n\ngives: {gives}"
    found = names_of(index, known, symbol.scope).get(symbol.name)
    if found is None:
        return f"**${symbol.name}**: an input, which nothing declares and no step writes"
    where = f", line {found.span.line + 1}" if found.span is not None else ""
    return f"**${symbol.name}**: {found.holds}\n\n{found.by}{where}"


def _tool(index: Index, place: Place, known: Known) -> str | None:
    name = tool_at(index, place)
    tool = known.contracts.get(name) if name and known.contracts else None
    if tool is None:
        return None
    return f"```python\n{signature(tool)}\n```\n\n{tool.doc}\n\neffect: {tool.effect}"


def _field(index: Index, place: Place) -> str | None:
    """The field whose name is under the cursor, or the type that is."""
    part = index.parts[index.part_at(place[0])]
    line = index.lines[place[0]]
    start = end = place[1]
    while start > 0 and (line[start - 1].isalnum() or line[start - 1] == "_"):
        start -= 1
    while end < len(line) and (line[end].isalnum() or line[end] == "_"):
        end += 1
    word = line[start:end]
    kind = word_at(index, place, "type")
    if kind is not None and kind == word and kind in TYPES:
        return f"**{kind}**: {offers.step_text(kind)}"
    if not word or not line[end:].lstrip().startswith(":"):
        return None
    cursor = cursor_at(part.lines, (place[0] - part.line, end))
    if cursor.key is not None and not cursor.flow:
        return None
    text = None
    if part.step or part.name == "steps":
        step = index.step_at(place[0])
        text = offers.step_fields(step.type if step is not None else None).get(word)
    if text is None and not cursor.container:
        text = offers.part_fields("Program").get(word)
    for name, fields in (("budget", "Budget"), ("retry", "Retry"), ("catch", "Catch")):
        if name in cursor.container or part.name == name:
            text = offers.part_fields(fields).get(word, text)
    if text is None and {"inputs", "output_schema"} & {*cursor.container, part.name}:
        text = offers.SCHEMA_FIELDS.get(word)
    return f"**{word}**: {text}" if text else None
