"""Programs from files: the one that is named, those that it calls, and where their faults stand.

A `call` may name a file: relative to the file that names it, and inside the folder of the program
that the user named. What lies elsewhere is reached by ``--program name=FILE`` only.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..diagnostics import Diagnostic, Loc
from ..errors import ProgramError
from ..language.program import CallStep, Program
from ..language.reader import MAX_PROGRAM_BYTES
from .faults import UsageFault
from .stdin import STDIN, standard_input

FILE_ENDINGS = (".yaml", ".yml", ".json")


@dataclass(slots=True)
class Loaded:
    """A program with those that it calls, by the name that the call uses."""

    program: Program
    programs: dict[str, Program] = field(default_factory=dict)

    def warnings(self) -> list[Diagnostic]:
        """What was noticed while reading the called files; that of the program itself is the VM's
        to tell.
        """
        seen = {id(self.program)}
        found: list[Diagnostic] = []
        for program in self.programs.values():
            if id(program) not in seen:
                seen.add(id(program))
                found += program.place(list(program.warnings))
        return found

    def placed(self, diagnostics: Sequence[Diagnostic]) -> list[Diagnostic]:
        """*diagnostics* at their place in the file that they are about, each once.

        The VM places them in the program that it was given: a fault of a called file stands there
        at the call.
        """
        calls = list(_called(self.program, self.programs, (), ()))
        result: dict[Diagnostic, None] = {}
        for d in diagnostics:
            for prefix, program in calls:
                if len(d.loc) > len(prefix) and d.loc[: len(prefix)] == prefix:
                    (d,) = program.place([d.at(d.loc[len(prefix) :])])
                    break
            result[d] = None
        return list(result)


def _called(
    program: Program, programs: Mapping[str, Program], loc: Loc, around: tuple[int, ...]
) -> Iterator[tuple[Loc, Program]]:
    """Place and program of each call by name, deepest first: the first that fits a place is the one
    it stands in.
    """
    if id(program) in around:
        return
    for step, at in program.walk():
        if isinstance(step, CallStep):
            inner = programs.get(step.program) if isinstance(step.program, str) else step.program
            if inner is not None:
                here = (*loc, *at, "program")
                yield from _called(inner, programs, here, (*around, id(program)))
                if isinstance(step.program, str):
                    yield here, inner


def load(path: str, named: Sequence[str] = (), *, follow: bool = True) -> Loaded:
    """The program at *path* (``-`` is standard input), with the files that it calls and those given
    as ``name=FILE``.

    Without *follow* it is the one program alone.

    Raises:
        UsageFault: If a file of the command line cannot be read.
        ProgramError: With the faults of all files.
    """
    loader = _Loader()
    program = loader.root(path, "the program")
    for name, file in named_files(named):
        if name in loader.programs:
            raise UsageFault(f"--program names {name!r} twice")
        loader.programs[name] = loader.root(file, f"--program {name}")
    if follow:
        loader.follow()
    if loader.faults or program is None:
        raise ProgramError(loader.faults)
    return Loaded(
        program, {name: found for name, found in loader.programs.items() if found is not None}
    )


def named_files(given: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Name and file of each ``name=FILE``.

    Raises:
        UsageFault: If one has another form.
    """
    for entry in given:
        name, separator, file = entry.partition("=")
        if not (name and separator and file):
            raise UsageFault(f"--program takes name=FILE, not {entry!r}")
        yield name, file


