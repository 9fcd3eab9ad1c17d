"""Standard input, which can be read once: by one part of a command line, and a second is refused."""

from __future__ import annotations

import sys
from typing import BinaryIO

import click

from .faults import UsageFault

STDIN = "-"
"""The name of standard input in the place of a file's."""

_READERS = f"{__name__}.readers"


def standard_input(what: str) -> BinaryIO:
    """Standard input, as `claim_standard_input`."""
    claim_standard_input(what)
    return sys.stdin.buffer


def claim_standard_input(what: str) -> None:
    """Note that standard input is for the part of the command line that *what* names.

    Raises:
        UsageFault: If it is for another part already: nothing would be left of it for this one.
    """
    context = click.get_current_context(silent=True)
    readers: list[str] = context.meta.setdefault(_READERS, []) if context is not None else []
    if readers:
        raise UsageFault(
            f"{readers[0]} and {what} cannot both be read from standard input, which is there "
            f"once; name a file for one of them"
        )
    readers.append(what)
