"""Other files of a project that name a step or an input of a program: its test files, the project's
policy, and the programs that call it.

A symbol of the program comes in, the pieces of those files that name it go out. A test file names
steps by their paths, and a path leads into programs that are called; so all programs of the project
are looked at. Steps of programs that stand inline have names in their own file only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

from ..program_tests.document import (
    ENDINGS,
    PROGRAM_ENDINGS,
    SECTIONS,
    aside,
    named_or_beside,
)
from ..program_tests.files import files_below, is_test_file
from .index import GUARDS, Index, Span, span_of
from .navigate import CannotRename, Symbol
from .tree import Node, parsed, texts

MAX_FILES = 2_000
"""Files of a project that are read; what has more is no project of programs."""

MAX_LOOKED_AT = 50_000
"""Files whose names are looked at."""

ReadText = Callable[[Path], "str | None"]
"""What a file holds, as the editor has it or on the disk; None where it cannot be read."""

_BEHIND_BASE = re.compile(r"[\[#]")


@dataclass(frozen=True, slots=True)
class Other:
    """A file that names the symbol, and where."""

    path: Path
    index: Index
    spans: tuple[Span, ...]


def files_of(file: Path, root: Path | None) -> Iterator[Path]:
    """The files of the project that *file* is of: those in the folder *root* of its host file and
    below. Without one, those beside it: its folder may be anything.
    """
    if root is not None:
        yield from islice(files_below(root), MAX_LOOKED_AT)
    elif file.parent.is_dir():
        yield from islice(sorted(file.parent.iterdir()), MAX_LOOKED_AT)


class Project:
    """The *files* of a project; *policy* is that of its policy."""

    def __init__(self, files: Iterable[Path], policy: Path | None, read: ReadText) -> None:
        self.files = files
        self.policy = policy
        self.read = read

    def naming(self, symbol: Symbol, index: Index, file: Path) -> list[Other]:
        """The files that name *symbol*, of the program *index* in *file*."""
        if symbol.scope != 0 or (symbol.kind == "name" and not _is_input(index, symbol.name)):
            return []
        looked = _Looked(symbol, file.resolve(), self.programs, self.tests)
        found = [
            self._other(path, self.texts[path], looked.in_tests(path, root))
            for path, root in self.tests.items()
        ]
        found += [
            self._other(path, self.texts[path], looked.in_caller(path, program))
            for path, program in self.programs.items()
            if path.resolve() != looked.file
        ]
        policy = self.read(self.policy) if self.policy is not None else None
        if self.policy is not None and policy is not None:
            found.append(self._other(self.policy, policy, looked.in_policy(policy)))
        return [other for other in found if other is not None]

    def renamed(self, symbol: Symbol, index: Index, file: Path) -> list[Other]:
        """As `naming`, where all of it may become another name.

        Raises:
            CannotRename: If the policy means another program by that name, too.
        """
        found = self.naming(symbol, index, file)
        for other in found:
            shared = self._sharing(symbol, file) if other.path == self.policy else None
            if shared is not None:
                raise CannotRename(
                    f"{other.path.name} names {symbol.name!r} for {shared.name} too; "
                    f"change it by hand"
                )
        return found

    def _sharing(self, symbol: Symbol, file: Path) -> Path | None:
        """Another program that has such a step or input."""
        for path, program in self.programs.items():
            if path.resolve() == file.resolve():
                continue
            if symbol.kind == "step" and program.step_named(symbol.name) is not None:
                return path
            if symbol.kind == "name" and _is_input(program, symbol.name):
                return path
        return None

    def _other(self, path: Path, text: str, spans: Iterable[Span]) -> Other | None:
        """The file, if *spans* of it name the symbol."""
        found = tuple(dict.fromkeys(spans))
        return Other(path, self.programs.get(path) or Index(text), found) if found else None

    @cached_property
    def texts(self) -> dict[Path, str]:
        """What the files hold that may be programs or their tests."""
        ours = (path for path in self.files if path.suffix in PROGRAM_ENDINGS)
        texts_of = ((path, self.read(path)) for path in islice(ours, MAX_FILES))
        return {path: text for path, text in texts_of if text is not None}

    @cached_property
    def programs(self) -> dict[Path, Index]:
        """Those that hold a program."""
        return {
            path: index
            for path, text in self.texts.items()
            if not path.name.endswith(ENDINGS) and _has_steps(index := Index(text))
        }

    @cached_property
    def tests(self) -> dict[Path, Node]:
        """Those that hold tests."""
        roots = (
            (path, parsed(text).root) for path, text in self.texts.items() if is_test_file(path)
        )
        return {path: root for path, root in roots if root is not None and root.kind == "map"}


def _has_steps(index: Index) -> bool:
    return any(True for _ in index.steps())


def _is_input(index: Index, name: str) -> bool:
    """Whether a name is given to a program from outside: declared, or read and written by no step."""
    uses = [use for use in index.uses() if use.name == name and use.scope == 0]
    written = {use.how for use in uses if use.kind == "name"}
    steps = any(use.kind == "step" for use in uses)
    return "input" in written or not (written or steps)


class _Looked:
    """One symbol that is looked for."""

    def __init__(
        self, symbol: Symbol, file: Path, programs: dict[Path, Index], tests: dict[Path, Node]
    ) -> None:
        self.name = symbol.name
        self.step = symbol.kind == "step"
        self.file = file
        self.calls = {path.resolve(): _calls(index) for path, index in programs.items()}
        self.given = {path: _given(path, root) for path, root in tests.items()}

    def in_tests(self, path: Path, root: Node) -> Iterator[Span]:
        """Where a test file names it."""
        about = named_or_beside(root.text("program"), path)
        if about is None:
            return
        program = about.resolve()
        if not self.step:
            if program == self.file:
                yield from self.inputs(root)
            return
        given = self.given[path]
        for node in _paths(root):
            yield from self.pieces(node, node.value, program, given)
        for node in _edges(root):
            yield from self.pieces(node, node.value.rpartition(".")[0], program, given)

    def inputs(self, root: Node) -> Iterator[Span]:
        """Keys of inputs, and names of untrusted ones."""
        cases = [*_items(root, "tests"), *_items(root, "properties")]
        for part in (root, *cases):
            given = part.get("inputs")
            for key, _ in given.pairs if given is not None else ():
                yield from self.whole(key)
            for item in _items(part, "untrusted"):
                yield from self.whole(item)

    def in_policy(self, text: str) -> Iterator[Span]:
        """Where a policy names it, for whichever program."""
        root = parsed(text).root
        inputs = root.get("inputs") if root is not None else None
        tools = root.get("tools") if root is not None else None
        if not self.step:
            for key, _ in inputs.pairs if inputs is not None else ():
                yield from self.whole(key)
            return
        for _, rule in tools.pairs if tools is not None else ():
            for name, value in rule.pairs:
                for node in texts(value) if name.value in GUARDS else ():
                    for program in self.calls:
                        yield from self.pieces(node, node.value.rpartition(".")[0], program, {})

    def in_caller(self, path: Path, index: Index) -> Iterator[Span]:
        """Where a program that calls the file gives it the input."""
        caller = path.resolve()
        for step in index.steps():
            arguments = step.node.get("with")
            named = self.calls[caller].get(step.id or "")
            if self.step or arguments is None or named is None:
                continue
            if self.meant(named, caller) != self.file:
                continue
            for key, _ in arguments.pairs:
                yield from (span.moved(step.line) for span in self.whole(key))

    def meant(self, named: str, caller: Path) -> Path | None:
        """The program that a call of *caller* means by a name: the file beside, else the one that
        test files give it; None where they give several.
        """
        beside = _called(named, caller, {})
        if beside in self.calls:
            return beside
        found = {given[named] for given in self.given.values() if named in given}
        return found.pop() if len(found) == 1 else None

    def whole(self, node: Node) -> Iterator[Span]:
        if node.kind == "text" and node.value == self.name:
            yield span_of(node)

    def pieces(
        self, node: Node, path: str, program: Path | None, given: Mapping[str, Path]
    ) -> Iterator[Span]:
        """The parts of a step's path that are the step; *program* is the one that it begins in, and
        *given* are the files of programs that calls name otherwise than by their own.
        """
        span = span_of(node)
        if span.end - span.start < len(path):
            return  # written with escapes, or over several lines
        at, parts = span.start, aside(path).split("/")
        for part in parts:
            base = _BEHIND_BASE.split(part, 1)[0]
            if program == self.file and base == self.name:
                yield Span(span.line, at, at + len(base))
            calls = self.calls.get(program, {}) if program is not None else {}
            if program is not None and base in calls:
                program = _called(calls[base], program, given)
            at += len(part) + 1


def _calls(index: Index) -> dict[str, str | None]:
    """By the id of each step that calls a program, its name for that; None where it is inline."""
    return {
        step.id: step.node.text("program")
        for step in index.steps()
        if step.type == "call" and step.id and step.scope == 0
    }


def _given(path: Path, root: Node) -> dict[str, Path]:
    """The files of the programs that a test file gives to calls, by their names there."""
    found = root.get("programs")
    return {
        name.value: (path.parent / file.value).resolve()
        for name, file in (found.pairs if found is not None else ())
        if file.kind == "text"
    }


def _called(named: str | None, caller: Path, given: Mapping[str, Path]) -> Path | None:
    """The program that a call in *caller* names: the one *given* for the name, before that file."""
    if named is None:
        return None
    return given.get(named) or (caller.parent / named).resolve()


def _items(node: Node, key: str) -> list[Node]:
    found = node.get(key)
    return found.items if found is not None else []


def _paths(root: Node) -> Iterator[Node]:
    """Paths of steps in a test file."""
    for case in _items(root, "tests"):
        for section in SECTIONS:
            answers = case.get(section)
            yield from (key for key, _ in (answers.pairs if answers is not None else ()))
        expect = case.get("expect")
        if expect is None:
            continue
        for field in ("path", "reached", "never", "waiting"):
            yield from (item for item in _items(expect, field) if item.kind == "text")
        steps = expect.get("steps")
        yield from (key for key, _ in (steps.pairs if steps is not None else ()))


def _edges(root: Node) -> Iterator[Node]:
    """Edges of steps in a test file."""
    for stated in _items(root, "properties"):
        after = stated.get("only_after")
        for _, value in after.pairs if after is not None else ():
            if value.kind == "text":
                yield value
