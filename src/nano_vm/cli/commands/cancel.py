"""``nano-vm cancel``."""

from __future__ import annotations

from ..grammar import Options, command, option, typed
from ..parameters import STORED, takes_cluster, takes_run, takes_server, takes_store, takes_worker


@command(examples="nano-vm cancel 3f2a --tools refund.py:tools", footer=STORED)
@takes_run
@option("--by", metavar="NAME", help="who wants it; default: your account")
@takes_store
@takes_server
@takes_cluster
@takes_worker
def cancel(options: Options) -> int:
    """Cancel a run, and undo what it did."""
    from ...run.inbox import account
    from ..driving import driven
    from ..inbox import recorded
    from ..places import is_cluster, place_of, server_of

    if is_cluster(options):
        from .. import cluster

        return cluster.cancel(options)
    if server_of(options) is None and (typed("tools") or options.model):
        by = options.by = options.by or account()
        return driven(options, lambda vm, run_id: vm.cancel(run_id, by=by), "cancel")
    with place_of(options) as place:
        run_id = place.header(options.run)["run_id"]
        options.by = place.decider(options, asked=False)
        place.cancel(run_id, options.by)
        run = place.header(run_id)
        how = place.undone(run_id)
    if run["driven"]:
        how = f"it is under way in {run['owner']}, and stops before its next step"
    return recorded(options, run_id, "cancel", how=how)
