"""Draw the pictures of the pages from the tutorial: the graph of its program with what is proved of
it, and the trace of its run, as a terminal shows it.

``make docs`` runs it; a test compares the pictures with what it would draw.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import tempfile
from html import escape
from pathlib import Path

from nano_vm.cli.main import main

DOCS = Path(__file__).parents[1] / "docs"

LINE, COLUMN, MARGIN = 20, 8.4, 20
"""Pixels of a line and of a character, at 14 pixels of a monospaced font."""

COLOURS = {"ok": "#4ade80", "failed": "#f87171", "waiting": "#fbbf24", "$": "#93c5fd"}
"""Of the first word of a line."""


def tutorial() -> str:
    """The text of the tutorial."""
    return (DOCS / "tutorial.md").read_text(encoding="utf-8")


def files() -> dict[str, str]:
    """The files of the tutorial, as they are in the end."""
    return dict(re.findall(r'^```\w+ title="(.*?)"\n(.*?)^```$', tutorial(), re.M | re.S))


def graph() -> str:
    """The program of the tutorial, with its guards and proofs."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            for name, text in files().items():
                Path(name).write_text(text, encoding="utf-8")
            drawn = io.StringIO()
            with contextlib.redirect_stdout(drawn):
                options = "--tools refund.py --policy policy.yaml --proofs --format svg"
                assert main(["graph", "refund.yaml", *options.split()]) == 0
        finally:
            os.chdir(before)
    return drawn.getvalue()


def trace() -> str:
    """The run of the tutorial that was approved, as the page shows it."""
    (block,) = re.findall(r"^```console\n(\$ nano-vm resume .*?)^```$", tutorial(), re.M | re.S)
    lines = block.splitlines()
    width = max(map(len, lines)) * COLUMN + 2 * MARGIN
    height = len(lines) * LINE + 2 * MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height}" '
        f'viewBox="0 0 {width:.0f} {height}" role="img">',
        "<title>The trace of a refund that a manager approved</title>",
        f'<rect width="{width:.0f}" height="{height}" rx="8" fill="#0f172a"/>',
        '<g font-family="ui-monospace, Menlo, Consolas, monospace" font-size="14" fill="#e2e8f0">',
    ]
    for number, line in enumerate(lines):
        word = line.split(" ", 1)[0]
        colour = f' fill="{COLOURS[word]}"' if word in COLOURS else ""
        top = MARGIN + LINE * number + 14
        length = f'textLength="{len(line) * COLUMN:.1f}" lengthAdjust="spacingAndGlyphs"'
        text = escape(line, quote=False).replace(" ", "\u00a0")
        parts.append(f'<text x="{MARGIN}" y="{top}" {length}{colour}>{text}</text>')
    return "\n".join([*parts, "</g>", "</svg>", ""])


def pictures() -> dict[Path, str]:
    """Every picture with its text."""
    return {DOCS / "refund.svg": graph(), DOCS / "trace.svg": trace()}


if __name__ == "__main__":
    for path, text in pictures().items():
        path.write_text(text, encoding="utf-8")
