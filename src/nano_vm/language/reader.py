"""Program text in, plain data out. YAML is read as 1.2 and JSON as JSON; both with places for
messages.

libyaml splits the text into events; what a scalar means (YAML 1.2 core schema: ``yes`` is a string)
is decided here. Nothing is constructed from a tag, no alias is expanded beyond a counted bound, and
no key is taken twice.
"""

from __future__ import annotations

import json
import re
from math import isfinite
from typing import Any

import yaml

from ..diagnostics import Diagnostic, Loc
from ..errors import ProgramError
from ..values import LONG_INTEGER, MAX_DEPTH

MAX_PROGRAM_BYTES = 1024 * 1024
"""Size of a program's text. Step Functions takes 1 MB, GitHub workflows 512 KB."""

MAX_ALIAS_NODES = 100_000
"""Nodes that aliases may add: ten thousand steps share a block of ten fields."""

# the same events; the C one is 10 times as fast
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

NULLS = {"", "~", "null", "Null", "NULL"}
"""The plain scalars that are null."""

_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]+\Z|0o[0-7]+\Z|0x[0-9a-fA-F]+\Z", re.ASCII)
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z", re.ASCII)
_ODD_FLOAT = re.compile(r"[-+]?\.(inf|Inf|INF)\Z|\.(nan|NaN|NAN)\Z")
_CORE_TAG = "tag:yaml.org,2002:"

Marks = dict[Loc, tuple[int, int]]


def read_text(text: Any, *, file: str | None = None, format: str = "yaml") -> Any:
    """The document in *text*, as plain data.

    Raises:
        ProgramError: If it is too large, malformed, or holds a key twice.
    """
    if not isinstance(text, str):
        raise _fault(
            "P001",
            f"a program's text is a str, not {type(text).__name__}",
            file,
            hint="decode it, or see Program.from_file",
        )
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        line = text.count("\n", 0, error.start) + 1
        raise _fault(
            "P001", "not YAML: a lone surrogate", file, line, 1, "save it as UTF-8"
        ) from None
    if size > MAX_PROGRAM_BYTES:
        raise _fault(
            "P005", f"program text has {size} bytes, the limit is {MAX_PROGRAM_BYTES}", file
        )
    if format == "json":
        return _read_json(text, file)
    return _Reader(text, file).document()


def marks(text: str) -> Marks:
    """The line and column, from 1, of each place in *text*; JSON is read as the YAML that it is."""
    reader = _Reader(text, None, marks={})
    try:
        reader.document()
    except ProgramError:
        pass  # places up to the fault
    return reader.marks or {}


def placed(diagnostics: list[Diagnostic], text: str, file: str | None) -> list[Diagnostic]:
    """*diagnostics* with file, line and column: of the place itself, or of what contains it."""
    known = marks(text)
    result = []
    for d in diagnostics:
        loc = d.loc
        while loc and loc not in known:
            loc = loc[:-1]
        line, column = known.get(loc, (1, 1))
        if d.line is not None:
            line, column = d.line, d.column or 1
        result.append(d.at(d.loc, file, line, column))
    return sorted(result, key=lambda d: (d.line or 0, d.column or 0))


def _fault(
    code: str,
    message: str,
    file: str | None,
    line: int | None = None,
    column: int | None = None,
    hint: str | None = None,
) -> ProgramError:
    return ProgramError([Diagnostic(code, (), message, hint, file=file, line=line, column=column)])


def _read_json(text: str, file: str | None) -> Any:
    doubles: list[str] = []

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(items)
        if len(result) < len(items):
            seen: set[str] = set()
            for key, _ in items:
                if key in seen:
                    doubles.append(key)
                seen.add(key)
        return result

    def constant(word: str) -> Any:
        raise _fault("P004", f"{word} is not a JSON number", file)

    def finite(digits: str) -> float:
        number = float(digits)
        if not isfinite(number):
            raise _fault("P004", f"{digits} is not a finite number", file)
        return number

    try:
        data = json.loads(
            text, object_pairs_hook=pairs, parse_constant=constant, parse_float=finite
        )
    except json.JSONDecodeError as error:
        raise _fault("P001", f"not JSON: {error.msg}", file, error.lineno, error.colno) from None
    except RecursionError:
        raise _fault("P005", f"nested deeper than {MAX_DEPTH} levels", file) from None
    except ProgramError:
        raise
    except ValueError:  # an integer beyond Python's digit limit
        raise _fault("P004", f"not a usable number: {LONG_INTEGER}", file) from None
    if doubles:
        raise ProgramError(
            [Diagnostic("P002", (), f"duplicate key {key!r}", file=file) for key in doubles]
        )
    return data


