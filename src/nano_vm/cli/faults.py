"""Exit codes, and why a command cannot go on: raised where it is found, printed once, in `main`."""

from __future__ import annotations

OK, FAILED, USAGE, SUSPENDED, INTERNAL, INTERRUPTED, PIPE_CLOSED = 0, 1, 2, 3, 70, 130, 141


class UsageFault(Exception):
    """The command line, or a file that it names, is no good: one line and exit code 2."""


class Failure(Exception):
    """The work was done and its result is bad: one line and exit code 1."""


class NoRun(Failure):
    """A run that a command is about is not there."""
