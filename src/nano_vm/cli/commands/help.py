"""``nano-vm help``."""

from __future__ import annotations

import click

from ..faults import OK
from ..grammar import Options, argument, command
from ..output import say


@command("help", examples="nano-vm help run\nnano-vm help store prune")
@argument("words", nargs=-1, metavar="[COMMAND]...", help="the command")
def help_(options: Options) -> int:
    """Show the help of a command."""
    root = click.get_current_context().find_root()
    context = root
    for word in options.words:
        if not isinstance(context.command, click.Group):
            raise click.UsageError(f"there is nothing below {context.command_path}", context)
        name, found, _ = context.command.resolve_command(context, [word])
        assert found is not None
        context = click.Context(found, parent=context, info_name=name)
    say(context.get_help())
    return OK
