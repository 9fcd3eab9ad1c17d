"""Where a cursor is in text that is being typed: the fields around it, and what is begun.

A part's lines and a place come in, a `Cursor` goes out. The text is read up to the cursor and no
further, so it may break anywhere; nothing is asked of the parser.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from .tree import Place

_KEY = re.compile(
    r"""("(?:[^"\\]|\\.)*"|'(?:[^']|'')*'|[^\s#,\[\]{}:'"][^:#,\[\]{}]*?)\s*:(?=\s|$)"""
)
_BLOCK_TEXT = re.compile(r"[|>][-+0-9]*\s*(#.*)?$")


@dataclass(slots=True)
class Frame:
    """A map or list around the cursor: the key whose value the cursor is in, and the scalars under
    the keys before.
    """

    indent: int
    kind: str = "map"
    key: str | None = None
    seen: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Cursor:
    """What is around a cursor, the innermost last. *key* is the field whose value is begun, None
    where a field's own name is; *text* is what stands of the value or name before the cursor.
    """

    frames: list[Frame]
    key: str | None
    text: str
    column: int = 0  # at which the line begins, or its end where nothing stands on it
    inside_text: bool = False  # of a block of text, or of quotes
    flow: bool = False

    @property
    def around(self) -> list[Frame]:
        """The frames of the map or list that the cursor is in, that one last. A field's name that
        is begun deeper than the fields above it is in a map that has none yet.
        """
        last = self.frames[-1] if self.frames else None
        if self.key is None and not self.flow and last is not None:
            deeper = last.kind == "map" and last.key is not None and self.column > last.indent
            if deeper:
                return [*self.frames, Frame(self.column)]
        return self.frames

    @property
    def container(self) -> tuple[str, ...]:
        """The keys around the map or list that the cursor is in, ``-`` for an item of a list."""
        return _path(self.around[:-1]) + (("-",) if self.in_list else ())

    @property
    def in_list(self) -> bool:
        """Whether it is in a list, and in no map of it yet."""
        return bool(self.frames) and self.around[-1].kind == "list"

    @property
    def fields(self) -> dict[str, str]:
        """The scalars of the map that the cursor is in, up to it."""
        return self.around[-1].seen if self.frames else {}


def _path(frames: Sequence[Frame]) -> tuple[str, ...]:
    return tuple(
        "-" if frame.kind == "list" else frame.key or ""
        for frame in frames
        if frame.kind == "list" or frame.key is not None
    )


def cursor_at(lines: Sequence[str], place: Place) -> Cursor:
    """What is around *place* in *lines*, those of one part."""
    return _Scan(lines, place).cursor()


