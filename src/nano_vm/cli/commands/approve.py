"""``nano-vm approve``."""

from __future__ import annotations

from ..faults import FAILED
from ..grammar import Options, command, option
from ..output import note
from ..parameters import STORED, takes_cluster, takes_decision, takes_run, takes_server, takes_store

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
@takes_server
@takes_cluster
def approve(options: Options) -> int:
    """Approve what a run asks."""
    from ..inbox import agreed, asked_at, asks_here, recorded
    from ..places import is_cluster, place_of

    if is_cluster(options):
        from .. import cluster

        return cluster.approve(options)
    with place_of(options, honours=("shown", "reason")) as place:
        run = place.header(options.run)
        run_id = run["run_id"]
        asks = asks_here(options, run_id, place.given)
        options.by = place.decider(options)
        entry = asked_at(run["waiting"], run_id, options.path, place.given)
        if asks and not agreed(run_id, entry, options.by, place.given):
            note("nothing was recorded")
            return FAILED
        shown = entry["shown"] if asks else options.shown
        missing = place.approve(run_id, entry["path"], shown, options.by, options.reason)
        how = _missing(missing) if missing else place.goes_on(run_id)
    more = {"missing": missing}
    return recorded(options, run_id, "approve", entry["path"], how=how, more=more)


def _missing(people: int) -> str:
    one = people == 1
    return f"{people} more {'person has' if one else 'people have'} to approve before it counts"
