"""A `Flow` drawn: Mermaid, DOT or SVG text. What is drawn is the graph that is verified and
compiled.

Left out is what each step has, the edge to its frame's failure, and what only closes a block: its
edges lead on to what follows. A fork holds its frames, as no edge but the fork enters a frame and
none leaves it. Nothing that a program says becomes markup: nodes are numbered, and labels are
escaped for each format.

The SVG is laid out here, after K. Sugiyama et al., "Methods for Visual Understanding of
Hierarchical System Structures", 1981: layers by the longest path, order by barycenters, places by
least squares that keep the order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise
from typing import Any, Literal

from ..language.expr import EXPR
from ..language.flow import Flow, FrameGraph, Node
from ..language.program import (
    ApprovalStep,
    CallStep,
    LLMStep,
    LoopStep,
    MapStep,
    ParallelStep,
    SetStep,
    Step,
    ToolStep,
    WaitStep,
)
from ..language.semantics import Chooses, External, Stops, control, output

TITLE_CHARS = 40
LINE_CHARS = 44
EDGE_CHARS = 24
NOTE_CHARS = 60


Mark = Literal[
    "guard",
    "guarded",
    "refuted",
    "unproved",
    "untrusted",
    "secret",
    "taken",
    "skipped",
    "failed",
    "waits",
]


@dataclass(slots=True)
class Marks:
    """What is known of nodes and edges, to be shown: a mark and lines of text for a node; a mark
    for an edge, by node and label.
    """

    nodes: dict[int, Mark] = field(default_factory=dict)
    notes: dict[int, list[str]] = field(default_factory=dict)
    edges: dict[tuple[int, str], Mark] = field(default_factory=dict)


LEGEND: dict[Mark, str] = {
    "guard": "a guard, and the edge that must be crossed",
    "guarded": "all that is demanded of this call is proved",
    "refuted": "refuted: a run breaks it, this way",
    "unproved": "not proved",
    "untrusted": "has or carries untrusted values",
    "secret": "has or carries values with the label of a secret",
    "taken": "the way that the run took",
    "skipped": "skipped",
    "failed": "failed",
    "waits": "waits",
}
_COLOURS: dict[Mark, tuple[str, str]] = {  # fill (none: that of the kind) and stroke
    "guard": ("", "#1f6feb"),
    "guarded": ("#d3f2da", "#1a7f37"),
    "refuted": ("#ffdcd9", "#c0392b"),
    "unproved": ("#fff1c9", "#b7791f"),
    "untrusted": ("", "#8e44ad"),
    "secret": ("", "#0550ae"),
    "taken": ("#e3effb", "#1f6feb"),
    "skipped": ("#f2f2f2", "#999999"),
    "failed": ("#ffdcd9", "#c0392b"),
    "waits": ("#fff1c9", "#b7791f"),
}


Look = Literal["step", "model", "tool", "decision", "pause", "fork", "stop", "end", "fail"]
"""What a dot looks like, by what its node does."""


@dataclass(slots=True, eq=False)
class Dot:
    """What is drawn for a node: its labels, and its frames if it forks."""

    number: int
    kind: str  # the step's type, or when, test, end, fail
    look: Look
    title: str
    line: str = ""
    frames: list[Area] = field(default_factory=list)
    mark: Mark | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def ends(self) -> bool:
        """Whether it is an end of its frame."""
        return self.look in ("end", "fail")


@dataclass(slots=True)
class Line:
    """An edge between two dots of one area; ``handled`` is one that a failure takes."""

    source: Dot
    target: Dot
    labels: list[str]
    handled: bool = False
    back: bool = False
    mark: Mark | None = None

    @property
    def label(self) -> str:
        """All its labels in one."""
        return ", ".join(self.labels)


@dataclass(slots=True, eq=False)
class Area:
    """A frame: its dots in the order of the flow, and the lines between them."""

    number: int
    name: str
    kind: str
    dots: list[Dot] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    end: Dot | None = None


def picture(flow: Flow, marks: Marks | None = None) -> Area:
    """What is to be drawn of *flow*: the area of the run, with all others inside."""
    return _Picture(flow, marks or Marks()).area(flow.frames[0])


def shown_marks(area: Area) -> list[Mark]:
    """The marks that are seen in a picture, in the order of the legend."""
    found: set[Mark | None] = set()
    work = [area]
    while work:
        at = work.pop()
        found |= {dot.mark for dot in at.dots} | {line.mark for line in at.lines}
        work += [frame for dot in at.dots for frame in dot.frames]
    return [mark for mark in LEGEND if mark in found]


class _Picture:
    def __init__(self, flow: Flow, marks: Marks) -> None:
        self.flow = flow
        self.marks = marks
        self.inside: dict[int, list[Node]] = {}
        modes: dict[tuple[int, str], set[str]] = {}
        for node in flow.nodes:
            self.inside.setdefault(node.frame.index, []).append(node)
            if node.kind == "step":
                modes.setdefault((id(node.frame.names), node.step.id), set()).add(node.mode)
        self.twice = {key for key, found in modes.items() if len(found) > 1}

    def area(self, frame: FrameGraph) -> Area:
        area = Area(frame.index, label(frame.name, TITLE_CHARS), frame.kind)
        dots: dict[int, Dot] = {}
        for node in self.inside.get(frame.index, ()):
            if node.kind in ("step", "when", "test", "end", "fail"):
                dot = dots[node.index] = self.dot(node)
                dot.mark = self.marks.nodes.get(node.index)
                dot.notes = [
                    label(note, NOTE_CHARS) for note in self.marks.notes.get(node.index, ())
                ]
        lines: dict[tuple[int, int, bool, Mark | None], Line] = {}
        for index, dot in dots.items():
            for text, target, handled, mark in self.edges(self.flow.nodes[index]):
                line = lines.setdefault(
                    (index, target, handled, mark), Line(dot, dots[target], [], handled, mark=mark)
                )
                if text and text not in line.labels:
                    line.labels.append(text)
        targets = {target for _, target, _, _ in lines}
        area.end = dots[frame.end] if frame.end in targets else None
        area.lines = list(lines.values())
        shown = [index for index, dot in dots.items() if not dot.ends or index in targets]
        shown.sort(key=lambda index: (dots[index].ends, index))
        area.dots = [dots[index] for index in shown]
        return area

    def dot(self, node: Node) -> Dot:
        step = node.step
        if node.kind in ("end", "fail"):
            return Dot(node.index, node.kind, look_of(node), node.kind)
        if node.kind == "test":
            until = node.test.text if node.test is not None else None
            return Dot(
                node.index,
                "test",
                look_of(node),
                label(step.id, TITLE_CHARS),
                label(f"until {until}" if until else "again?", LINE_CHARS),
            )
        title = label(step.id, TITLE_CHARS)
        if (id(node.frame.names), step.id) in self.twice and node.mode == "jump":
            title += " (by jump)"
        if node.kind == "when":
            return Dot(
                node.index, "when", look_of(node), title, label(f"when {step.when}", LINE_CHARS)
            )
        kind = step.type.value
        return Dot(
            node.index,
            kind,
            look_of(node),
            title,
            label(described(step), LINE_CHARS),
            [self.area(f) for f in node.frames],
        )

    def edges(self, node: Node) -> Iterator[tuple[str, int, bool, Mark | None]]:
        """Label, target, whether a failure takes it, and its mark, of each edge that is drawn."""
        for edge in node.edges:
            if edge.label in ("error", "fork") or edge.by not in (-1, node.index):
                continue
            text = edge.label
            if text == "next":
                text = ""
            elif text == "catch":
                text = f"catch {', '.join(edge.errors)}"
            elif text.startswith("case:"):
                text = text[5:] or '""'
            handled = edge.label in ("catch", "skip")
            mark = self.marks.edges.get((node.index, edge.label))
            yield label(text, EDGE_CHARS), self.beyond(edge.target), handled, mark
        if node.kind == "step" and isinstance(node.control, Chooses):
            chooses = node.control
            if chooses.by == "value" and chooses.way("default") is None:
                yield "no match", node.frame.fail, True, None
            elif chooses.by == "condition" and len(chooses.ways) == 1:
                yield "not true", node.frame.fail, True, None

    def beyond(self, index: int) -> int:
        """The node that is drawn for the end of an edge."""
        node = self.flow.nodes[index]
        while node.kind == "close":
            node = self.flow.nodes[node.edges[0].target]
        return node.index


def look_of(node: Node) -> Look:
    """What the dot of *node* looks like."""
    match node.kind:
        case "end":
            return "end"
        case "fail":
            return "fail"
        case "when" | "test":
            return "decision"
    match node.control, output(node.step)[:1]:
        case Chooses(approval=None), _:
            return "decision"
        case _, [External("person" | "event" | "time")]:
            return "pause"
        case _, [External("model")]:
            return "model"
        case _, [External()]:
            return "tool"
        case Stops(), _:
            return "stop"
    return "fork" if node.frames else "step"


def described(step: Step) -> str:
    """What a step does, in one line."""
    match step:
        case LLMStep():
            if step.allowed_outputs:
                return f"one of {', '.join(step.allowed_outputs)}"
            return "by schema" if step.output_schema is not None else "text"
        case ToolStep():
            return f"{step.tool}({', '.join(step.args)})"
        case MapStep():
            return f"each {step.item_name} of {_written(step.over)}{_going_on(step)}"
        case LoopStep():
            return f"at most {step.max_iterations} times"
        case CallStep():
            return step.program if isinstance(step.program, str) else step.program.name
        case SetStep():
            return ", ".join(step.values)
        case ApprovalStep():
            return f"by {step.role}"
        case WaitStep():
            return f"for {step.event or step.until or f'{_written(step.seconds)} s'}"
        case ParallelStep():
            return f"{len(step.parallel_steps)} branches{_going_on(step)}"
    match control(step):
        case Chooses(condition=str(condition)):
            return condition
        case Chooses(on=on):
            return f"on {_written(on)}"
        case Stops(error):
            return error
    return ""


def _going_on(step: MapStep | ParallelStep) -> str:
    return ", null for one that fails" if step.on_item_error == "continue" else ""


def _written(value: Any) -> Any:
    """A value as a picture shows it: an expression without what wraps it."""
    return value[EXPR] if type(value) is dict and EXPR in value else value


def label(text: str, length: int) -> str:
    """*text* on one line of at most *length* visible characters."""
    words = " ".join(text[: 20 * length].split())
    plain = words
    if not words.isprintable():  # of nearly all texts, each character is
        plain = "".join(
            c if c.isprintable() or c in "\u200c\u200d" else c.encode("unicode_escape").decode()
            for c in words
        )
    return plain if len(plain) <= length else plain[: length - 1] + "…"


# --- Mermaid --------------------------------------------------------------------------------------

MERMAID_MAX_EDGES = 500
"""Mermaid's own default for ``maxEdges``, which a diagram cannot change: what has more is not
drawn.
"""

_MERMAID_SHAPES: dict[Look, tuple[str, str]] = {
    "model": ('(["', '"])'),
    "decision": ('{{"', '"}}'),
    "stop": ('(["', '"])'),
    "end": ('(("', '"))'),
    "fail": ('(("', '"))'),
    "pause": ('[/"', '"/]'),
}
# What ends a quoted label or begins HTML, Markdown or KaTeX in it; an underscore inside a word is
# none of these.
_MERMAID_MARKUP = re.compile(
    r"""["#&<>`\\*~]|\$(?=\$)|(?<=\$)\$|(?<!\w)_|_(?!\w)|^[-+]|(?<=\d)[.)](?=\s)""", re.ASCII
)


