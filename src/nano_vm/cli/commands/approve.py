"""``nano-vm approve``."""

from __future__ import annotations

from ..faults import FAILED
from ..grammar import Options, command, option
from ..output import note
from ..parameters import STORED, takes_cluster, takes_decision, takes_run, takes_store

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
@takes_cluster
def approve(options: Options) -> int:
    """Approve what a run asks."""
    from ..inbox import agreed, asked_at, asks_here, principal, recorded, speaking
    from ..stores import given_url

    if options.engine is not None:
        from .. import cluster

        return cluster.approve(options)
    where = given_url(options)
    with speaking(options) as (inbox, _, run_id):
        asks = asks_here(options, run_id, where)
        options.by = principal(options)
        entry = asked_at(inbox.waiting(run_id), run_id, options.path, where)
        if asks and not agreed(run_id, entry, options.by, where):
            note("nothing was recorded")
            return FAILED
        shown = entry["shown"] if asks else options.shown
        inbox.approve(run_id, entry["path"], shown=shown, by=options.by, reason=options.reason)
    return recorded(options, run_id, "approve", entry["path"])
