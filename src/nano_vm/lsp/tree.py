"""Text of a program, whole or not, comes in; a tree with the place of every node goes out.

The text is cut into parts: one for each field of the program, and one for each of its steps. Each
is parsed for itself, and kept by its text, so an edit costs the part that it is in. Where a part is
no YAML, the line that breaks it is left out and the rest is read: a broken line costs its own
answers only. Lines and columns are from 0 here, as editors count.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

MAX_REPAIRS = 20
"""Lines of one part that are left out before it is given up."""

MAX_NODES = 20_000
"""Nodes of one part: what is larger is not text that a person edits."""

MAX_TEXT = 4 * 1024 * 1024
"""Characters of a document; more is not read."""

KEPT_PARTS = 10_000
"""Parts that are kept by their text: those of some long programs."""

Place = tuple[int, int]
"""A line and a column."""


@dataclass(slots=True, eq=False)
class Node:
    """A value: a ``map``, a ``list`` or, of any scalar or alias, ``text``; from its first character
    to behind its last. ``plain`` is a scalar without quotes, block or tag, which can be null.
    """

    kind: str
    start: Place
    end: Place = (0, 0)
    value: str = ""
    quoted: bool = False
    plain: bool = False
    pairs: list[tuple[Node, Node]] = field(default_factory=list)
    items: list[Node] = field(default_factory=list)

    def get(self, key: str) -> Node | None:
        """The value of *key*, of a map."""
        return next((value for name, value in self.pairs if name.value == key), None)

    def text(self, key: str) -> str | None:
        """The scalar under *key*."""
        found = self.get(key)
        return found.value if found is not None and found.kind == "text" else None


@dataclass(slots=True, eq=False)
class Parsed:
    """What a part of the text says; lines count from its first. *broken* were left out; *kept* is
    what readers of it have made of it.
    """

    root: Node | None
    broken: tuple[int, ...] = ()
    kept: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Part:
    """A field of the program, or one step: its text, its first line, and what it says."""

    name: str
    line: int
    lines: list[str]
    parsed: Parsed
    step: bool = False

    @property
    def end(self) -> int:
        """The line behind its last."""
        return self.line + len(self.lines)


_KEPT: OrderedDict[str, Parsed] = OrderedDict()

_FIELD = re.compile(r"([A-Za-z_$][\w-]*)[ \t]*:(?=[ \t]|$)")
_ITEM = re.compile(r"( *)-(?=[ \t]|$)")


def parts_of(text: str) -> list[Part]:
    """The parts of *text* in order."""
    return [
        Part(name, line, lines, parsed("\n".join(lines)), step)
        for name, line, lines, step in _cut(text[:MAX_TEXT].split("\n"))
    ]


def _cut(lines: list[str]) -> Iterator[tuple[str, int, list[str], bool]]:
    """Name, first line and lines of each part, and whether it is a step."""
    starts: list[tuple[int, str, bool]] = []
    inside, indent = "", -1
    for number, line in enumerate(lines):
        found = _FIELD.match(line)
        if found is not None:
            inside, indent = found[1], -1
            starts.append((number, inside, False))
            continue
        item = _ITEM.match(line) if inside == "steps" else None
        if item is not None and (indent < 0 or len(item[1]) == indent):
            indent = len(item[1])
            starts.append((number, "steps", True))
    if not starts or starts[0][0] > 0:
        starts.insert(0, (0, "", False))
    ends = [start for start, _, _ in starts[1:]] + [len(lines)]
    for (start, name, step), end in zip(starts, ends, strict=True):
        yield name, start, [line.rstrip("\r") for line in lines[start:end]], step


def parsed(text: str) -> Parsed:
    """What *text* says, as far as it is YAML; kept."""
    found = _KEPT.get(text)
    if found is None:
        found = _KEPT[text] = _repaired(text)
        if len(_KEPT) > KEPT_PARTS:
            _KEPT.popitem(last=False)
    else:
        _KEPT.move_to_end(text)
    return found


def _repaired(text: str) -> Parsed:
    lines = text.split("\n")
    broken: list[int] = []
    for _ in range(MAX_REPAIRS):
        try:
            return Parsed(_read("\n".join(lines)), tuple(sorted(set(broken))))
        except yaml.YAMLError as error:
            wrong = _wrong_line(error, lines)
            if wrong is None:
                break
            broken.append(wrong)
            # of an item its dash stays, so that what is below it is an item still; but once only
            item = _ITEM.match(lines[wrong])
            lines[wrong] = item[0] if item is not None and lines[wrong].strip() != "-" else ""
        except (ValueError, RecursionError):  # a character that YAML does not allow
            break
    return Parsed(None, tuple(range(len(lines))))


_OPENED = ("flow", "quoted scalar", "simple key", "block scalar", "tag", "anchor", "alias")


def _wrong_line(error: yaml.YAMLError, lines: list[str]) -> int | None:
    """The line to leave out: the one that opened what is not closed, else the one at which the
    reader stopped, or the last before it that says something.
    """
    context, problem = getattr(error, "context_mark", None), getattr(error, "problem_mark", None)
    words = str(getattr(error, "context", "") or "")
    at = None
    if context is not None and any(word in words for word in _OPENED):
        at = context.line
    elif problem is not None:
        at = problem.line
    if at is None:
        position = getattr(error, "position", None)  # of a character that is not allowed
        return next((i for i, line in enumerate(lines) if line.strip()), None) if position else None
    at = min(at, len(lines) - 1)
    while at >= 0 and (not lines[at].strip() or (at == 0 and not lines[at].strip(" -"))):
        at -= 1
    return at if at >= 0 else None


def _read(text: str) -> Node | None:
    """The first document in *text*, built from its events without recursion."""
    loader = LOADER(text)
    root: Node | None = None
    stack: list[tuple[Node, list[Node]]] = []  # a container, and the key that waits for its value
    count = 0
    try:
        while True:
            event = loader.get_event()
            if event is None or isinstance(event, (yaml.StreamEndEvent, yaml.DocumentEndEvent)):
                return root
            if isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
                node, _ = stack.pop()
                node.end = _trimmed(node, _mark(event.end_mark))
                continue
            node_of = _node(event)
            if node_of is None:
                continue
            count += 1
            if count > MAX_NODES:
                raise ValueError("too many nodes")
            if stack:
                _put(stack, node_of)
            else:
                root = node_of
            if node_of.kind != "text":
                stack.append((node_of, []))
    finally:
        loader.dispose()


def _node(event: Any) -> Node | None:
    """The node that begins with *event*, if one does."""
    if isinstance(event, yaml.ScalarEvent):
        start, end = _mark(event.start_mark), _mark(event.end_mark)
        plain = not event.style and event.tag is None
        return Node("text", start, end, event.value, event.style in ("'", '"'), plain)
    if isinstance(event, yaml.AliasEvent):
        return Node("text", _mark(event.start_mark), _mark(event.end_mark))
    if isinstance(event, yaml.MappingStartEvent):
        return Node("map", _mark(event.start_mark))
    if isinstance(event, yaml.SequenceStartEvent):
        return Node("list", _mark(event.start_mark))
    return None


def _put(stack: list[tuple[Node, list[Node]]], node: Node) -> None:
    container, waiting = stack[-1]
    if container.kind == "list":
        container.items.append(node)
    elif waiting:
        container.pairs.append((waiting.pop(), node))
    else:
        waiting.append(node)


def _mark(mark: Any) -> Place:
    return mark.line, mark.column


def _trimmed(node: Node, end: Place) -> Place:
    """The end of a container: of a block that of its last child, since the reader stops at what
    follows.
    """
    if end[1] == 0 or end[0] > node.start[0]:
        children = [value for _, value in node.pairs] or node.items
        if children and children[-1].end >= node.start:
            last = children[-1].end
            return last if last[0] < end[0] else end
    return end


def texts(node: Node) -> Iterator[Node]:
    """Each scalar value below *node*, keys left out."""
    work = [node]
    while work:
        at = work.pop()
        if at.kind == "text":
            yield at
        elif at.kind == "list":
            work += reversed(at.items)
        else:
            work += [value for _, value in reversed(at.pairs)]