_MERMAID_EDGE = re.compile(r" *[nj]\d+ -\.?->")


def mermaid(flow: Flow, marks: Marks | None = None) -> str:
    """The graph as a Mermaid flowchart, which GitHub, GitLab and many editors show."""
    area = picture(flow, marks)
    lines = ["flowchart TD"]
    coloured: list[tuple[int, Mark]] = []
    _mermaid_area(area, lines, "  ", None, coloured)
    numbers: dict[int, int] = {}  # of a link, by its place in `lines`
    for at, text in enumerate(lines):
        if _MERMAID_EDGE.match(text):
            numbers[at] = len(numbers)
    shown = shown_marks(area)
    if shown:
        lines.append('  subgraph legend["legend"]')
        lines += [f'    legend_{mark}["{_mermaid_text(LEGEND[mark])}"]:::{mark}' for mark in shown]
        lines.append("  end")
    for mark in shown:
        fill, stroke = _COLOURS[mark]
        dashes = ",stroke-dasharray:5 3" if mark in ("untrusted", "secret") else ""
        lines.append(
            f"  classDef {mark} "
            f"{f'fill:{fill},' if fill else ''}stroke:{stroke},stroke-width:3px{dashes}"
        )
    for at, mark in coloured:
        lines.append(f"  linkStyle {numbers[at]} stroke:{_COLOURS[mark][1]},stroke-width:3px")
    return "\n".join(lines) + "\n"


