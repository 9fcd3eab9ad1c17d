"""Which browser tests and pictures of pages use."""

from __future__ import annotations

import shutil

PROGRAMS = ("chromium-headless-shell", "chromium", "google-chrome")
"""The shell has no windows, not even one that nobody sees, which are two thirds of what a page takes
of a processor. What it shows is the same; not every system has it.
"""


def program() -> str | None:
    """The first of them that the machine has."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)
