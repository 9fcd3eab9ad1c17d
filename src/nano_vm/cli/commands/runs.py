"""``nano-vm runs``."""

from __future__ import annotations

import click

from ..grammar import Options, command, flag, option, values
from ..parameters import COUNT, DOLLARS, STORED, TIME, takes_store

EXAMPLES = """\
nano-vm runs --store sqlite:///runs.db --status suspended
nano-vm runs --program refund --since 2d --json | jq -r '.[].run_id'
"""

STATUSES = ("pending", "running", "suspended", "success", "failed", "cancelled")


@command(examples=EXAMPLES, footer=STORED)
@takes_store
@values(
    "--status",
    type=click.Choice(STATUSES),
    metavar="STATUS",
    help=f"only these: {', '.join(STATUSES)}; repeat for more",
)
@flag("--waiting", help="only those that wait, with all that they wait for")
@option("--program", "program_name", metavar="NAME", help="only runs of this program")
@option("--since", type=TIME, metavar="TIME", help="begun since: 2h (ago), 2027-01-31, ...")
@option("--until", type=TIME, metavar="TIME", help="begun before")
@option("--min-cost", type=DOLLARS, metavar="USD", help="that cost so much or more")
@option(
    "--limit",
    type=COUNT,
    default="50",
    metavar="N",
    help="at most so many, the newest; default: 50",
)
def runs(options: Options) -> int:
    """List the runs of a store."""
    from ..runs import runs

    return runs(options)
