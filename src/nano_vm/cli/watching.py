"""Files that are watched, and what is done when one of them changes.

Folders and files come in; a change goes out as the names that changed. Files are looked at, not
subscribed to: it works on every system and over every network, and an editor that replaces a file
instead of writing it is no other case.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from ..program_tests.files import LEFT_OUT

ENDINGS = (".yaml", ".yml", ".json", ".jsonl", ".py", ".toml", ".txt", ".md")
"""Files that a program, its tools, its tests and its answers may be made of."""

MAX_FILES = 2_000
"""Files of a folder that are watched: what is looked at four times a second must be little."""

LOOK_SECONDS = 0.25

Stamp = tuple[int, int]
"""Time and size of a file: an editor that writes twice in one tick changes the size."""


class Watch:
    """What stands in *folder* and below, and in *files*."""

    def __init__(self, folder: Path, files: tuple[Path, ...] = ()) -> None:
        self.folder = folder
        self.files = files
        self._seen = self._look()

    def changed(self) -> list[str]:
        """The files that are new, changed or gone since the last look."""
        now, before = self._look(), self._seen
        self._seen = now
        names = sorted({*now, *before})
        return [name for name in names if now.get(name) != before.get(name)]

    def _look(self) -> dict[str, Stamp]:
        found = {}
        for path in self._paths():
            try:
                known = os.stat(path)
            except OSError:  # gone since, or not there yet
                continue
            found[str(path)] = (known.st_mtime_ns, known.st_size)
        return found

    def _paths(self) -> Iterator[Path]:
        yield from self.files
        count = 0
        for at, folders, names in os.walk(self.folder):
            folders[:] = [f for f in folders if f not in LEFT_OUT and not f.startswith(".")]
            for name in names:
                if name.endswith(ENDINGS):
                    yield Path(at) / name
                    count += 1
                    if count >= MAX_FILES:
                        return


class Round(Protocol):
    """Work that is under way in a process of its own."""

    def running(self) -> bool:
        """Whether it has not ended."""
        ...

    def stop(self) -> None:
        """End it."""
        ...


def watch(
    looked_at: Watch, begin: Callable[[list[str]], Round], wait: Callable[[float], None]
) -> None:
    """Begin a round, and another one at each change; one that is under way is stopped first.

    *wait* sleeps for some seconds; what it raises ends the watch.
    """
    under_way = begin([])
    try:
        while True:
            wait(LOOK_SECONDS)
            changed = looked_at.changed()
            if not changed:
                continue
            while more := _settled(looked_at, wait):  # an editor may write several files
                changed = sorted({*changed, *more})
            under_way.stop()
            under_way = begin(changed)
    finally:
        under_way.stop()


def _settled(looked_at: Watch, wait: Callable[[float], None]) -> list[str]:
    wait(LOOK_SECONDS / 5)
    return looked_at.changed()