def _mermaid_area(
    area: Area, lines: list[str], pad: str, join: str | None, coloured: list[tuple[int, Mark]]
) -> None:
    exits: dict[Dot, str] = {}
    for dot in area.dots:
        if dot is area.end and join is not None:
            continue
        before, after = _MERMAID_SHAPES.get(dot.look, ('["', '"]'))
        text = "<br/>".join(_mermaid_text(part) for part in _texts(dot))
        lines.append(
            f"{pad}n{dot.number}{before}{text}{after}{f':::{dot.mark}' if dot.mark else ''}"
        )
        if dot.frames:
            exits[dot] = f"j{dot.number}"
            for inner in dot.frames:
                lines.append(f'{pad}subgraph f{inner.number}["{_mermaid_text(inner.name)}"]')
                _mermaid_area(inner, lines, pad + "  ", exits[dot], coloured)
                lines.append(f"{pad}end")
            lines.append(f'{pad}j{dot.number}((" "))')
            for inner in dot.frames:
                if inner.dots:
                    lines.append(f"{pad}n{dot.number} --> n{inner.dots[0].number}")
                for out in _exits(inner, exits[dot]) if inner.end is not None else ():
                    if out[2].mark is not None:
                        coloured.append((len(lines), out[2].mark))
                    lines.append(f"{pad}{_mermaid_edge(*out)}")
    for line in area.lines:
        if line.target is area.end and join is not None:
            continue
        source = (
            f"n{line.source.number}"
            if line.handled
            else exits.get(line.source, f"n{line.source.number}")
        )
        if line.mark is not None:
            coloured.append((len(lines), line.mark))
        lines.append(f"{pad}{_mermaid_edge(source, f'n{line.target.number}', line)}")


