"""``nano-vm trace``."""

from __future__ import annotations

import click

from .. import completion
from ..grammar import Group, Options, argument, command


@click.command(cls=Group)
def trace() -> None:
    """Show what a recorded run did, and why."""


@command(examples="nano-vm trace show run.json")
@argument("file", help="a trace in JSON (- is standard input)", shell_complete=completion.files)
def show(options: Options) -> int:
    """
    Show a trace: steps, why each branch was taken, attempts and errors.

    The file is what 'run --trace' or 'run --json' wrote. One that was changed or cut is refused.
    """
    from ..traces import show

    return show(options)


trace.add_command(show)
