"""The graph of a program as a Mermaid flowchart."""

from __future__ import annotations

import re

from ..language.flow import Flow
from .graph import (
    COLOURS,
    DASHED,
    LEGEND,
    Area,
    Dot,
    Line,
    Look,
    Mark,
    Marks,
    labels_of,
    picture,
    shown_marks,
)
from .notation import written

MERMAID_MAX_EDGES = 500
"""Mermaid's own default for ``maxEdges``, which a diagram cannot change: what has more is not
drawn.
"""

_SHAPES: dict[Look, tuple[str, str]] = {
    "model": ('(["', '"])'),
    "decision": ('{{"', '"}}'),
    "stop": ('(["', '"])'),
    "end": ('(("', '"))'),
    "fail": ('(("', '"))'),
    "pause": ('[/"', '"/]'),
}
# What ends a quoted label or begins HTML, Markdown or KaTeX in it; an underscore inside a word is
# none of these.
_MARKUP = re.compile(
    r"""["#&<>`\\*~]|\$(?=\$)|(?<=\$)\$|(?<!\w)_|_(?!\w)|^[-+]|(?<=\d)[.)](?=\s)""", re.ASCII
)


def mermaid(flow: Flow, marks: Marks | None = None) -> str:
    """The graph as a Mermaid flowchart, which GitHub, GitLab and many editors show."""
    area, chart = picture(flow, marks), _Mermaid()
    lines = ["flowchart TD", *written(area, chart)]
    shown = shown_marks(area)
    if shown:
        lines.append('  subgraph legend["legend"]')
        lines += [f'    legend_{mark}["{_text(LEGEND[mark])}"]:::{mark}' for mark in shown]
        lines.append("  end")
    for mark in shown:
        fill, stroke = COLOURS[mark]
        dashes = ",stroke-dasharray:5 3" if mark in DASHED else ""
        lines.append(
            f"  classDef {mark} "
            f"{f'fill:{fill},' if fill else ''}stroke:{stroke},stroke-width:3px{dashes}"
        )
    for number, mark in chart.coloured:
        lines.append(f"  linkStyle {number} stroke:{COLOURS[mark][1]},stroke-width:3px")
    return "\n".join(lines) + "\n"


class _Mermaid:
    closing = "end"

    def __init__(self) -> None:
        self.links = 0
        self.coloured: list[tuple[int, Mark]] = []
        """Links that are marked, by the number that Mermaid gives them: their place among all."""

    def dot(self, dot: Dot) -> str:
        before, after = _SHAPES.get(dot.look, ('["', '"]'))
        text = "<br/>".join(map(_text, labels_of(dot)))
        return f"n{dot.number}{before}{text}{after}{f':::{dot.mark}' if dot.mark else ''}"

    def opening(self, area: Area) -> list[str]:
        return [f'subgraph f{area.number}["{_text(area.name)}"]']

    def join(self, name: str) -> str:
        return f'{name}((" "))'

    def edge(self, source: str, target: str, line: Line | None = None) -> str:
        if line is not None and line.mark is not None:
            self.coloured.append((self.links, line.mark))
        self.links += 1
        arrow = "-.->" if line is not None and line.handled else "-->"
        text = f'|"{_text(line.label)}"|' if line is not None and line.labels else ""
        return f"{source} {arrow}{text} {target}"


def _text(text: str) -> str:
    return _MARKUP.sub(lambda match: f"#{ord(match[0])};", text) or " "