def _exits(area: Area, join: str) -> Iterator[tuple[str, str, Line]]:
    """The lines to an area's end, as lines to the join of its fork."""
    for line in area.lines:
        if line.target is area.end:
            inner = (
                f"j{line.source.number}"
                if line.source.frames and not line.handled
                else f"n{line.source.number}"
            )
            yield inner, join, line


def _mermaid_edge(source: str, target: str, line: Line) -> str:
    arrow = "-.->" if line.handled else "-->"
    text = f'|"{_mermaid_text(line.label)}"|' if line.labels else ""
    return f"{source} {arrow}{text} {target}"


def _mermaid_text(text: str) -> str:
    return _MERMAID_MARKUP.sub(lambda match: f"#{ord(match[0])};", text) or " "


def _texts(dot: Dot) -> list[str]:
    """What stands in a dot, line by line."""
    if dot.ends:
        return [dot.title]
    if dot.kind == "test":
        return [dot.line, *dot.notes]
    if dot.kind == "when":
        return [dot.title, dot.line, *dot.notes]
    return [dot.title, dot.kind, *([dot.line] if dot.line else []), *dot.notes]


# --- DOT ------------------------------------------------------------------------------------------

_DOT_SHAPES: dict[Look, str] = {
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
    ]
    _dot_area(area, lines, "  ", None)
    shown = shown_marks(area)
    if shown:
        lines.append("  subgraph cluster_legend {")
        lines.append('    label="legend"; style=dashed;')
        lines += [
            f"    legend_{mark} [label={_dot_text(LEGEND[mark])}{_dot_mark(mark)}];"
            for mark in shown
        ]
        lines.append("  }")
    return "\n".join([*lines, "}"]) + "\n"


def _dot_mark(mark: Mark | None, shape: str = "") -> str:
    if mark is None:
        return ""
    fill, stroke = _COLOURS[mark]
    styles = [*(["rounded"] if "rounded" in shape else []), *(["filled"] if fill else [])]
    styles += ["dashed"] if mark in ("untrusted", "secret") else []
    style = f', style="{",".join(styles)}"' if styles else ""
    paint = f', fillcolor="{fill}"' if fill else ""
    return f'{style}{paint}, color="{stroke}", penwidth=3'


def _dot_area(area: Area, lines: list[str], pad: str, join: str | None) -> None:
    exits: dict[Dot, str] = {}
    for item in area.dots:
        if item is area.end and join is not None:
            continue
        text = _dot_text("\n".join(_texts(item)))
        shape = _DOT_SHAPES.get(item.look, "box")
        plain = shape.partition(",")[0] if item.mark is not None else shape
        lines.append(
            f"{pad}n{item.number} [label={text}, shape={plain}{_dot_mark(item.mark, shape)}];"
        )
        if item.frames:
            exits[item] = f"j{item.number}"
            for inner in item.frames:
                lines.append(f"{pad}subgraph cluster_{inner.number} {{")
                lines.append(f"{pad}  label={_dot_text(inner.name)}; style=dashed;")
                _dot_area(inner, lines, pad + "  ", exits[item])
                lines.append(f"{pad}}}")
            lines.append(f'{pad}j{item.number} [label="", shape=point];')
            for inner in item.frames:
                if inner.dots:
                    lines.append(f"{pad}n{item.number} -> n{inner.dots[0].number};")
                lines.extend(f"{pad}{_dot_edge(*out)}" for out in _exits(inner, exits[item]))
    for line in area.lines:
        if line.target is area.end and join is not None:
            continue
        source = (
            f"n{line.source.number}"
            if line.handled
            else exits.get(line.source, f"n{line.source.number}")
        )
        lines.append(f"{pad}{_dot_edge(source, f'n{line.target.number}', line)}")


def _dot_edge(source: str, target: str, line: Line) -> str:
    attributes = [f"label={_dot_text(line.label)}"] if line.labels else []
    if line.handled:
        attributes.append("style=dashed")
    if line.mark is not None:
        attributes.append(f'color="{_COLOURS[line.mark][1]}", penwidth=3')
    return f"{source} -> {target}" + (f" [{', '.join(attributes)}]" if attributes else "") + ";"