@dataclass(slots=True)
class _Loader:
    programs: dict[str, Program | None] = field(default_factory=dict)
    faults: list[Diagnostic] = field(default_factory=list)
    files: dict[Path, Program | None] = field(default_factory=dict)
    meant: dict[str, Path] = field(default_factory=dict)
    # a program, its folder, and its boundary
    work: deque[tuple[Program, Path, Path]] = field(default_factory=deque)

    def root(self, path: str, what: str) -> Program | None:
        """A program that the command line names, by *what*."""
        if path == STDIN:
            text = _decoded(standard_input(what).read(), "<stdin>")
            folder = Path.cwd().resolve()
            try:
                program = Program.from_yaml(text, file="<stdin>")
            except ProgramError as error:
                self.faults += error.diagnostics
                return None
            self.work.append((program, folder, folder))
            return program
        readable(path)
        real = Path(path).resolve()
        return self.read(Path(path), real, real.parent)

    def read(self, path: Path, real: Path, boundary: Path) -> Program | None:
        """The program in a file, each file once: a program that calls itself is then seen to."""
        if real not in self.files:
            self.files[real] = None
            try:
                program = self.files[real] = Program.from_file(path)
            except ProgramError as error:
                self.faults += error.diagnostics
            else:
                self.work.append((program, real.parent, boundary))
        return self.files[real]

    def follow(self) -> None:
        """Read the files that calls name, and those that these name."""
        given = set(self.programs)
        while self.work:
            program, folder, boundary = self.work.popleft()
            for step, loc in _calls(program, ()):
                name = step.program
                if isinstance(name, str) and name not in given and name.endswith(FILE_ENDINGS):
                    if fault := self.called(name, folder, boundary):
                        self.fault(program, step, loc, fault)

    def called(self, name: str, folder: Path, boundary: Path) -> tuple[str, str | None] | None:
        """Read the file *name*; what speaks against it, and the remedy."""
        elsewhere = f"give a program from elsewhere as --program {name}=FILE"
        if os.path.isabs(name):
            return "which is no relative path", elsewhere
        try:
            real = (folder / name).resolve()
        except (OSError, ValueError, RuntimeError):
            return "which is no path", None
        if not real.is_relative_to(boundary):
            return "which is outside the program's folder", elsewhere
        if self.meant.setdefault(name, real) != real:
            return (
                f"which here is another file than elsewhere "
                f"({_within(self.meant[name], boundary)})",
                "rename one of them",
            )
        try:
            if not real.is_file():
                return ("which is no file" if real.exists() else "and there is no such file"), None
        except OSError as error:
            return f"which cannot be read: {error.strerror}", None
        self.programs[name] = self.read(_from_here(real), real, boundary)
        return None

    def fault(
        self, program: Program, step: CallStep, loc: Loc, fault: tuple[str, str | None]
    ) -> None:
        message, hint = fault
        d = Diagnostic(
            "V006", (*loc, "program"), f"step {step.id!r} calls {step.program!r}, {message}", hint
        )
        self.faults += program.place([d])


def _calls(program: Program, loc: Loc) -> Iterator[tuple[CallStep, Loc]]:
    """Each call of *program* and of the programs written inside it."""
    for step, at in program.walk():
        if isinstance(step, CallStep):
            yield step, (*loc, *at)
            if isinstance(step.program, Program):
                yield from _calls(step.program, (*loc, *at, "program"))


def _from_here(real: Path) -> Path:
    """A path as people write it: relative, where it lies below."""
    here = Path.cwd()
    return real.relative_to(here) if real.is_relative_to(here) else real


def _within(real: Path, boundary: Path) -> str:
    return str(real.relative_to(boundary)) if real.is_relative_to(boundary) else str(real)


def readable(path: str) -> None:
    """Raises UsageFault if the file that the command line names cannot be opened."""
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise UsageFault(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:  # a NUL in the name
        raise UsageFault(f"cannot read {path!r}: {error}") from None


def text_of(path: str) -> str:
    """The text of a file that is no program yet; ``-`` is standard input.

    Raises:
        UsageFault: If it cannot be read, or is too large to be a program.
        ProgramError: If it is not UTF-8.
    """
    if path == STDIN:
        return _decoded(standard_input("the file").read(), "<stdin>")
    readable(path)
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_PROGRAM_BYTES + 1)  # and no more: /dev/zero has no end
    except OSError as error:
        raise UsageFault(f"cannot read {path}: {error.strerror}") from None
    if len(data) > MAX_PROGRAM_BYTES:
        raise UsageFault(f"{path} has more than {MAX_PROGRAM_BYTES} bytes")
    return _decoded(data, path)


def _decoded(data: bytes, file: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        fault = Diagnostic(
            "P008", (), f"not UTF-8: byte {error.start}", "save it as UTF-8", file=file
        )
        raise ProgramError([fault]) from None
