"""``nano-vm approve``."""

from __future__ import annotations

import sys
from typing import Any

from ..faults import FAILED, Failure, UsageFault
from ..grammar import Options, command, option
from ..output import note, on_terminal, say
from ..parameters import STORED, takes_cluster, takes_decision, takes_run, takes_store
from ..text import safe

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
    from ..inbox import asked_at, principal, recorded, speaking

    if options.engine is not None:
        from .. import cluster

        return cluster.approve(options)
    with speaking(options) as (inbox, _, run_id):
        asks = options.shown is None and not options.json and on_terminal()
        if options.shown is None and not asks:
            raise UsageFault(
                f"the following arguments are required: --shown DIGEST, as nano-vm show {run_id} "
                f"prints it; "
                "on a terminal it can be left out, and the request is shown and asked about"
            )
        options.by = principal(options)
        entry = asked_at(inbox, run_id, options.path)
        if asks and not _agreed(run_id, entry, options.by):
            note("nothing was recorded")
            return FAILED
        shown = entry["shown"] if asks else options.shown
        inbox.approve(run_id, entry["path"], shown=shown, by=options.by, reason=options.reason)
    return recorded(options, run_id, "approve", entry["path"])


def _agreed(run_id: str, entry: dict[str, Any], by: str) -> bool:
    """Show what is asked, all of it, and ask whether it is approved."""
    from ..decide import asked_lines

    if "kind" not in entry:
        raise Failure(
            f"run {run_id!r} asks no approval at {entry['path']!r}; nano-vm show {run_id} says "
            f"how it stands"
        )
    lines, whole = asked_lines(entry)
    for line in lines:
        say(line)
    if not whole:
        raise Failure(
            f"it is too much for a screen: read all of it with nano-vm show {run_id} --json, and "
            f"approve it by --shown"
        )
    print(f"approve it, as {safe(by)}? [y/N] ", end="", flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