def _dot_text(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


# --- SVG ------------------------------------------------------------------------------------------

CHAR = 7.0  # width of a character at 12 px, for a wide sans-serif font
TITLE_CHAR = 7.6
TEXT_HEIGHT = 16.0
PAD = 10.0
GAP_X = 26.0
GAP_Y = 40.0
ROW_WIDTH = 1500.0  # frames of a fork beyond this stand in another row
MARGIN = 16.0
MAX_SPAN = 10
"""Layers that a line crosses; one to a place further away is a tag that names it, else a long
program is all lines.
"""
LONG = 40
PULL = 0.85
"""From so many layers on each box is drawn so far to the middle: else each join moves what follows
a little to one side, and a thousand of them make a staircase.
"""
SWEEPS = 6
LEGEND_HEIGHT = 22.0
LEGEND_SIGN = 28.0
# for a number of ports: lines side by side between the same boxes, whose labels stand beside them
TWINS = 0

_FILLS: dict[Look, tuple[str, str]] = {
    "model": ("#eef4ff", "#4a78c8"),
    "tool": ("#eefaf0", "#3f8f55"),
    "decision": ("#fff8e6", "#c08a1e"),
    "stop": ("#fdeeee", "#c0392b"),
    "end": ("#f3f3f3", "#666666"),
    "fail": ("#fdeeee", "#c0392b"),
    "pause": ("#f7effc", "#8e5bb0"),
}
_FORK = ("#fafafa", "#8a8a8a")


@dataclass(slots=True, eq=False)
class _Box:
    """Something with a place: a dot, or a bend of a line that crosses a layer (``dot`` is None)."""

    dot: Dot | None
    width: float
    height: float
    layer: int = 0
    x: float = 0.0  # of its middle
    y: float = 0.0  # of its top
    # areas, from the box's corner
    inner: list[tuple[_Drawing, float, float, str]] = field(default_factory=list)
    ups: list[_Box] = field(default_factory=list)
    downs: list[_Box] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)  # lines that are only named, below the shape
    shape: float = 0.0  # width of the shape, where its tags are wider


@dataclass(slots=True, eq=False)
class _Drawing:
    """An area laid out, from (0, 0)."""

    width: float = 0.0
    height: float = 0.0
    layers: list[list[_Box]] = field(default_factory=list)
    tops: list[float] = field(default_factory=list)
    bottoms: list[float] = field(default_factory=list)
    routes: list[tuple[Line, list[_Box]]] = field(default_factory=list)
    backs: list[tuple[Line, _Box, _Box, float]] = field(default_factory=list)


def svg(flow: Flow, marks: Marks | None = None) -> str:
    """The graph as an SVG image, laid out here."""
    area = picture(flow, marks)
    drawing = _lay_out(area, root=True)
    shown = shown_marks(area)
    width, height = drawing.width + 2 * MARGIN, drawing.height + 2 * MARGIN
    if shown:
        width = max(
            width, max(len(LEGEND[mark]) for mark in shown) * CHAR + 2 * MARGIN + LEGEND_SIGN + PAD
        )
        height += MARGIN + len(shown) * LEGEND_HEIGHT
    name = escape(label(flow.program.name, 200))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" font-family="Helvetica, Arial, sans-serif" '
        f'font-size="12" role="img">',
        f"<title>{name}</title>",
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto">'
        '<path d="M0,0.5 L8,4 L0,7.5 z" fill="#555"/></marker></defs>',
        '<rect width="100%" height="100%" fill="#fff"/>',
    ]
    arrows = "".join(
        f'<marker id="arrow-{mark}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="14" '
        f'markerHeight="14" '
        f'markerUnits="userSpaceOnUse" orient="auto"><path d="M0,0.5 L8,4 L0,7.5 z" '
        f'fill="{_COLOURS[mark][1]}"/></marker>'
        for mark in shown
    )
    if arrows:
        parts.append(f"<defs>{arrows}</defs>")
    _draw(drawing, MARGIN, MARGIN, parts)
    for number, mark in enumerate(shown):
        top = drawing.height + 3 * MARGIN + number * LEGEND_HEIGHT - MARGIN / 2
        paint = _paint(mark, ("#fff", "#777777"))
        parts.append(
            f'<rect x="{MARGIN:.1f}" y="{top:.1f}" width="{LEGEND_SIGN:.1f}" height="14" rx="3" '
            f"{paint}/>"
        )
        parts.append(
            _text(MARGIN + LEGEND_SIGN + PAD, top + 11, LEGEND[mark], "start", 'fill="#444"')
        )
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


def _lay_out(area: Area, *, root: bool) -> _Drawing:
    drawing = _Drawing()
    entering = sum(line.target is area.end for line in area.lines)
    dots = [d for d in area.dots if root or d is not area.end or entering > 1]
    kept = set(dots)
    lines = [line for line in area.lines if line.source in kept and line.target in kept]
    boxes = {d: _measure(d, root=root) for d in dots}
    _mark_back(dots, lines)
    _assign_layers(dots, lines, boxes)
    count = max((box.layer for box in boxes.values()), default=-1) + 1
    drawing.layers = [[] for _ in range(count)]
    for d in dots:
        drawing.layers[boxes[d].layer].append(boxes[d])
    backs = []
    for line in lines:
        source, target = boxes[line.source], boxes[line.target]
        if line.back:
            backs.append((line, source, target))
        elif target.layer - source.layer > MAX_SPAN:
            text = (
                f"{line.label} \u2192 {line.target.title}"
                if line.labels
                else f"\u2192 {line.target.title}"
            )
            source.shape = source.shape or source.width
            source.tags.append(text)
            source.height += TEXT_HEIGHT
            source.width = max(source.width, len(text) * CHAR + 2 * PAD)
        else:
            drawing.routes.append((line, _route(source, target, drawing.layers)))
    _order(drawing.layers)
    _place(drawing, backs)
    return drawing


