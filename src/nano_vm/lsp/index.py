"""What a tree names, and where: steps, names that are written, names and steps that are read.

The parts of text come in; an `Index` goes out. What one part says is kept with the part, so an
edit costs the part that it is in.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field

from .tree import Node, Part, Place, parts_of, texts

BLOCKS = ("steps", "parallel_steps", "then", "otherwise", "default")
"""Fields of a step that may hold steps; `cases` holds several."""

TARGETS = ("next", "next_step", "then", "otherwise", "default")
"""Fields of a step that may hold a step's id; `cases` and `catch` hold several."""

GUARDS = ("guarded_by", "before", "after")
"""Fields of a policy's tools that name edges of steps: ``guard.then``."""

_REFERENCE = re.compile(r"(?<!\$)(?:\$\$)*\$(\{)?([A-Za-z_]\w*)((?:\.[A-Za-z_]\w*)*)")


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of one line."""

    line: int
    start: int
    end: int

    def moved(self, lines: int) -> Span:
        """The same some *lines* below."""
        return Span(self.line + lines, self.start, self.end)

    def holds(self, place: Place) -> bool:
        """Whether a cursor at *place* is in it or at its end."""
        return self.line == place[0] and self.start <= place[1] <= self.end


@dataclass(slots=True, eq=False)
class StepNode:
    """A step in the text. *scope* is the inline program that it is of; 0 is the document's own."""

    node: Node
    scope: int
    depth: int
    line: int = 0  # of the part that it is in

    @property
    def id(self) -> str | None:
        """Its id, where one is written."""
        return self.node.text("id")

    @property
    def type(self) -> str | None:
        """Its type, where one is written."""
        return self.node.text("type")

    @property
    def span(self) -> Span | None:
        """Where its id stands."""
        found = self.node.get("id")
        return span_of(found).moved(self.line) if found is not None else None

    @property
    def first(self) -> int:
        """Its first line."""
        return self.line + self.node.start[0]

    @property
    def last(self) -> int:
        """The line behind its last."""
        return self.line + self.node.end[0] + 1


@dataclass(frozen=True, slots=True)
class Use:
    """A place where something is named: *kind* is ``step`` or ``name`` where it is defined,
    ``jump`` where a step is led to, ``ref`` where a `$name` is read or an input is required,
    ``edge`` where a policy names a branch of it.
    """

    kind: str
    name: str
    span: Span
    scope: int = 0
    fields: str = ""  # behind the name of a ref: .output.amount
    how: str = ""  # of a name: input, output_key, set, item


@dataclass(slots=True)
class Said:
    """What one part says."""

    steps: list[StepNode] = field(default_factory=list)
    uses: list[Use] = field(default_factory=list)


def span_of(node: Node) -> Span:
    """The piece that a scalar takes, without its quotes, where that is on one line."""
    quote = 1 if node.quoted else 0
    end = node.end[1] if node.end[0] == node.start[0] else node.start[1] + len(node.value)
    return Span(node.start[0], node.start[1] + quote, max(end - quote, node.start[1] + quote))


def said_of(part: Part) -> Said:
    """What a part says, with lines that count from its first; kept."""
    key = f"{part.step} {part.name}"
    found: Said | None = part.parsed.kept.get(key)
    if found is None:
        found = part.parsed.kept[key] = _Reading(part).said
    return found


