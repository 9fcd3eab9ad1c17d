"""``nano-vm submit``."""

from __future__ import annotations

from contextlib import closing, nullcontext
from typing import TYPE_CHECKING

from ..faults import OK, UsageFault
from ..grammar import Options, command, flag, option
from ..output import emit_json, say
from ..parameters import (
    CLUSTER,
    STORE,
    begins_on_cluster,
    keeps_in_store,
    takes_budget,
    takes_cluster,
    takes_host,
    takes_inputs,
    takes_keys,
    takes_policy,
    takes_price,
    takes_program,
    takes_said,
    takes_server,
)

if TYPE_CHECKING:
    from ...temporal import TemporalRuns
    from ..submission import Submission

EXAMPLES = """\
nano-vm submit refund.yaml --tools refund.py:tools --store sqlite:///runs.db -i order_id=A-1001
nano-vm submit refund.yaml --engine temporal -i order_id=A-1001
"""


@command(examples=EXAMPLES)
@takes_program
@takes_inputs("an input; repeat for more")
@flag("--json", help="print the run's id as JSON")
@option("--seed", type=int, metavar="N", help="seed of the waits between attempts")
@takes_host
@takes_policy
@takes_budget("a limit: max_steps, max_tokens, max_seconds, ...")
@takes_price("for max_cost_usd")
@keeps_in_store("the run")
@option("--run-id", metavar="ID", help="the run's id; one that is there is joined", section=STORE)
@takes_said
@takes_keys
@takes_server
@takes_cluster
@begins_on_cluster
@option(
    "--cron",
    metavar="EXPR",
    help="begin a run at each of these times, in UTC: '0 8 * * 1-5'; --run-id names the schedule, "
    "which nano-vm schedule shows, pauses and removes",
    section=CLUSTER,
)
def submit(options: Options) -> int:
    """
    Begin a run that workers do, and print its id.

    It is in a store, on a server, or on a Temporal cluster. For a store the tools and models must be
    given, by which the program is verified; workers of a server or a cluster verify it by their own.
    On a server the program may be one of its project: NAME, or NAME@VERSION.
    """
    from ..places import is_cluster, server_of

    if options.cron is not None and (options.engine is None or options.run_id is None):
        raise UsageFault("--cron is for --engine temporal, with --run-id, which names the schedule")
    url = None if is_cluster(options) else server_of(options)
    run_id = _elsewhere(options) if url is None else _on_server(url, options)
    if options.json:
        emit_json({"run_id": run_id})
    else:
        say(run_id)
    return OK


def _on_server(url: str, options: Options) -> str:
    from ..sending import begun_on

    with begun_on(url, options) as begun:
        return begun.run_id


def _elsewhere(options: Options) -> str:
    from .. import connection, stores
    from ..submission import submission_of

    if options.engine is not None:
        connection.refuse(options)
        return _on_cluster(options, submission_of(options))
    store = stores.store_if_named(options)
    if store is None:
        raise UsageFault(
            "where does the run go? Give --store URL, --server URL, or --engine temporal"
        )
    return _stored(submission_of(options, store))


def _on_cluster(options: Options, begun: Submission) -> str:
    from .. import connection

    async def submitted(runs: TemporalRuns) -> str:
        given = {"programs": begun.programs, **begun.options}
        if options.cron is None:
            return await runs.submit(begun.program, begun.inputs, **given)
        name = given.pop("run_id")
        await runs.schedule(name, begun.program, begun.inputs, cron=options.cron, **given)
        return str(name)

    with nullcontext() if begun.vm is None else closing(begun.vm):
        return connection.on_cluster(options, submitted, begun.vm)


def _stored(begun: Submission) -> str:
    import asyncio

    assert begun.vm is not None
    with closing(begun.vm):
        return asyncio.run(begun.vm.submit(begun.program, begun.inputs, **begun.options))