class _Scan:
    """One reading of the lines up to the cursor."""

    def __init__(self, lines: Sequence[str], place: Place) -> None:
        line, column = place
        self.lines = [*lines[:line], lines[line][:column] if line < len(lines) else ""]
        self.stack: list[Frame] = []  # of blocks
        self.flow: list[Frame] = []  # of braces and brackets, inside of it
        self.block_text = -1  # the indent of the key whose block of text this is
        self.quote = ""  # of a string that is open
        self.key: str | None = None
        self.text = ""
        self.column = 0

    def cursor(self) -> Cursor:
        for line in self.lines[:-1]:
            self.line(line)
        inside = self.line(self.lines[-1])
        return Cursor(
            [*self.stack, *self.flow],
            self.key,
            self.text,
            self.column,
            inside_text=inside or bool(self.quote),
            flow=bool(self.flow),
        )

    def line(self, line: str) -> bool:
        """Read a line; whether its end is in a block of text."""
        self.key, self.text = None, ""
        if self.quote or self.flow:
            self.value(line, 0)
            return False
        indent = self.column = _past_spaces(line, 0)
        if self.block_text >= 0:
            if indent > self.block_text or indent == len(line):
                self.key, self.text = self.stack[-1].key, line
                return True
            self.block_text = -1
        if indent == len(line):
            self.below(indent, item=False)
            return False
        at = indent
        while line.startswith("-", at) and (at + 1 == len(line) or line[at + 1] in " \t"):
            self.below(at, item=True)
            at = _past_spaces(line, at + 1)
        if at > indent:
            self.column = at
            if line[at : at + 1] not in ("{", "["):
                self.stack.append(Frame(at))
        else:
            self.below(indent, item=False)
        found = _KEY.match(line, at)
        if found is None:
            self.text = line[at:]
            if line[at : at + 1] in ("{", "[", '"', "'"):
                self.value(line, at)
            return False
        self.named(found[1], at)
        start = _past_spaces(line, found.end())
        if _BLOCK_TEXT.match(line, start):
            self.block_text = at
        self.value(line, start)
        return False

    def below(self, indent: int, *, item: bool) -> None:
        """Leave what ends where a line is indented like this."""
        while self.stack and self.stack[-1].indent >= indent:
            top = self.stack[-1]
            if top.indent == indent and (top.kind == "list") == item:
                break
            # items of a list may stand under their key: then the key's map goes on around it
            if top.indent == indent and item and top.kind == "map":
                break
            self.stack.pop()
        if item and not (
            self.stack and self.stack[-1].kind == "list" and self.stack[-1].indent == indent
        ):
            self.stack.append(Frame(indent, "list"))

    def named(self, key: str, indent: int) -> None:
        """A key begins in the block's map."""
        name = key.strip("\"'") if key[:1] in "\"'" else key.strip()
        if not (self.stack and self.stack[-1].kind == "map" and self.stack[-1].indent == indent):
            self.stack.append(Frame(indent))
        self.stack[-1].key = self.key = name

    def value(self, line: str, start: int) -> None:
        """Read a value from *start* to the end of the line."""
        at, begun = start, start
        end = len(line)
        while at < end:
            char = line[at]
            if self.quote:
                if char == "\\" and self.quote == '"':
                    at += 1
                elif char == self.quote:
                    self.quote = ""
            elif char in "\"'" and not line[begun:at].strip():
                self.quote, begun = char, at + 1
            elif char == "#" and at > 0 and line[at - 1] in " \t":
                break
            elif char in "{[" and (self.flow or not line[start:at].strip()):
                self.flow.append(Frame(at, "map" if char == "{" else "list"))
                begun = at + 1
            elif self.flow and char in "}]":
                self.scalar(line[begun:at])
                self.flow.pop()
                begun = at + 1
            elif self.flow and char == ",":
                self.scalar(line[begun:at])
                if self.flow[-1].kind == "map":
                    self.flow[-1].key = None
                begun = at + 1
            elif (
                self.flow
                and char == ":"
                and self.flow[-1].kind == "map"
                and self.flow[-1].key is None
                and (at + 1 >= end or line[at + 1] in " \t{[\"'")
            ):
                self.flow[-1].key = line[begun:at].strip().strip("\"'")
                begun = at + 1
            at += 1
        rest = line[begun:end]
        self.text = rest if self.quote else rest.lstrip()
        if self.flow:
            self.key = self.flow[-1].key if self.flow[-1].kind == "map" else self.list_key()
        else:
            self.key = self.stack[-1].key if self.stack and self.stack[-1].kind == "map" else None
            self.scalar(rest, block=True)

    def list_key(self) -> str | None:
        """The key whose list of values the cursor is in."""
        for frame in [*reversed(self.flow[:-1]), *reversed(self.stack)]:
            if frame.kind == "map":
                return frame.key
        return None

    def scalar(self, text: str, *, block: bool = False) -> None:
        """A scalar ended: keep it under its key."""
        frames = self.stack if block else self.flow
        if frames and frames[-1].kind == "map" and frames[-1].key is not None:
            value = text.split(" #")[0].strip().strip("\"'")
            if value:
                frames[-1].seen.setdefault(frames[-1].key, value)


def _past_spaces(line: str, at: int) -> int:
    """The first place from *at* on that is no space or tab."""
    while at < len(line) and line[at] in " \t":
        at += 1
    return at
