"""Write docs/cli.md: the help of every command, as ``nano-vm COMMAND --help`` prints it.

``make docs`` runs it; a test compares the page with the grammar.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from nano_vm.cli.commands import TABLE
from nano_vm.cli.main import nano_vm

PAGE = Path(__file__).parents[1] / "docs" / "cli.md"

WIDTH = 98
"""Of the help pages: what stands in 100 columns."""

HEAD = """\
# The command line

`nano-vm` checks, runs and looks after programs. This page is made of its help by `make docs`: the
general page, then each command, in the groups of that page. `nano-vm help COMMAND` prints the same.

"""


def pages(name: str, command: click.Command, parent: click.Context | None) -> Iterator[str]:
    """The pages of a command and of those below it."""
    context = click.Context(command, parent=parent, info_name=name, terminal_width=WIDTH)
    level = "#" * (2 if parent is None else len(context.command_path.split()) + 1)
    yield f"{level} {context.command_path}\n\n```text\n{context.get_help().strip()}\n```\n"
    if isinstance(command, click.Group) and parent is not None:
        for below in command.list_commands(context):
            found = command.get_command(context, below)
            assert found is not None
            yield from pages(below, found, context)


def text() -> str:
    """The whole page."""
    root = click.Context(nano_vm, info_name="nano-vm", terminal_width=WIDTH)
    found = list(pages("nano-vm", nano_vm, None))
    for heading, commands in TABLE.items():
        found.append(f"## {heading[0].upper()}{heading[1:]}\n")
        for name in commands:
            command = nano_vm.get_command(root, name)
            assert command is not None
            found += pages(name, command, root)
    return HEAD + "\n".join(found)


if __name__ == "__main__":
    PAGE.write_text(text(), encoding="utf-8")
