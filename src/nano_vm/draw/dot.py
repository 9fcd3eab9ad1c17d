"""The graph of a program in the language of Graphviz."""

from __future__ import annotations

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

_SHAPES: dict[Look, str] = {
    "model": "box, style=rounded",
    "decision": "hexagon",
    "stop": "box, color=red",
    "end": "oval",
    "fail": "oval, color=red",
    "pause": "parallelogram",
}


def dot(flow: Flow, marks: Marks | None = None) -> str:
    """The graph in Graphviz's language."""
    area = picture(flow, marks)
    lines = [
        "digraph program {",
        "  node [shape=box, fontname=sans-serif, fontsize=11];",
        "  edge [fontname=sans-serif, fontsize=10];",
        *written(area, _Graphviz()),
    ]
    shown = shown_marks(area)
    if shown:
        lines.append("  subgraph cluster_legend {")
        lines.append('    label="legend"; style=dashed;')
        lines += [
            f"    legend_{mark} [label={_text(LEGEND[mark])}{_mark(mark)}];" for mark in shown
        ]
        lines.append("  }")
    return "\n".join([*lines, "}"]) + "\n"


class _Graphviz:
    closing = "}"

    def dot(self, dot: Dot) -> str:
        text = _text("\n".join(labels_of(dot)))
        shape = _SHAPES.get(dot.look, "box")
        plain = shape.partition(",")[0] if dot.mark is not None else shape
        return f"n{dot.number} [label={text}, shape={plain}{_mark(dot.mark, shape)}];"

    def opening(self, area: Area) -> list[str]:
        return [
            f"subgraph cluster_{area.number} {{",
            f"  label={_text(area.name)}; style=dashed;",
        ]

    def join(self, name: str) -> str:
        return f'{name} [label="", shape=point];'

    def edge(self, source: str, target: str, line: Line | None = None) -> str:
        attributes = []
        if line is not None and line.labels:
            attributes.append(f"label={_text(line.label)}")
        if line is not None and line.handled:
            attributes.append("style=dashed")
        if line is not None and line.mark is not None:
            attributes.append(f'color="{COLOURS[line.mark][1]}", penwidth=3')
        return f"{source} -> {target}" + (f" [{', '.join(attributes)}]" if attributes else "") + ";"


def _mark(mark: Mark | None, shape: str = "") -> str:
    if mark is None:
        return ""
    fill, stroke = COLOURS[mark]
    styles = [*(["rounded"] if "rounded" in shape else []), *(["filled"] if fill else [])]
    styles += ["dashed"] if mark in DASHED else []
    style = f', style="{",".join(styles)}"' if styles else ""
    paint = f', fillcolor="{fill}"' if fill else ""
    return f'{style}{paint}, color="{stroke}", penwidth=3'


def _text(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
