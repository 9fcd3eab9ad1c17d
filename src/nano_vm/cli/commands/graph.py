"""``nano-vm graph``."""

from __future__ import annotations

import click

from .. import completion
from ..grammar import Options, command, flag, option
from ..parameters import takes_policy, takes_program, takes_tools

EXAMPLES = """\
nano-vm graph refund.yaml --format svg -o refund.svg
nano-vm graph refund.yaml --proofs --policy refund.policy.yaml --format svg -o refund.svg
nano-vm graph refund.yaml >> README.md   (Mermaid, which GitHub shows)
"""


@command(examples=EXAMPLES)
@takes_program
@option(
    "--format",
    type=click.Choice(("mermaid", "dot", "svg")),
    default="mermaid",
    help="default: mermaid",
)
@option("-o", "--output", metavar="FILE", help="write to FILE", shell_complete=completion.files)
@flag("--proofs", help="mark guards, the calls that they guard, and where outside text goes")
@takes_tools("the tools, for what their contracts protect")
@takes_policy
def graph(options: Options) -> int:
    """Draw the graph of a program: the one that is verified and executed."""
    from ..inspect import graph

    return graph(options)
