"""``nano-vm reject``."""

from __future__ import annotations

from ..grammar import Options, command, option
from ..parameters import STORED, takes_cluster, takes_decision, takes_run, takes_store


@command(examples="nano-vm reject 3f2a ask --by ann --reason 'too much'", footer=STORED)
@takes_run
@takes_decision
@option("--shown", metavar="DIGEST", help="of the request that you have seen")
@takes_store
@takes_cluster
def reject(options: Options) -> int:
    """Reject what a run asks."""
    from ..inbox import asked_at, principal, recorded, speaking
    from ..stores import given_url

    if options.engine is not None:
        from .. import cluster

        return cluster.reject(options)
    with speaking(options) as (inbox, _, run_id):
        options.by = principal(options)
        waiting = inbox.waiting(run_id)
        path = asked_at(waiting, run_id, options.path, given_url(options))["path"]
        inbox.reject(run_id, path, shown=options.shown, by=options.by, reason=options.reason)
    return recorded(options, run_id, "reject", path)
