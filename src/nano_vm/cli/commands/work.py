"""``nano-vm work``."""

from __future__ import annotations

from ..grammar import Options, command, flag
from ..parameters import STORED, takes_concurrency, takes_store, takes_worker

EXAMPLES = """\
nano-vm work --tools refund.py:tools --model local --store sqlite:///runs.db
nano-vm work --tools refund.py:tools --until-idle   (from cron)
"""


@command(examples=EXAMPLES, footer=STORED)
@flag("--until-idle", help="end when there is nothing to run")
@takes_concurrency()
@takes_store
@takes_worker
def work(options: Options) -> int:
    """
    Run what nobody runs in a store: runs that were submitted, abandoned by a process that is gone,
    due, or answered.

    It goes on for ever; several may share one store, on one machine or many. It prints a line for
    each run when it ends or waits. Ctrl-C lets calls that are under way end, and leaves the runs to
    others.
    """
    from ..runs import work

    return work(options)
