"""The world that the tools of the tests change: a file for each run, whose lines are written at
once and synced, and survive any kill.

A call appends ``begin KEY``, then ``done KEY OUTPUT`` (its effect) or ``failed KEY``. Others append
what they said of a call: ``cleared KEY``, that it did not happen and may be made again, and ``kept
KEY``, that its outcome is durable in the store. The lines of a file stand in the order in which
things happened.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Line = tuple[str, str, int, Any]
"""Word, key, process, and what was told."""


class World:
    """The files in *folder*. A key is a run's id, a colon, and the path of a step."""

    def __init__(self, folder: Path, sync: bool = True) -> None:
        self.folder, self.sync = folder, sync
        folder.mkdir(exist_ok=True)

    def tell(self, word: str, key: str, what: Any = None, *, sync: bool = True) -> None:
        """Append a line."""
        line = json.dumps([word, key, os.getpid(), what]) + "\n"
        file = os.open(self._file(key), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(file, line.encode())
            if sync and self.sync:
                os.fsync(file)
        finally:
            os.close(file)

    def of(self, key: str) -> list[Line]:
        """The lines of a key."""
        try:
            text = self._file(key).read_text()
        except FileNotFoundError:
            return []
        return [line for line in map(_line, text.splitlines()) if line[1] == key]

    def lines(self) -> Iterator[Line]:
        """All lines, file by file."""
        for path in sorted(self.folder.iterdir()):
            yield from map(_line, path.read_text().splitlines())

    def truth(self, key: str) -> tuple[bool, Any]:
        """Whether the call *key* had its effect, and its output."""
        for word, _, _, what in self.of(key):
            if word == "done":
                return True, what
        return False, None

    def _file(self, key: str) -> Path:
        return self.folder / key.partition(":")[0]


def _line(text: str) -> Line:
    word, key, process, what = json.loads(text)
    return word, key, process, what
