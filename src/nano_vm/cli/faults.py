"""Why a command can not go on. Raised where it is found, told once, in `main`."""

from __future__ import annotations


class UsageFault(Exception):
    """The command line, or a file that it names, is no good: one line and exit code 2."""


class Failure(Exception):
    """The work was done and its result is bad: one line and exit code 1."""