class _Reading:
    """One walk over a part."""

    def __init__(self, part: Part) -> None:
        self.said = Said()
        self.lines = part.lines
        self.scopes = 0
        root = part.parsed.root
        if root is None:
            return
        if part.step:
            for item in root.items if root.kind == "list" else [root]:
                self.step(item, 0, 0)
            return
        value = root.get(part.name) if root.kind == "map" and part.name else root
        if value is None:
            return
        if part.name == "inputs":
            self.inputs(value)
        elif part.name == "policy":
            self.policy(value)
        elif part.name == "steps" and value.kind == "list":
            self.block(value, 0, 0)
        elif part.name == "" and value.kind == "map":  # of one part: JSON, or one flow map
            self.program(value, 0)
        else:
            self.references(value, 0)

    def program(self, node: Node, scope: int) -> None:
        for key, value in node.pairs:
            if key.value == "inputs":
                self.inputs(value, scope)
            elif key.value == "steps":
                self.block(value, scope, 0)
            elif key.value == "policy":
                self.policy(value)
            else:
                self.references(value, scope)

    def block(self, node: Node, scope: int, depth: int) -> None:
        for item in node.items:
            if item.kind == "list":
                self.block(item, scope, depth)
            else:
                self.step(item, scope, depth)

    def step(self, node: Node, scope: int, depth: int) -> None:
        if node.kind != "map":
            return
        step = StepNode(node, scope, depth)
        self.said.steps.append(step)
        if step.id:
            self.use("step", step.id, node.get("id"), scope)
        kind = step.type
        for key, value in node.pairs:
            name = key.value
            if name == "default" and kind not in ("switch", None):
                continue  # a literal
            if name in BLOCKS and value.kind == "list":
                self.block(value, scope, depth + 1)
            elif name == "cases" and value.kind == "map":
                for _, target in value.pairs:
                    self.target(target, scope, depth)
            elif name == "catch" and value.kind == "list":
                for handler in value.items:
                    found = handler.get("next") if handler.kind == "map" else None
                    if found is not None:
                        self.target(found, scope, depth)
            elif name == "program" and value.kind == "map":
                self.scopes += 1
                self.program(value, self.scopes)
            elif name in TARGETS:
                self.target(value, scope, depth)
            elif name in ("output_key", "as"):
                how = "output_key" if name == "output_key" else "item"
                self.use("name", value.value, value, scope, how=how)
            elif name == "values" and kind in ("set", None) and value.kind == "map":
                for written, _ in value.pairs:
                    self.use("name", written.value, written, scope, how="set")
                self.references(value, scope)
            elif name not in ("id", "type"):
                self.references(value, scope)

    def target(self, node: Node, scope: int, depth: int) -> None:
        if node.kind == "list":
            self.block(node, scope, depth + 1)
        elif node.kind == "text" and not node.value.startswith("$"):
            self.use("jump", node.value, node, scope)

    def inputs(self, node: Node, scope: int = 0) -> None:
        properties = node.get("properties") if node.kind == "map" else None
        for name, _ in properties.pairs if properties is not None else ():
            self.use("name", name.value, name, scope, how="input")
        required = node.get("required") if node.kind == "map" else None
        for name in required.items if required is not None else ():
            self.use("ref", name.value, name, scope)

    def policy(self, node: Node) -> None:
        tools = node.get("tools") if node.kind == "map" else None
        for _, rule in tools.pairs if tools is not None else ():
            for name, value in rule.pairs:
                for edge in texts(value) if name.value in GUARDS else ():
                    step, dot, _ = edge.value.rpartition(".")
                    if dot:
                        span = span_of(edge)
                        at = Span(span.line, span.start, span.start + len(step))
                        self.said.uses.append(Use("edge", step, at))

    def references(self, node: Node, scope: int) -> None:
        for value in texts(node):
            (first, start), (last, end) = value.start, value.end
            for number in range(first, min(last + 1, len(self.lines))):
                line = self.lines[number]
                begin = start if number == first else 0
                for found in _REFERENCE.finditer(line, begin, end if number == last else len(line)):
                    span = Span(number, found.start(2), found.end(2))
                    self.said.uses.append(Use("ref", found[2], span, scope, found[3]))

    def use(self, kind: str, name: str, node: Node | None, scope: int, *, how: str = "") -> None:
        if node is not None and node.kind == "text" and name:
            self.said.uses.append(Use(kind, name, span_of(node), scope, how=how))


class Index:
    """All that the text of a program names."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.lines = text.split("\n")
        self.parts = parts_of(text)
        self._starts = [part.line for part in self.parts]

    def part_at(self, line: int) -> int:
        """The number of the part that a line is in."""
        return max(bisect_right(self._starts, line) - 1, 0)

    def steps(self) -> Iterator[StepNode]:
        """Every step, in order."""
        for part in self.parts:
            for step in said_of(part).steps:
                yield StepNode(step.node, step.scope, step.depth, part.line)

    def uses(self) -> Iterator[Use]:
        """Every place at which something is named, in order of the parts; scopes of inline programs
        are those of this text.
        """
        for number, part in enumerate(self.parts):
            for use in said_of(part).uses:
                scope = use.scope and number * 1000 + use.scope
                yield Use(use.kind, use.name, use.span.moved(part.line), scope, use.fields, use.how)

    def uses_at(self, line: int) -> Iterator[Use]:
        """Those of the part that a line is in."""
        if not self.parts:
            return
        number = self.part_at(line)
        part = self.parts[number]
        for use in said_of(part).uses:
            span = use.span.moved(part.line)
            if span.line == line:
                scope = use.scope and number * 1000 + use.scope
                yield Use(use.kind, use.name, span, scope, use.fields, use.how)

    def step_at(self, line: int, column: int | None = None) -> StepNode | None:
        """The innermost step that a line is in; of several on one line the one at *column*."""
        if not self.parts:
            return None
        part = self.parts[self.part_at(line)]
        found = None
        for known in said_of(part).steps:
            step = StepNode(known.node, known.scope, known.depth, part.line)
            if not step.first <= line < step.last:
                continue
            at = (line - part.line, column if column is not None else 0)
            if column is not None and not step.node.start <= at <= step.node.end:
                if step.node.start[0] == step.node.end[0]:
                    continue
            if found is None or step.depth >= found.depth:
                found = step
        return found

    def step_named(self, name: str) -> StepNode | None:
        """The step with this id, of the document's own program first."""
        inner = None
        for step in self.steps():
            if step.id == name:
                if step.scope == 0:
                    return step
                inner = inner or step
        return inner

    def program_node(self, name: str) -> tuple[Node, int] | None:
        """The value of a field of the program, and the line that its places count from."""
        for part in self.parts:
            root = part.parsed.root
            if not part.step and part.name in (name, "") and root is not None:
                found = root.get(name) if root.kind == "map" else None
                if found is not None:
                    return found, part.line
        return None
