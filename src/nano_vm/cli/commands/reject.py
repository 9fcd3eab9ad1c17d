"""``nano-vm reject``."""

from __future__ import annotations

from ..grammar import Options, command, option
from ..parameters import STORED, takes_cluster, takes_decision, takes_run, takes_server, takes_store


@command(examples="nano-vm reject 3f2a ask --by ann --reason 'too much'", footer=STORED)
@takes_run
@takes_decision
@option("--shown", metavar="DIGEST", help="of the request that you have seen")
@takes_store
@takes_server
@takes_cluster
def reject(options: Options) -> int:
    """Reject what a run asks."""
    from ..inbox import asked_at, recorded
    from ..places import is_cluster, place_of

    if is_cluster(options):
        from .. import cluster

        return cluster.reject(options)
    with place_of(options, honours=("shown", "reason")) as place:
        run = place.header(options.run)
        run_id = run["run_id"]
        options.by = place.decider(options)
        entry = asked_at(run["waiting"], run_id, options.path, place.given)
        path = entry["path"]
        shown = entry.get("shown") if options.shown is None else options.shown
        place.reject(run_id, path, shown, options.by, options.reason)
        how = place.goes_on(run_id)
    return recorded(options, run_id, "reject", path, how=how)
