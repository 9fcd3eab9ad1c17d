"""Test files by their paths: each with its program, the tools and the policy that it names.

A path comes in, a `Suite` goes out; what cannot be read is an error with its place.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..adapters.hostfile import beside
from ..errors import ProgramError
from ..language.reader import placed
from ..program_tests.document import ENDINGS, Document, misnamed, program_file, read_document
from ..program_tests.execute import Subject
from ..program_tests.files import files_below, is_test_file
from ..program_tests.suite import Suite
from . import rules, sources, tools
from .faults import UsageFault
from .inputs import text_of


def test_files(given: Iterable[str]) -> list[Path]:
    """The test files among *given* files, and in given folders and below.

    Raises:
        UsageFault: If a path is not there, or is a file of another kind.
    """
    found: dict[Path, None] = {}
    for path in map(Path, given):
        if os.path.isdir(path):
            found |= dict.fromkeys(file for file in files_below(path) if is_test_file(file))
        elif not os.path.isfile(path):
            raise UsageFault(f"there is no file {path}")
        elif not is_test_file(path):
            raise UsageFault(f"{path} is no test file: their names end with {ENDINGS[0]}")
        else:
            found[path] = None
    return list(found)


@dataclass(frozen=True, slots=True)
class Written:
    """A test file as it is written; ``program`` is the file of its program, where there is one."""

    path: Path
    text: str
    document: Document
    program: Path | None


def written(path: Path) -> Written:
    """The test file at *path*.

    Raises:
        UsageFault: If it cannot be read.
        ProgramError: With every fault of it.
    """
    text = text_of(str(path), str(path))
    document = read_document(text, str(path))
    return Written(path, text, document, program_file(document, path))


def suite_of(path: Path) -> Suite:
    """The tests in the file at *path*, with what they are about; as `suite_in`, and `written`."""
    return suite_in(written(path))


def suite_in(file: Written) -> Suite:
    """The tests in *file*, with what they are about.

    Raises:
        UsageFault: If a file that it names cannot be used.
        ProgramError: With every fault of its names, the program or the policy.
    """
    path, text, document, program = file.path, file.text, file.document, file.program
    if program is None:
        raise UsageFault(f"{path}: there is no program beside it of that name; write program: FILE")
    named = [f"{name}={path.parent / file}" for name, file in document.programs.items()]
    loaded = sources.load(str(program), named)
    real = beside(path.parent, document.tools) if document.tools else None
    functions = tools.load_tools(real) if real is not None else {}
    policy = rules.load_policy(str(path.parent / document.policy)) if document.policy else None
    called = list(dict.fromkeys(tools.tool_names(loaded.program, loaded.programs)))
    subject = Subject(loaded.program, loaded.programs, functions, policy, document.prices or None)
    inputs = list(subject.flow.frames[0].names.keys)
    found = misnamed(document, loaded.program, loaded.programs, tools=called, inputs=inputs)
    if found:
        raise ProgramError(placed(found, text, str(path)))
    return Suite(path, text, document, subject)
