"""``nano-vm resolve``."""

from __future__ import annotations

from .. import completion
from ..grammar import Options, argument, command, flag, only_one, option
from ..parameters import (
    STORED,
    takes_cluster,
    takes_run,
    takes_server,
    takes_signing_key,
    takes_store,
)

EXAMPLES = """\
nano-vm resolve 3f2a pay --done '"receipt 77"' --by ann     it took place, and gave this
nano-vm resolve 3f2a pay --retry --by ann                   it did not: make it
"""


@command(examples=EXAMPLES, footer=STORED)
@takes_run
@argument("path", help="of the call, as 'show' prints it", shell_complete=completion.asked_paths)
@option("--done", metavar="JSON", help="it took place, and this is its output (or @FILE)")
@flag("--retry", help="it did not take place: make it again")
@option("--fail", metavar="REASON", help="it failed")
@option("--by", metavar="NAME", help="who says so; default: your account")
@takes_store
@takes_server
@takes_cluster
@takes_signing_key
def resolve(options: Options) -> int:
    """Record the outcome of a call whose result is unknown."""
    from ...run.inbox import account
    from ...values import UNSET
    from ..inbox import payload, recorded
    from ..places import is_cluster, place_of

    only_one(options, "--done", "--retry", "--fail", required=True)
    done = payload(options.done, "--done") if options.done is not None else UNSET
    if is_cluster(options):
        from .. import cluster

        return cluster.resolve(options, done, options.by or account())
    with place_of(options, honours=("done", "retry", "fail")) as place:
        run = place.header(options.run)
        run_id = run["run_id"]
        options.by = place.decider(options, asked=False)
        at = (entry["shown"] for entry in run["waiting"] if entry["path"] == options.path)
        shown, by = next(at, None), options.by
        place.resolve(run_id, options.path, shown, by, done, options.retry, options.fail)
        how = place.goes_on(run_id)
    said = "done" if done is not UNSET else "retry" if options.retry else "fail"
    return recorded(options, run_id, f"resolve ({said})", options.path, how=how)
