"""``nano-vm cancel``."""

from __future__ import annotations

from ..grammar import Options, command, option, typed
from ..parameters import STORED, takes_cluster, takes_run, takes_store, takes_worker


@command(examples="nano-vm cancel 3f2a --tools refund.py:tools", footer=STORED)
@takes_run
@option("--by", metavar="NAME", help="who wants it; default: your account")
@takes_store
@takes_cluster
@takes_worker
def cancel(options: Options) -> int:
    """Cancel a run, and undo what it did."""
    from ...run.durable.lease import living
    from ...run.inbox import account
    from ..driving import driven
    from ..inbox import recorded, speaking
    from ..standing import is_driven
    from ..stores import given_url

    if options.engine is not None:
        from .. import cluster

        return cluster.cancel(options)
    by = options.by = options.by if options.by is not None else account()
    if typed("tools") or options.model:
        return driven(options, lambda vm, run_id: vm.cancel(run_id, by=by), "cancel")
    with speaking(options) as (inbox, store, run_id):
        inbox.cancel(run_id, by=by)
        run = store.load(run_id, rows=False)
        under_way = is_driven(run, living(store))
    if under_way:
        how = f"it is under way in {run.owner}, and stops before its next step"
    else:
        how = (
            f"nano-vm work does it, or at once: nano-vm cancel {run.run_id} --tools "
            f"...{given_url(options)}"
        )
    return recorded(options, run.run_id, "cancel", how=how)