_NODES = frozenset(
    {yaml.ScalarEvent, yaml.AliasEvent, yaml.MappingStartEvent, yaml.SequenceStartEvent}
)


def _mark(event: Any) -> tuple[int, int]:
    """Line and column of an event, from 1."""
    return event.start_mark.line + 1, event.start_mark.column + 1


class _Level:
    """A container that is being filled. *start* is the number of nodes before it."""

    __slots__ = ("anchor", "container", "key", "loc", "mapping", "start")

    def __init__(
        self, container: Any, mapping: bool, loc: Loc, anchor: str | None, start: int
    ) -> None:
        self.container = container
        self.mapping = mapping
        self.loc = loc
        self.anchor = anchor
        self.start = start
        self.key: str | None = None
        """Of a mapping, the key whose value comes next."""

    @property
    def wants_key(self) -> bool:
        return self.mapping and self.key is None


class _Reader:
    """Builds the document of a YAML text from its events, without recursion."""

    def __init__(self, text: str, file: str | None, marks: Marks | None = None) -> None:
        self.text = text
        self.file = file
        self.marks = marks
        self.faults: list[Diagnostic] = []
        self.anchors: dict[str, tuple[Any, int]] = {}
        self.stack: list[_Level] = []
        self.root: Any = None
        self.nodes = 0
        self.aliased = 0

    def document(self) -> Any:
        try:
            loader = _LOADER(self.text)
        except yaml.YAMLError as error:  # a character that YAML does not allow
            raise self.syntax(error) from None
        try:
            data = self.build(loader)
        except yaml.YAMLError as error:
            raise self.syntax(error) from None
        finally:
            loader.dispose()
        if self.faults:
            raise ProgramError(self.faults)
        return data

    def syntax(self, error: yaml.YAMLError) -> ProgramError:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        line, column = (mark.line + 1, mark.column + 1) if mark else (None, None)
        hint = (
            "quote a string that starts with a special character, or holds ': ' or ' #'"
            if mark
            else None
        )
        return _fault("P001", f"not YAML: {problem}", self.file, line, column, hint)

    def add_fault(
        self, code: str, message: str, event: Any, loc: Loc = (), hint: str | None = None
    ) -> None:
        mark = event.start_mark
        self.faults.append(
            Diagnostic(
                code, loc, message, hint, file=self.file, line=mark.line + 1, column=mark.column + 1
            )
        )

    def build(self, loader: Any) -> Any:
        """The value of the one document, None where there is none."""
        documents = 0
        while True:
            event = loader.get_event()
            kind = type(event)
            if kind in _NODES:
                self.nodes += 1
                level = self.stack[-1] if self.stack else None
                if level is not None and level.wants_key:
                    self.key(event, level)
                else:
                    self.value(event)
            elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
                level = self.stack.pop()
                if level.anchor:
                    self.anchors[level.anchor] = (level.container, self.nodes - level.start + 1)
                self.put(level.container)
            elif kind is yaml.DocumentStartEvent:
                documents += 1
                if documents > 1:
                    hint = "keep one program a file"
                    raise self.fatal("P001", "more than one document", event, hint=hint)
            elif kind is yaml.StreamEndEvent:
                return self.root

    def fatal(
        self, code: str, message: str, event: Any, loc: Loc = (), hint: str | None = None
    ) -> ProgramError:
        """A fault behind which the rest cannot be read; those before it are reported, too."""
        self.add_fault(code, message, event, loc, hint)
        return ProgramError(self.faults)

    def put(self, value: Any) -> None:
        """*value* where it stands: in the innermost container, or as the whole document."""
        if not self.stack:
            self.root = value
            return
        level = self.stack[-1]
        if level.key is None:
            level.container.append(value)
        else:
            level.container[level.key] = value
            level.key = None

    def here(self) -> Loc:
        """The place of the value to come."""
        if not self.stack:
            return ()
        level = self.stack[-1]
        return (*level.loc, len(level.container) if level.key is None else level.key)

    def key(self, event: Any, level: _Level) -> None:
        """A key of the mapping *level*."""
        if type(event) is not yaml.ScalarEvent:
            raise self.fatal("P001", "a key must be a plain text", event, level.loc)
        key = event.value
        if key in level.container:
            self.add_fault("P002", f"duplicate key {key!r}", event, (*level.loc, key))
        elif key == "<<" and not event.style:
            message, hint = "merge keys are not part of YAML 1.2", "write the fields out"
            self.add_fault("P001", message, event, level.loc, hint)
        level.key = key
        if self.marks is not None:
            self.marks[(*level.loc, key)] = _mark(event)

    def value(self, event: Any) -> None:
        """A value, or the beginning of a container."""
        kind = type(event)
        loc = self.here() if self.marks is not None or kind is not yaml.ScalarEvent else ()
        if self.marks is not None:
            self.marks.setdefault(loc, _mark(event))
        if kind is yaml.ScalarEvent:
            value = self.scalar(event)
            if event.anchor:
                self.anchors[event.anchor] = (value, 1)
            self.put(value)
        elif kind is yaml.AliasEvent:
            self.put(self.alias(event, loc))
        else:
            self.begin(event, loc)

    def alias(self, event: Any, loc: Loc) -> Any:
        """What the alias stands for; counted, since aliases of aliases grow without end."""
        if event.anchor not in self.anchors:
            raise self.fatal("P003", f"unknown or cyclic alias *{event.anchor}", event, loc)
        value, count = self.anchors[event.anchor]
        self.aliased += count
        self.nodes += count
        if self.aliased > MAX_ALIAS_NODES:
            raise self.fatal("P003", f"aliases add more than {MAX_ALIAS_NODES} values", event, loc)
        return value

    def begin(self, event: Any, loc: Loc) -> None:
        """A mapping or sequence."""
        if len(self.stack) >= MAX_DEPTH:
            raise self.fatal("P005", f"nested deeper than {MAX_DEPTH} levels", event, loc[:6])
        mapping = type(event) is yaml.MappingStartEvent
        if event.tag and event.tag != _CORE_TAG + ("map" if mapping else "seq"):
            self.add_fault("P001", f"tag {event.tag!r} is not allowed", event, loc)
        self.stack.append(_Level({} if mapping else [], mapping, loc, event.anchor, self.nodes))

    def scalar(self, event: Any) -> Any:
        text = event.value
        tag = event.tag
        if tag and tag != "!":
            if tag == _CORE_TAG + "str":
                return text
            self.add_fault(
                "P001", f"tag {tag!r} is not allowed", event, hint="write the value itself"
            )
            return text
        if event.style or tag:  # quoted or block: a text
            return text
        if text in NULLS:
            return None
        first = text[0]
        if first in "tTfF":
            return _BOOL.get(text, text)
        if first in "0123456789-+.":
            if _INT.match(text):
                digits = text[2:] if text[:2] in ("0o", "0x") else text
                if len(digits) > 2000:
                    self.add_fault(
                        "P004", "an integer of more than 2,000 digits", event, hint="quote it"
                    )
                    return 0
                return int(digits, {"0o": 8, "0x": 16}.get(text[:2], 10))
            if _FLOAT.match(text):
                number = float(text)
                if isfinite(number):
                    return number
                self.add_fault("P004", f"{text} is not a finite number", event, hint="quote it")
            if _ODD_FLOAT.match(text):
                self.add_fault("P004", f"{text} is not a JSON number", event, hint="quote it")
        return text
