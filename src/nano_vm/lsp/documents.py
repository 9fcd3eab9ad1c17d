"""The documents that are open: each with its index and what was found of it last.

Text comes in, as editors send it; an index goes out, made once for each text.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from ..language.program import Program
from .diagnose import Findings, program_in
from .index import Index

SCHEMA_LINE = "program.schema"
"""What the editor's line of a program has in it (see `nano-vm init`)."""


@dataclass(slots=True)
class Document:
    """What is open; *found* is what was found last, of this text or of an earlier one."""

    uri: str
    index: Index
    found: Findings = field(default_factory=Findings)

    @property
    def findings(self) -> Findings:
        """What was found of the text as it is: nothing before it has been looked at, since places
        and proofs of an earlier text are not true of it.
        """
        return self.found if self.found.text == self.index.text else Findings()

    @property
    def path(self) -> Path | None:
        """Its file, where it has one."""
        return path_of(self.uri)

    def program(self) -> Program:
        """The program that it is.

        Raises:
            ProgramError: If it is none.
        """
        return program_in(self.index.text, self.path)

    @property
    def is_program(self) -> bool:
        """Whether it is one of ours, and no other YAML: it has steps, says so, or is empty."""
        names = {part.name for part in self.index.parts}
        if {"steps"} <= names or not names - {""}:
            return True
        return any(SCHEMA_LINE in line for line in self.index.lines[:5])


def path_of(uri: str) -> Path | None:
    """The file of a URI, if it is one."""
    parts = urlsplit(uri)
    if parts.scheme != "file":
        return None
    return Path(url2pathname(unquote(parts.path)))


class Documents:
    """All that are open, by URI."""

    def __init__(self) -> None:
        self._open: dict[str, Document] = {}

    def of(self, uri: str, text: str) -> Document:
        """The document with this text."""
        found = self._open.get(uri)
        if found is None:
            found = self._open[uri] = Document(uri, Index(text))
        elif found.index.text != text:
            found.index = Index(text)
        return found

    def forget(self, uri: str) -> None:
        """It was closed."""
        self._open.pop(uri, None)
