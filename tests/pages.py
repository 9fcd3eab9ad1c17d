"""Pages of docs/ whose examples run as they stand there, each in a process of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from patience import HANGS_SECONDS

DOCS = Path(__file__).parents[1] / "docs"
GENERATED = {DOCS / "reference" / "cli", DOCS / "reference" / "diagnostics"}
"""Folders whose pages are made of the code, and listed by their index."""


def find(name: str) -> Path:
    """The page of that name that a person wrote, in whatever folder of docs/ it is."""
    (found,) = (
        page
        for page in DOCS.rglob(name)
        if page.parent not in GENERATED | {DOCS / "reference" / "api"}
    )
    return found


def page(name: str) -> tuple[str, list[str]]:
    """The text of a page, and its examples in Python."""
    text = find(name).read_text(encoding="utf-8")
    return text, re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def printed(example: str, folder: Path) -> str:
    """What an example prints that runs in *folder*, with each warning an error."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", example],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=HANGS_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def shown(example: str) -> str:
    """What its comments say that it prints."""
    return "".join(f"{line}\n" for line in re.findall(r"^# ?(.*)$", example, re.MULTILINE))
