"""Files of a project in a folder and below, and which of them are tests.

A folder comes in, paths go out, in the order of their names. Nothing is read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from .document import ENDINGS

LEFT_OUT = frozenset({"node_modules", "__pycache__", "venv", "build", "dist", "site-packages"})
"""Folders that are not searched, beside those whose names begin with a full stop."""


def is_test_file(path: Path) -> bool:
    """Whether a file is one of tests, by its name."""
    return path.name.endswith(ENDINGS) and path.name not in ENDINGS


def files_below(folder: Path) -> Iterator[Path]:
    """Every file in *folder* and below."""
    for at, folders, files in os.walk(folder):
        folders[:] = sorted(f for f in folders if f not in LEFT_OUT and not f.startswith("."))
        yield from (Path(at) / name for name in sorted(files))
