"""``nano-vm approve``."""

from __future__ import annotations

from ..grammar import Options, command, option
from ..parameters import STORED, takes_decision, takes_run, takes_store

EXAMPLES = """\
nano-vm approve 3f2a                                      on a terminal: shows it and asks
nano-vm approve 3f2a ask --shown 3073ee8b0c41 --by ann    its digest as 'nano-vm show' prints it
"""


@command(examples=EXAMPLES, footer=STORED)
@takes_run
@takes_decision
@option(
    "--shown",
    metavar="DIGEST",
    help="of the request that you have seen; 12 digits are enough",
)
@takes_store
def approve(options: Options) -> int:
    """Approve what a run asks."""
    from ..runs import approve

    return approve(options)