def _measure(item: Dot, *, root: bool) -> _Box:
    if item.look == "end" and not root:
        return _Box(item, 12, 12)
    if item.ends:
        return _Box(item, 56, 26)
    texts = _texts(item)
    width = (
        max(len(texts[0]) * TITLE_CHAR, *(len(t) * CHAR for t in texts[1:]), 60.0)
        if len(texts) > 1
        else len(texts[0]) * CHAR
    )
    box = _Box(item, width + 2 * PAD, len(texts) * TEXT_HEIGHT + PAD)
    if item.look == "decision":
        box.width += 24
    if item.frames:
        top, x, height = box.height + 4, PAD, 0.0
        rows: list[tuple[float, int]] = [(0.0, 0)]  # width and first frame of each
        for i, frame in enumerate(item.frames):
            drawing = _lay_out(frame, root=False)
            name = frame.name if len(item.frames) > 1 else ""
            w, h = _frame_size(drawing, name)
            if x > PAD and x + w > ROW_WIDTH:
                top, x, height = top + height + PAD, PAD, 0.0
                rows.append((0.0, i))
            box.inner.append((drawing, x, top, name))
            x += w + PAD
            height = max(height, h)
            rows[-1] = (x, rows[-1][1])
        box.width, box.height = max(box.width, *(width for width, _ in rows)), top + height + PAD
        for (width, first), (_, after) in zip(
            rows, [*rows[1:], (0.0, len(item.frames))], strict=True
        ):
            shift = (box.width - width) / 2  # each row stands in the middle
            box.inner[first:after] = [
                (d, left + shift, below, name) for d, left, below, name in box.inner[first:after]
            ]
    return box


def _frame_size(drawing: _Drawing, name: str) -> tuple[float, float]:
    """Width and height of a frame inside its fork."""
    head = TEXT_HEIGHT if name else 0.0
    return max(drawing.width, len(name) * CHAR) + 2 * PAD, drawing.height + head + 2 * PAD


def _mark_back(dots: list[Dot], lines: list[Line]) -> None:
    """Which lines lead back: those of loops, and in a faulty program those of a circle."""
    leaving: dict[Dot, list[Line]] = {d: [] for d in dots}
    for line in lines:
        leaving[line.source].append(line)
    state: dict[Dot, int] = {}
    for start in dots:
        if start in state:
            continue
        state[start] = 1
        stack = [(start, iter(leaving[start]))]
        while stack:
            at, rest = stack[-1]
            for line in rest:
                if state.get(line.target) == 1:
                    line.back = True
                elif line.target not in state:
                    state[line.target] = 1
                    stack.append((line.target, iter(leaving[line.target])))
                    break
            else:
                state[at] = 2
                stack.pop()


def _assign_layers(dots: list[Dot], lines: list[Line], boxes: dict[Dot, _Box]) -> None:
    """The longest path from a dot without predecessors."""
    missing = dict.fromkeys(dots, 0)
    leaving: dict[Dot, list[Dot]] = {d: [] for d in dots}
    for line in lines:
        if not line.back:
            missing[line.target] += 1
            leaving[line.source].append(line.target)
    ready = [d for d in dots if not missing[d]]
    for d in ready:  # grows
        for target in leaving[d]:
            boxes[target].layer = max(boxes[target].layer, boxes[d].layer + 1)
            missing[target] -= 1
            if not missing[target]:
                ready.append(target)


def _route(source: _Box, target: _Box, layers: list[list[_Box]]) -> list[_Box]:
    """The boxes that a line passes, with a bend in each layer between."""
    route = [source]
    for layer in range(source.layer + 1, target.layer):
        bend = _Box(None, 8, 0, layer)
        layers[layer].append(bend)
        route.append(bend)
    route.append(target)
    for above, below in pairwise(route):
        above.downs.append(below)
        below.ups.append(above)
    return route


def _order(layers: list[list[_Box]]) -> None:
    """Fewer crossings: each layer by the mean place of its neighbours, downwards and upwards in
    turn.
    """
    for sweep in range(SWEEPS):
        down = sweep % 2 == 0
        place: dict[_Box, float] = {}
        for layer in layers if down else reversed(layers):
            for i, box in enumerate(layer):
                near = box.ups if down else box.downs
                box.x = sum(place[n] for n in near) / len(near) if near else float(i)
            layer.sort(key=lambda box: box.x)
            place.update((box, float(i)) for i, box in enumerate(layer))


