"""``nano-vm completion``."""

from __future__ import annotations

import click

from ..faults import OK
from ..grammar import Options, argument, command
from ..output import emit

EXAMPLES = """\
nano-vm completion bash > ~/.local/share/bash-completion/completions/nano-vm
nano-vm completion zsh > ~/.zfunc/_nano-vm       (with fpath+=~/.zfunc before compinit)
nano-vm completion fish > ~/.config/fish/completions/nano-vm.fish
"""


@command(examples=EXAMPLES)
@argument("shell", type=click.Choice(("bash", "zsh", "fish")), help="the shell")
def completion(options: Options) -> int:
    """
    Print a script that completes nano-vm in a shell.

    It completes commands, options, programs, runs of the store and steps of a program.
    """
    from ..completion import script

    emit(script(options.shell, click.get_current_context().find_root()))
    return OK
