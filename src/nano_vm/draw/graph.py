"""What is drawn of a `Flow`: dots, lines and areas, in whatever format. It is the graph that is
verified and compiled.

Left out is what each step has, the edge to its frame's failure, and what only closes a block: its
edges lead on to what follows. A fork holds its frames, as no edge but the fork enters a frame and
none leaves it. Nothing that a program says becomes markup: nodes are numbered, and labels are
escaped for each format.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
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
COLOURS: dict[Mark, tuple[str, str]] = {
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
"""Fill (none: that of the kind) and stroke."""

DASHED: tuple[Mark, ...] = ("untrusted", "secret")
"""Marks whose outline is dashed, since colour alone may not be seen."""

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


def labels_of(dot: Dot) -> list[str]:
    """What stands in a dot, line by line."""
    if dot.ends:
        return [dot.title]
    if dot.kind == "test":
        return [dot.line, *dot.notes]
    if dot.kind == "when":
        return [dot.title, dot.line, *dot.notes]
    return [dot.title, dot.kind, *([dot.line] if dot.line else []), *dot.notes]