def _place(drawing: _Drawing, backs: list[tuple[Line, _Box, _Box]]) -> None:
    layers = drawing.layers
    for layer in layers:
        x = 0.0
        for box in layer:
            box.x = x + box.width / 2
            x += box.width + GAP_X
        for box in layer:
            box.x -= (x - GAP_X) / 2
    for sweep in range(2 * SWEEPS):
        down = sweep % 2 == 0
        for layer in layers if down else reversed(layers):
            _settle(layer, down, PULL if len(layers) > LONG else 1.0)
    y = 0.0
    for layer in layers:
        height = max(box.height for box in layer)
        for box in layer:
            box.y = y
        drawing.tops.append(y)
        drawing.bottoms.append(y + height)
        y += height + GAP_Y
    boxes = [box for layer in layers for box in layer]
    left = min((box.x - box.width / 2 for box in boxes), default=0.0)
    for box in boxes:
        box.x -= left
    right = max((box.x + box.width / 2 for box in boxes), default=0.0)
    for line, source, target in backs:  # up the right side, clear of what stands between
        between = [b for layer in layers[target.layer : source.layer + 1] for b in layer]
        lane = max(b.x + b.width / 2 for b in between) + 14
        while any(abs(lane - other) < 10 for *_, other in drawing.backs):
            lane += 10
        drawing.backs.append((line, source, target, lane))
        right = max(right, lane + len(line.label) * CHAR + 8)
    drawing.width, drawing.height = right, max(y - GAP_Y, 0.0)


def _settle(layer: list[_Box], down: bool, pull: float) -> None:
    """Each box as near to the mean of its neighbours as the order allows: least squares by pooling
    (Ayer, 1955).
    """
    pools: list[list[float]] = []  # sum of weight times wish, weight, number of boxes
    offsets, offset = [], 0.0
    for i, box in enumerate(layer):
        if i:
            offset += layer[i - 1].width / 2 + GAP_X + box.width / 2
        offsets.append(offset)
        near = box.ups if down else box.downs
        wish = sum(n.x for n in near) / len(near) if near else box.x
        wish *= pull
        # bends first: straight lines are easiest to follow
        weight = 8.0 if box.dot is None else 1.0 if near else 0.1
        pools.append([weight * (wish - offset), weight, 1])
        while len(pools) > 1 and pools[-2][0] / pools[-2][1] > pools[-1][0] / pools[-1][1]:
            last = pools.pop()
            pools[-1] = [a + b for a, b in zip(pools[-1], last, strict=True)]
    places = (total / weight for total, weight, count in pools for _ in range(int(count)))
    for box, own, at in zip(layer, offsets, places, strict=True):
        box.x = at + own


def _draw(drawing: _Drawing, dx: float, dy: float, parts: list[str]) -> None:
    leaving: dict[_Box, list[list[_Box]]] = {}
    entering: dict[_Box, list[list[_Box]]] = {}
    for _, route in drawing.routes:
        leaving.setdefault(route[0], []).append(route)
        entering.setdefault(route[-1], []).append(route)
    for routes in leaving.values():
        routes.sort(key=lambda route: route[1].x)
    for routes in entering.values():
        routes.sort(key=lambda route: route[-2].x)
    labels: list[str] = []
    for line, route in drawing.routes:
        start = dx + _port(route[0], leaving[route[0]], route)
        end = dx + _port(route[-1], entering[route[-1]], route)
        twins = sum(other[-1] is route[-1] for other in leaving[route[0]]) > 1
        ports = TWINS if twins else len(leaving[route[0]])
        parts.append(_curve(drawing, line, route, start, end, ports, dx, dy, labels))
    for line, source, target, lane in drawing.backs:
        y0, y1 = dy + source.y + source.height / 2, dy + target.y + target.height / 2
        x0, x1, x = dx + source.x + source.width / 2, dx + target.x + target.width / 2, dx + lane
        path = f"M{x0:.1f},{y0:.1f} H{x - 8:.1f} Q{x:.1f},{y0:.1f} {x:.1f},{y0 - 8:.1f}"
        path += f" V{y1 + 8:.1f} Q{x:.1f},{y1:.1f} {x - 8:.1f},{y1:.1f} H{x1:.1f}"
        parts.append(_path(path, line))
        labels.append(_edge_text(x + 5, (y0 + y1) / 2, line.label, "start"))
    for layer in drawing.layers:
        for box in layer:
            if box.dot is not None:
                _draw_box(box, box.dot, dx, dy, parts)
    parts += labels


def _port(box: _Box, routes: list[list[_Box]], route: list[_Box]) -> float:
    """Where at the box one of its lines begins or ends."""
    if len(routes) == 1:
        return box.x
    number = next(i for i, other in enumerate(routes) if other is route)
    spread = min((box.shape or box.width) * 0.6, 40.0 * (len(routes) - 1))
    return box.x + spread * (number / (len(routes) - 1) - 0.5)


def _curve(
    drawing: _Drawing,
    line: Line,
    route: list[_Box],
    start: float,
    end: float,
    ports: int,
    dx: float,
    dy: float,
    labels: list[str],
) -> str:
    x, y = start, dy + route[0].y + route[0].height
    path = f"M{x:.1f},{y:.1f}"
    for i, box in enumerate(route[1:]):
        bottom, top = dy + drawing.bottoms[box.layer - 1], dy + drawing.tops[box.layer]
        if bottom > y:
            path += f" V{bottom:.1f}"
        to, middle = end if box is route[-1] else dx + box.x, (bottom + top) / 2
        path += f" C{x:.1f},{middle:.1f} {to:.1f},{middle:.1f} {to:.1f},{top:.1f}"
        if i == 0 and line.labels:
            if ports == TWINS:
                anchor, at = ("end", -5.0) if start < dx + route[0].x else ("start", 5.0)
            else:
                anchor, at = (
                    ("middle", 0.0)
                    if ports < 3
                    else ("end", 4.0)
                    if to < x - 1
                    else ("start", -4.0)
                )
            labels.append(_edge_text((x + to) / 2 + at, middle + 3, line.label, anchor))
        x, y = to, top
        if box is not route[-1]:
            y = dy + drawing.bottoms[box.layer]
            path += f" V{y:.1f}"
    return _path(path, line)


def _path(path: str, line: Line) -> str:
    dashes = ' stroke-dasharray="4 3"' if line.handled else ""
    colour, wide, arrow = (
        ("#555", "1.2", "arrow")
        if line.mark is None
        else (_COLOURS[line.mark][1], "2.6", f"arrow-{line.mark}")
    )
    return (
        f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="{wide}"{dashes} '
        f'marker-end="url(#{arrow})"/>'
    )


def _paint(mark: Mark | None, plain: tuple[str, str]) -> str:
    """Fill and stroke of a box of this kind, or of what is marked."""
    fill, stroke = plain
    if mark is None:
        return f'fill="{fill}" stroke="{stroke}" stroke-width="1.2"'
    dashes = ' stroke-dasharray="5 3"' if mark in ("untrusted", "secret") else ""
    return (
        f'fill="{_COLOURS[mark][0] or fill}" stroke="{_COLOURS[mark][1]}" '
        f'stroke-width="2.8"{dashes}'
    )


def _draw_box(box: _Box, item: Dot, dx: float, dy: float, parts: list[str]) -> None:
    w, h = box.shape or box.width, box.height
    x, y = dx + box.x - w / 2, dy + box.y
    h -= len(box.tags) * TEXT_HEIGHT
    paint = _paint(
        item.mark, _FORK if item.frames else _FILLS.get(item.look, ("#f7f7f7", "#777777"))
    )
    if box.width == 12 and item.look == "end":
        parts.append(f'<circle cx="{x + 6:.1f}" cy="{y + 6:.1f}" r="5" fill="#666"/>')
        return
    if item.look == "decision":
        m = y + h / 2
        corners = [
            (x, m),
            (x + 14, y),
            (x + w - 14, y),
            (x + w, m),
            (x + w - 14, y + h),
            (x + 14, y + h),
        ]
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in corners)
        parts.append(f'<polygon points="{points}" {paint}/>')
    else:
        round_ = h / 2 if item.ends else 10 if item.look == "model" or item.frames else 3
        parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" rx="{round_:.0f}" '
            f"{paint}/>"
        )
    texts = _texts(item)
    top = y + PAD / 2 + 12 if not item.ends else y + 17
    for i, text in enumerate(texts):
        style = 'font-weight="bold"' if i == 0 and len(texts) > 1 else 'fill="#555"' if i else ""
        if item.notes and i >= len(texts) - len(item.notes):
            style = 'fill="#333" font-size="11" font-style="italic"'
        parts.append(_text(x + w / 2, top + i * TEXT_HEIGHT, text, "middle", style))
    for i, tag in enumerate(box.tags):
        parts.append(
            _text(
                x + w / 2,
                y + h + 12 + i * TEXT_HEIGHT,
                tag,
                "middle",
                'fill="#555" font-size="11" font-style="italic"',
            )
        )
    for drawing, left, below, name in box.inner:
        head = TEXT_HEIGHT if name else 0.0
        width, height = _frame_size(drawing, name)
        parts.append(
            f'<rect x="{x + left:.1f}" y="{y + below:.1f}" width="{width:.1f}" '
            f'height="{height:.1f}" rx="6" '
            'fill="#fff" stroke="#aaa" stroke-dasharray="3 3"/>'
        )
        if name:
            parts.append(
                _text(x + left + 6, y + below + 13, name, "start", 'fill="#555" font-size="11"')
            )
        inset = (width - drawing.width) / 2
        _draw(drawing, x + left + inset, y + below + head + PAD, parts)


def _text(x: float, y: float, text: str, anchor: str, style: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {style}>{escape(text)}</text>'


def _edge_text(x: float, y: float, text: str, anchor: str) -> str:
    """A label that stays readable over a line: its white outline is drawn first."""
    outline = _text(x, y, text, anchor, 'fill="#fff" stroke="#fff" stroke-width="4" font-size="11"')
    return outline + _text(x, y, text, anchor, 'fill="#444" font-size="11"')


FORMATS: dict[str, Callable[[Flow, Marks | None], str]] = {
    "mermaid": mermaid,
    "dot": dot,
    "svg": svg,
}
"""The writers by name."""
